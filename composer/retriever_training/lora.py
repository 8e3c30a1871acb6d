"""A base encoder with an adapter on it that is trained, in PEFT's format on disk.

Hu et al., "LoRA: Low-Rank Adaptation of Large Language Models", ICLR 2022: a frozen matrix W of
attention becomes W + (alpha / r) B A, where only A and B, of rank r, are learned; B starts at 0,
so that the untrained adapter changes nothing.
"""

import json
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from pydantic import BaseModel, Field
from safetensors.torch import save

from experts_registry.backends.local_models import bounded, encodable, hub_arguments, loading
from experts_registry.errors import ModelSourceError
from experts_registry.schema import ExpertSpec
from experts_registry.sources import locate
from experts_registry.types import Embedder, FloatArray, Role

__all__ = ["Adapted", "Lora"]

_BATCH = 32
_CLOSE = 1e-3  # largest difference of a unit vector's entry that float32 explains
_PROBE = "how vectors are compared"


class Lora(BaseModel, extra="forbid", frozen=True):
    """The adapter's shape."""

    r: int = Field(8, ge=1, le=256, description="Rank.")
    alpha: int = Field(32, ge=1, description="What it is scaled by, over the rank.")
    dropout: float = Field(0.1, ge=0, lt=1, description="Of the adapter's input, in training.")


class Adapted:
    """An encoder whose adapter learns and whose base is frozen."""

    def __init__(self, spec: ExpertSpec, lora: Lora, *, seed: int) -> None:
        peft, package = _packages()
        self.spec = spec
        torch.manual_seed(seed)
        with loading(spec):
            hub = hub_arguments(
                spec,
                revision=spec.options.get("revision"),
                trust_remote_code=spec.options.get("trust_remote_code", False),
            )
            self._model: Any = package.SentenceTransformer(locate(spec), device="cpu", **hub)
        self._prompts = _prompts(spec, self._model)
        if (length := spec.options.get("max_length")) is not None:
            self._model.max_seq_length = min(length, self._model.max_seq_length or length)
        self._config = peft.LoraConfig(
            r=lora.r,
            lora_alpha=lora.alpha,
            lora_dropout=lora.dropout,
            target_modules=_attention(spec, self._model.transformers_model),
            task_type="FEATURE_EXTRACTION",
        )
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # of transformers, about itself
            self._peft: Any = peft.get_peft_model(self._model.transformers_model, self._config)

    def check(self, base: Embedder) -> None:
        """Check that it embeds as the base does, as long as nothing is learned.

        Raises:
            ModelSourceError: it does not.
        """
        for role in ("query", "passage"):
            own, other = self.embed([_PROBE], role=role), base.embed([_PROBE], role=role)
            if own.shape != other.shape or np.abs(own - other).max() > _CLOSE:
                raise ModelSourceError(
                    f"expert {self.spec.name!r}: sentence_transformers computes other vectors "
                    f"for a {role} than its backend; train another base"
                )

    @property
    def parameters(self) -> list[Any]:
        """What is learned."""
        return [p for p in self._model.parameters() if p.requires_grad]

    def vectors(self, texts: Sequence[str], *, role: Role) -> torch.Tensor:
        """Return unit rows (n, d) that gradients flow through, with dropout."""
        self._model.train()
        return self._unit(texts, role)

    def embed(self, texts: Sequence[str], *, role: Role) -> FloatArray:
        """Return unit rows (n, d) as they are served."""
        self._model.eval()
        order = sorted(range(len(texts)), key=lambda i: -len(texts[i]))
        starts = range(0, len(order), _BATCH)
        with torch.inference_mode():
            parts = [self._unit([texts[i] for i in order[s : s + _BATCH]], role) for s in starts]
        sorted_rows = torch.cat(parts).numpy()
        x = np.empty_like(sorted_rows)
        x[order] = sorted_rows
        return x

    def state(self) -> dict[str, torch.Tensor]:
        """Return a copy of what was learned, under the names that PEFT saves."""
        from peft import get_peft_model_state_dict

        learned = get_peft_model_state_dict(self._peft)
        return {name: value.detach().clone() for name, value in learned.items()}

    def restore(self, state: Mapping[str, torch.Tensor]) -> None:
        """Take back what `state` returned."""
        from peft import set_peft_model_state_dict

        set_peft_model_state_dict(self._peft, dict(state))

    def files(self, state: Mapping[str, torch.Tensor]) -> dict[str, bytes]:
        """Return what PEFT saves: name -> content."""
        config = self._peft.peft_config["default"].to_dict()
        config |= {"base_model_name_or_path": self.spec.sources[0], "inference_mode": True}
        text = json.dumps(config, indent=2, sort_keys=True, default=sorted)
        weights = save(dict(state), metadata={"format": "pt"})
        return {"adapter_config.json": text.encode(), "adapter_model.safetensors": weights}

    def _unit(self, texts: Sequence[str], role: Role) -> torch.Tensor:
        length = self._model.max_seq_length
        read = [bounded(encodable(text), length) for text in texts]
        features = self._model.preprocess(read, prompt=self._prompts[role] or None)
        found: torch.Tensor = self._model(features)["sentence_embedding"]
        return torch.nn.functional.normalize(found.float(), dim=-1)


def _packages() -> tuple[Any, Any]:
    try:
        import peft
    except ImportError as error:
        raise ModelSourceError(
            "retrievers train: needs peft; install 'expert-composer[lora]'"
        ) from error
    import sentence_transformers

    return peft, sentence_transformers


def _prompts(spec: ExpertSpec, model: Any) -> Mapping[Role, str]:
    """Return what is put before a text of each role, as the backend does."""
    known: Mapping[str, str] = model.prompts or {}
    default = known.get(model.default_prompt_name or "", "")
    passage = next((known[k] for k in ("document", "passage", "corpus") if known.get(k)), default)
    own = {role: spec.options.get(f"{role}_prompt") for role in ("query", "passage")}
    return {
        "query": (known.get("query") or default) if own["query"] is None else own["query"],
        "passage": passage if own["passage"] is None else own["passage"],
    }


def _attention(spec: ExpertSpec, encoder: Any) -> list[str]:
    """Return the projections of attention, by the end of their names that all layers share."""
    names = [
        name
        for name, module in encoder.named_modules()
        if isinstance(module, torch.nn.Linear)
        and any("attn" in part or "attention" in part for part in name.split("."))
    ]
    ends = [name[_after_number(name) :] for name in names]
    if not names:
        raise ModelSourceError(
            f"expert {spec.name!r}: its model has no attention to adapt; train another base"
        )
    return sorted(set(ends))


def _after_number(name: str) -> int:
    """Return where the last part that is a number ends, and its dot."""
    parts = name.split(".")
    last = max((i for i, part in enumerate(parts) if part.isdigit()), default=-1)
    return len(".".join(parts[: last + 1])) + (last >= 0)
