"""One request as the decision log keeps it: who was asked, why, what it took. No texts."""

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from typing import Any

from pydantic_core import to_json

from composer.explanation import decision_json
from composer.trace import Answer, Step
from experts_registry.types import Usage
from routers.arms import Arm, Found, RatedArm, RetrievalDecision
from routers.decision import Candidate, Decision

__all__ = ["Logged", "error_class"]

_LONGEST = 255  # characters of a name; clients choose some of them
_COLUMNS = ("router", "reason")  # of a decision, with columns of their own


@dataclass(frozen=True, kw_only=True)
class Logged:
    """One request.

    Args:
        request_id: what the client was told.
        status: HTTP status.
        model: what was asked for.
        time: when it was logged.
        key_id: public id of the API key; empty where none was needed.
        expert: who answered; else who was asked last, or was to be asked.
        decision: why it was this one; None where it came to none.
        steps: every call to an expert, for all prompts. Of an error only its class is kept: its
            text may repeat the prompt.
        cost: USD over all steps.
        prompt_tokens: over all steps.
        completion_tokens: over all steps.
        seconds: the whole request.
        error: class of what the client got in place of an answer.
        registry: digest of the expert file.
        generation: of the expert file in that process.
        query: what routers read of the prompt; kept only where the log was told to.
    """

    request_id: str
    status: int
    model: str
    time: str
    key_id: str = ""
    expert: str = ""
    decision: Decision | None = None
    steps: tuple[Step, ...] = ()
    cost: float = 0.0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    seconds: float | None = None
    error: str | None = None
    registry: str = ""
    generation: int = 0
    query: str | None = None

    @classmethod
    def of(cls, answer: Answer, *, request_id: str, **fields: Any) -> "Logged":
        """Log an answer; ``fields`` are those that it does not know, ``key_id`` for example."""
        known = {
            "status": 200,
            "model": answer.model,
            "expert": answer.expert if answer.steps else "",
            "decision": answer.decision,
            "registry": answer.registry,
            "query": answer.query,
            **fields,
        }
        return cls.ended(request_id=request_id, steps=answer.steps, **known)

    @classmethod
    def ended(
        cls,
        *,
        request_id: str,
        status: int,
        model: str,
        steps: Sequence[Step] = (),
        error: BaseException | None = None,
        **fields: Any,
    ) -> "Logged":
        """Log a request however it ended, now; its sums are those of its steps."""
        return cls(
            request_id=request_id,
            status=status,
            model=model,
            time=datetime.now(UTC).isoformat(timespec="milliseconds"),
            steps=tuple(
                step if step.error is None else replace(step, error=error_class(step.error))
                for step in steps
            ),
            cost=sum(step.cost for step in steps),
            prompt_tokens=sum(step.usage.prompt_tokens for step in steps),
            completion_tokens=sum(step.usage.completion_tokens for step in steps),
            error=None if error is None else type(error).__name__,
            **fields,
        )

    def row(self) -> dict[str, Any]:
        """Return it as columns."""
        row: dict[str, Any] = dict(vars(self))
        decision = None if self.decision is None else decision_json(self.decision)
        for column in _COLUMNS:
            row[column] = None if decision is None else _storable(decision.pop(column))
        row["decision"] = None if decision is None else _dumped(decision)
        row["steps"] = _dumped([vars(step) | {"usage": vars(step.usage)} for step in self.steps])
        for name in ("request_id", "model", "key_id", "expert", "error", "registry"):
            row[name] = row[name] and _printable(row[name][:_LONGEST])
        for name in ("prompt_tokens", "completion_tokens", "generation"):
            row[name] = min(row[name], 2**63 - 1)  # upstream servers may claim anything
        row["cost"] = self.cost if math.isfinite(self.cost) else 0.0
        row["query"] = self.query and _storable(self.query)
        return row

    @classmethod
    def of_row(cls, row: Mapping[str, Any]) -> "Logged":
        """Undo `row`."""
        fields = dict(row)
        reasons = {column: fields.pop(column) for column in _COLUMNS}
        decision = fields["decision"] and _decision(json.loads(fields["decision"]) | reasons)
        steps = [
            Step(**step | {"usage": Usage(**step["usage"])}) for step in json.loads(fields["steps"])
        ]
        return cls(**fields | {"decision": decision, "steps": tuple(steps)})

    def json(self) -> dict[str, Any]:
        """Return it as JSON values."""
        decision = None if self.decision is None else _plain(decision_json(self.decision))
        values = vars(self) | {"steps": [asdict(step) for step in self.steps]}
        return values | {"decision": decision}


def _decision(values: dict[str, Any]) -> Decision:
    fields = {name: v for name, v in values.items() if name != "otherwise"}  # it is worked out
    for name in ("experts", "scores"):
        fields[name] = tuple(fields[name])
    fields["candidates"] = tuple(Candidate(**c) for c in fields["candidates"])
    fields["retrieval"] = _retrieval(fields.get("retrieval"))  # rows of before have none
    return Decision(**fields)


def _retrieval(values: dict[str, Any] | None) -> RetrievalDecision | None:
    if values is None:
        return None
    return RetrievalDecision(
        **values
        | {
            "arms": tuple(RatedArm(**a | {"arm": Arm.of(a["arm"])}) for a in values["arms"]),
            "retrievers": tuple(values["retrievers"]),
            "found": tuple(Found(**one) for one in values["found"]),
        }
    )


def error_class(error: str | None) -> str | None:
    """Return the class of an error that reads ``Class: text``."""
    if error is None:
        return None
    match = re.match(r"[A-Za-z_][A-Za-z0-9_.]{0,99}(?=:|$)", error)
    return match[0] if match else "Error"


def _dumped(value: Any) -> str:
    """Return JSON."""
    try:
        return to_json(value, inf_nan_mode="null").decode()
    except ValueError:  # a plug-in router's arrays, or half a surrogate pair
        return json.dumps(_plain(value))


def _plain(value: Any) -> Any:
    """Return JSON values: no NaN, no arrays."""
    if isinstance(value, Mapping):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(v) for v in value]
    if hasattr(value, "tolist"):
        return _plain(value.tolist())
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value if isinstance(value, str | int | float | bool | None) else str(value)


def _printable(text: str) -> str:
    """Replace what could drive the terminal of whoever reads the log."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else "�" for c in _storable(text))


def _storable(text: str) -> str:
    """Replace what databases refuse: halves of surrogate pairs, and NUL."""
    return text.encode(errors="replace").decode().replace("\0", "�")
