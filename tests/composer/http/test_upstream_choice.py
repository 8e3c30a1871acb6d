"""Bodies that try to send our keys and prompts to a host of the client's choice."""

import pytest

from tests.composer.http.servers import running

MESSAGES = [{"role": "user", "content": "hello"}]
BODIES = {
    "/v1/chat/completions": {"model": "far", "messages": MESSAGES},
    "/v1/completions": {"model": "far", "prompt": "hello"},
    "/v1/embeddings": {"model": "words", "input": "hello"},
    "/v1/responses": {"model": "far", "input": "hello"},
    "/v1/rerank": {"model": "words", "query": "hello", "documents": ["hello", "bye"]},
    "/v1/route": {"model": "auto", "messages": MESSAGES},
    "/v1/feedback": {"id": "x", "quality": 1},
}
KEYS = [
    "api_base", "base_url", "api_key", "extra_headers", "extra_query", "user_config", "headers",
    "organization", "project", "default_headers", "model_list", "fallbacks", "litellm_params",
    "azure_endpoint", "endpoint", "proxy", "API_BASE", "Base_Url",
]  # fmt: skip


class Canary:
    """Notes everybody who comes."""

    def __init__(self):
        self.visits = []

    async def __call__(self, scope, receive, send):
        if scope["type"] == "http":
            self.visits.append(scope["path"])
            await send({"type": "http.response.start", "status": 204, "headers": []})
            await send({"type": "http.response.body", "body": b""})


@pytest.fixture(scope="module")
def canary():
    return Canary()


@pytest.fixture(scope="module")
def there(canary):
    with running(canary) as url:
        yield url


def attempts(there):
    """One key at the top, and all of them within what other software would unpack."""
    for key in KEYS:
        yield {key: f"{there}/v1"}
    every = dict.fromkeys(KEYS, f"{there}/v1")
    for wrapper in ("extra_body", "litellm_params", "user_config"):
        yield {wrapper: {**every, "extra_body": every}}
    yield {"model_list": [{"model_name": "far", "litellm_params": every}]}
    yield {"fallbacks": [{"far": [{"model": "far", **every}]}]}


def nested(there):
    """What is passed on as it is, for the upstream to read or refuse: it names no host of ours."""
    every = dict.fromkeys(KEYS, f"{there}/v1")
    yield {"metadata": every}
    yield {"messages": [{**MESSAGES[0], **every}]}
    yield {"tools": [{"type": "function", "function": {"name": "f"}, **every}]}
    yield {"stream_options": every}


@pytest.mark.parametrize("path", BODIES)
def test_no_body_leads_to_another_host(raw, upstream, canary, there, path):
    for attempt in attempts(there):
        upstream.requests.clear()
        status = raw.post(path, json={**BODIES[path], **attempt}).status_code
        assert status == 200 or (path, status) == ("/v1/feedback", 404)
        for request in upstream.requests:
            assert there not in str(request)  # nor is it asked to
    for attempt in nested(there):
        assert raw.post(path, json={**BODIES[path], **attempt}).status_code < 500
    assert canary.visits == []


@pytest.mark.parametrize("model", ["openai/URL", "URL/v1", "far@URL", "openai/far?api_base=URL"])
def test_no_model_name_leads_to_another_host(raw, canary, there, model):
    body = {"model": model.replace("URL", there), "messages": MESSAGES}
    assert raw.post("/v1/chat/completions", json=body).status_code == 404
    assert canary.visits == []


def test_no_header_leads_to_another_host(raw, upstream, canary, there):
    upstream.requests.clear()
    names = ("x-api-base", "x-forwarded-host", "openai-organization", "x-litellm-api-base")
    headers = dict.fromkeys(names, there)
    body = BODIES["/v1/chat/completions"]
    assert raw.post("/v1/chat/completions", json=body, headers=headers).status_code == 200
    assert len(upstream.requests) == 1
    assert canary.visits == []
