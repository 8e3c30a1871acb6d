"""What schemathesis cannot know: which names exist, and how a stream is to be read."""

import json
from collections.abc import Sequence
from typing import Any
from zlib import crc32

import schemathesis

# As in `schemathesis`, the script.
NAMES = ("auto", "parrot", "lab/second", "words")
EMBEDDING = ("/v1/embeddings", "/v1/rerank", "/v2/rerank")
UNOFFERED = ("tools", "tool_choice", "text", "best_of")
ROLES = ("system", "developer", "user", "assistant", "tool", "function")
MOST_MESSAGES = 2048
MOST_TEXTS = 128  # of a text completion, n times the prompts


@schemathesis.hook
def before_call(_context: Any, case: Any, _kwargs: Any) -> None:
    """Ask what can be answered more often: most bodies are wrong in what no schema can say."""
    if isinstance(case.body, dict):
        is_right = case.meta is not None and case.meta.generation.mode.is_positive
        body = answerable(offered(case) if is_right else dict(case.body), case.path)
        case.body = reading(body) if is_right else body
    if isinstance(name := case.path_parameters.get("id"), str) and crc32(name.encode()) % 2:
        case.path_parameters["id"] = NAMES[len(name) % len(NAMES)]


def offered(case: Any) -> dict[str, Any]:
    """Return a right request without what `echo` and `hashing` cannot do: tools, tokens ..."""
    content = case.operation.definition.raw["requestBody"]["content"]["application/json"]
    name = content["schema"]["$ref"].rpartition("/")[2]
    known = case.operation.schema.raw_schema["components"]["schemas"][name]["properties"]
    body = {key: one for key, one in case.body.items() if key in known and key not in UNOFFERED}
    if "messages" in body:
        body["messages"] = [
            {
                **one,
                "role": one["role"] if one["role"] in ROLES else "user",
                "content": "one" if isinstance(one.get("content"), list) else one.get("content"),
            }
            for one in body["messages"]
        ]
    if isinstance(items := body.get("input"), list) and case.path == "/v1/responses":
        body["input"] = [
            one | {k: "one" for k in ("content", "output") if isinstance(one.get(k), list)}
            for one in items
        ]
    return body


def answerable(body: dict[str, Any], path: str) -> dict[str, Any]:
    """Return a request with what is right but cannot be answered made right."""
    if isinstance(body.get("model"), str):
        body["model"] = named(body, NAMES[3:] if path in EMBEDDING else NAMES[:3])
    field = "input" if path == "/v1/responses" else "messages"
    if isinstance(turns := body.get(field), list) and 0 < len(turns) <= MOST_MESSAGES:
        last = {"role": "user", "content": "one two three"}
        body[field] = [*turns[: MOST_MESSAGES - 1], last]
    for field in ("prompt", "input"):  # tokens, of which neither has any
        items = body.get(field)
        if isinstance(items, list) and items and isinstance(items[0], int | float | list):
            body[field] = "one two three"
    if is_between(body.get("top_logprobs"), 0, 20):  # `echo` offers none
        del body["top_logprobs"]
    if body.get("logprobs") is True:
        del body["logprobs"]
    if is_between(body.get("dimensions"), 1, float("inf")):
        body["dimensions"] = 8
    return singular(body)


def reading(body: dict[str, Any]) -> dict[str, Any]:
    """Name the store and the retriever that there are, and ask for passages who has them."""
    for field, name in (("store", "handbook"), ("retriever", "words")):
        if isinstance(body.get(field), str) and drawn(body) % 8:
            body[field] = name
    wish = body.get("retrieval")
    if "always" in (wish, wish.get("mode") if isinstance(wish, dict) else None):
        body["model"] = "auto"
    if isinstance(wish, dict) and isinstance(wish.get("store"), str):
        body["retrieval"] = {**wish, "store": "handbook"}
    return body


def named(body: dict[str, Any], names: Sequence[str]) -> str:
    """Name a model that there is, of the right kind; every eighth time any, or none."""
    kind, which = drawn(body) % 8, drawn(body) // 8
    if kind == 0:
        return str(body["model"])
    if kind == 1:
        return NAMES[which % len(NAMES)]
    return names[which % len(names)]


def drawn(body: dict[str, Any]) -> int:
    """Return a number that is the same for the same body."""
    return crc32(repr(body).encode(errors="replace"))


def singular(body: dict[str, Any]) -> dict[str, Any]:
    """Ask for one answer where a stream is asked for, every third time, and not for too many."""
    if (
        {"prompt", "messages", "input"} & body.keys()
        and body.get("stream") is None
        and drawn(body) % 3 == 0
    ):
        body["stream"] = True
    n, prompt = body.get("n"), body.get("prompt")
    count = len(prompt) if isinstance(prompt, list) else 1
    is_streamed = body.get("stream") is True
    if is_between(n, 2, 128) and (is_streamed or n * count > MOST_TEXTS):
        body["n"] = 1
    if is_streamed and 1 < count <= MOST_TEXTS and all(isinstance(one, str) for one in prompt):
        body["prompt"] = prompt[0]
    return body


def is_between(value: Any, low: float, high: float) -> bool:
    """Tell whether it is a whole number in [low, high]; 2.0 is one, true is none."""
    return type(value) in (int, float) and low <= value <= high and value == value // 1


@schemathesis.deserializer("text/event-stream")
def events(_context: Any, response: Any) -> list[Any]:
    """Return the data of the events, which the document describes, without the last, [DONE]."""
    lines = response.content.decode().split("\n")
    data = [line.removeprefix("data: ") for line in lines if line.startswith("data: ")]
    return [json.loads(one) for one in data if one != "[DONE]"]
