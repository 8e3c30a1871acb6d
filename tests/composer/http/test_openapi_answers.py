"""Answers, whole and streamed, are as our document says, and as OpenAI's does."""

import pytest

from composer.http.app import _POST
from tests.composer.http.contract import OPENAI, closed, events_of, mistakes, schema_of
from tests.composer.http.servers import until

CHAT, TEXT, EMBED = "/v1/chat/completions", "/v1/completions", "/v1/embeddings"
RESPOND = "/v1/responses"
TURN = {"role": "user", "content": "hello there"}
GOOD = {
    CHAT: {"model": "cheap", "messages": [TURN]},
    TEXT: {"model": "cheap", "prompt": "hello"},
    EMBED: {"model": "words", "input": "hello"},
    "/v1/route": {"model": "cheap", "messages": [TURN]},
    "/v1/feedback": {"id": "x", "quality": 1},
    RESPOND: {"model": "cheap", "input": "hello there"},
    "/v1/rerank": {"model": "words", "query": "a", "documents": ["a", "b"]},
    "/v2/rerank": {"model": "words", "query": "a", "documents": ["a", "b"]},
}


@pytest.fixture(scope="module")
def contract(raw):
    return raw.get("/openapi.json").json()


def checked(contract, response):
    """Return the JSON of an answer that holds what is documented and nothing else."""
    document, schema = closed(contract), closed(schema_of(contract, response))
    if not response.headers["content-type"].startswith("text/event-stream"):
        assert mistakes(document, schema, response.json()) == []
        return response.json()
    events, _ = events_of(response)
    for event in events:
        assert mistakes(document, schema, event) == []
    return events


ASKED = [
    (CHAT, {}),
    (CHAT, {"n": 3}),
    (CHAT, {"model": "shaky"}),
    (CHAT, {"model": "far"}),
    (CHAT, {"model": "far", "logprobs": True}),
    (CHAT, {"model": "far", "messages": [{"role": "user", "content": "tool"}]}),
    (CHAT, {"max_tokens": 1}),
    (CHAT, {"stream": True}),
    (CHAT, {"stream": True, "stream_options": {"include_usage": True}}),
    (CHAT, {"stream": True, "model": "far"}),
    (CHAT, {"stream": True, "model": "far", "messages": [{"role": "user", "content": "tool"}]}),
    (TEXT, {}),
    (TEXT, {"prompt": ["a", "b"], "n": 2, "echo": True}),
    (TEXT, {"stream": True, "echo": True}),
    (TEXT, {"stream": True, "stream_options": {"include_usage": True}}),
    (EMBED, {}),
    (EMBED, {"encoding_format": "base64", "input": ["a", "b"]}),
    ("/v1/route", {"model": "auto"}),
    (RESPOND, {}),
    (RESPOND, {"stream": True}),
    (RESPOND, {"model": "far", "input": "tool"}),
    (RESPOND, {"model": "far", "input": "tool", "stream": True}),
    ("/v1/rerank", {}),
    ("/v2/rerank", {"return_documents": True, "top_n": 1}),
]
ASKED = [one for one in ASKED if one[0] in _POST]


@pytest.mark.parametrize(("path", "fields"), ASKED)
def test_an_answer_is_as_documented(raw, contract, path, fields):
    response = raw.post(path, json={**GOOD[path], **fields})
    assert response.is_success
    assert checked(contract, response)


@pytest.mark.parametrize(
    "path",
    [
        "/v1/models",
        "/v1/models/lab/dear",
        "/v1/decisions/nothing",
        "/admin/registry",
        "/admin/status",
        "/health",
        "/health/ready",
        "/openapi.json",
    ],
)
def test_what_is_read_is_as_documented(raw, contract, path):
    assert checked(contract, raw.get(path))


def test_the_page_is_as_documented(raw, contract):
    assert schema_of(contract, raw.get("/ui")) == {"type": "string"}


def test_an_error_after_a_decision_is_as_documented(raw, contract):
    response = raw.post(CHAT, json={**GOOD[CHAT], "model": "dead"})
    assert response.headers["x-composer-expert"] == "dead"
    assert checked(contract, response)
    tools = {"tools": [{"type": "function", "function": {"name": "f"}}]}
    response = raw.post(CHAT, json={**GOOD[CHAT], **tools})
    assert response.status_code == 400
    assert checked(contract, response)


def test_a_decision_and_its_feedback_are_as_documented(raw, contract):
    done = raw.post(CHAT, json={**GOOD[CHAT], "model": "shaky"})
    given = raw.post("/v1/feedback", json={"id": done.json()["id"], "quality": 1})
    assert checked(contract, given)["expert"] == "cheap"
    path = f"/v1/decisions/{done.headers['x-request-id']}"
    until(lambda: raw.get(path).is_success)
    assert len(checked(contract, raw.get(path))["steps"]) == 2


@pytest.mark.parametrize(("model", "status"), [("nobody", 404), ("dead", 503), ("slow", 504)])
def test_an_error_is_as_documented(raw, contract, model, status):
    response = raw.post(CHAT, json={**GOOD[CHAT], "model": model})
    assert response.status_code == status
    assert checked(contract, response)
    assert not mistakes(OPENAI, SCHEMA["ErrorResponse"], response.json())


@pytest.mark.parametrize("path", [CHAT, TEXT])
def test_a_stream_that_breaks_off_is_as_documented(raw, contract, path):
    response = raw.post(path, json={**GOOD[path], "model": "cut", "stream": True})
    *events, last = checked(contract, response)
    assert events
    assert "error" in last
    assert not events_of(response)[1]


# -- OpenAI's own document ----------------------------------------------------------------------

SCHEMA = {
    name: {"$ref": f"#/components/schemas/{name}"} for name in OPENAI["components"]["schemas"]
}
NAMES = {
    CHAT: ("CreateChatCompletionResponse", "CreateChatCompletionStreamResponse"),
    TEXT: ("CreateCompletionResponse", "CreateCompletionResponse"),
    EMBED: ("CreateEmbeddingResponse", ""),
    RESPOND: ("Response", "ResponseStreamEvent"),
}


# Its document knows no base64, and says of some fields only elsewhere, or not at all, that they may
# be null, which its server sends: of a streamed text its end and its usage, of a response the rest.
KNOWN = [one for one in ASKED if one[0] in NAMES and "encoding_format" not in one[1]]
NULL = ("usage", "prompt_cache_key", "safety_identifier", "user")


def without_null(value):
    for choice in value.get("choices", ()):
        choice["finish_reason"] = choice["finish_reason"] or "stop"
    if isinstance(value.get("response"), dict):
        value["response"] = without_null(value["response"])
    return {key: one for key, one in value.items() if one is not None or key not in NULL}


@pytest.mark.parametrize(("path", "fields"), KNOWN)
def test_an_answer_is_as_openai_documents_it(raw, path, fields):
    response = raw.post(path, json={**GOOD[path], **fields})
    whole, chunk = NAMES[path]
    strict = without_null if path in (TEXT, RESPOND) else dict
    if not fields.get("stream"):
        assert mistakes(OPENAI, SCHEMA[whole], strict(response.json())) == []
        return
    events, is_done = events_of(response)
    assert is_done or path == RESPOND  # which has no [DONE]
    for event in events:
        assert mistakes(OPENAI, SCHEMA[chunk], strict(event)) == []


def test_the_models_are_as_openai_documents_them(raw):
    assert not mistakes(OPENAI, SCHEMA["ListModelsResponse"], raw.get("/v1/models").json())
    assert not mistakes(OPENAI, SCHEMA["Model"], raw.get("/v1/models/cheap").json())
