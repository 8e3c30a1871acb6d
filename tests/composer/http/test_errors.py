import json
import logging

import httpx
import openai
import pytest
from starlette.responses import Response
from starlette.routing import Route, Router

from composer.http.bodies import MAX_BYTES
from composer.http.connection import Guarded
from composer.http.errors import api_error
from composer.planning import Planner
from experts_registry import errors
from experts_registry.errors import (
    ComposerError,
    ExpertBusyError,
    ExpertRequestError,
    KeyRefusedError,
    LimitError,
)
from tests.composer.http.servers import running

CHAT = "/v1/chat/completions"
GOOD = {"model": "cheap", "messages": [{"role": "user", "content": "hello"}]}


def error_of(response):
    assert response.headers["content-type"] == "application/json"
    assert response.headers["x-request-id"].startswith("req_")
    (key, error), *rest = response.json().items()
    assert (key, rest) == ("error", [])
    assert sorted(error) == ["code", "message", "param", "type"]
    assert error["message"]
    return response.status_code, error["type"], error["code"], error["param"]


@pytest.mark.parametrize(
    ("fields", "code", "param"),
    [
        ({"messages": []}, "empty_array", "messages"),
        ({"messages": None}, "missing_required_parameter", "messages"),
        ({"messages": "hello"}, "invalid_type", "messages"),
        ({"messages": ["hello"]}, "invalid_value", "messages"),
        ({"messages": [{"role": "user", "content": ""}]}, "invalid_value", "messages"),
        ({"messages": [{"role": "user", "content": 5}]}, "invalid_value", "messages"),
        ({"messages": [{"role": "user", "content": ["hello"]}]}, "invalid_value", "messages"),
        ({"messages": [{"role": "user", "content": [{"text": "x"}]}]}, "invalid_value", "messages"),
        ({"messages": [{"role": "king", "content": "hello"}]}, "invalid_value", "messages"),
        ({"user": 5}, "invalid_type", "user"),
        ({"logit_bias": {"a": 1}}, "invalid_value", None),
        ({"messages": GOOD["messages"] * 2049}, "array_above_max_length", "messages"),
        ({"model": None}, "missing_required_parameter", "model"),
        ({"model": 5}, "invalid_type", "model"),
        ({"n": 0}, "integer_below_min_value", "n"),
        ({"n": 129}, "integer_above_max_value", "n"),
        ({"n": True}, "invalid_type", "n"),
        ({"max_tokens": -1}, "integer_below_min_value", "max_tokens"),
        ({"max_completion_tokens": -1}, "integer_below_min_value", "max_completion_tokens"),
        ({"max_tokens": 1.5}, "invalid_type", "max_tokens"),
        ({"temperature": 2.1}, "decimal_above_max_value", "temperature"),
        ({"temperature": "hot"}, "invalid_type", "temperature"),
        ({"top_p": -0.1}, "decimal_below_min_value", "top_p"),
        ({"presence_penalty": 3}, "decimal_above_max_value", "presence_penalty"),
        ({"top_logprobs": 21, "logprobs": True}, "integer_above_max_value", "top_logprobs"),
        ({"top_logprobs": 2}, "invalid_value", "top_logprobs"),
        ({"seed": "x"}, "invalid_type", "seed"),
        ({"stop": ["a"] * 5}, "array_above_max_length", "stop"),
        ({"stop": [1]}, "invalid_type", "stop"),
        ({"stream": "yes"}, "invalid_type", "stream"),
        ({"stream_options": 1}, "invalid_type", "stream_options"),
        (
            {"stream_options": {"include_usage": []}},
            "invalid_type",
            "stream_options.include_usage",
        ),
    ],
)
def test_a_wrong_field_is_named_with_openais_code(raw, fields, code, param):
    response = raw.post(CHAT, json={**GOOD, **fields})
    assert error_of(response) == (400, "invalid_request_error", code, param)


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b"", "invalid_json"),
        (b"{", "invalid_json"),
        (b"\xff\xfe", "invalid_json"),
        (b'{"model": NaN}', "invalid_json"),
        (b'{"model": "\\ud800"}', "invalid_json"),
        (b'{"seed": ' + b"9" * 5000 + b"}", "invalid_json"),
        (b"[" * 1_000, "invalid_json"),
        (b"[" * 100_000, "too_many_values"),
        (b'{"a":' * 300 + b"1" + b"}" * 300, "invalid_json"),
        (b"[]", "invalid_type"),
        (b'"hello"', "invalid_type"),
        (b"null", "invalid_type"),
    ],
)
def test_a_body_that_is_no_json_object_is_refused(raw, body, code):
    assert error_of(raw.post(CHAT, content=body))[:3] == (400, "invalid_request_error", code)


def test_many_brackets_in_a_text_are_not_depth(raw):
    messages = [{"role": "user", "content": '[{"' * 1000 + "\\"}]
    assert raw.post(CHAT, json={**GOOD, "messages": messages}).status_code == 200


def test_a_parse_error_does_not_quote_the_body(raw):
    assert "secret" not in raw.post(CHAT, content=b'{"secret" x').text


def in_pieces():
    yield from [b" " * 1_000_000] * 11


@pytest.mark.parametrize("content", [b" " * (MAX_BYTES + 1), in_pieces()], ids=["sized", "chunked"])
def test_a_body_over_the_limit_is_refused(url, content):
    response = httpx.post(f"{url}{CHAT}", content=content, trust_env=False, timeout=20)
    assert error_of(response)[:3] == (413, "invalid_request_error", "request_too_large")


def test_unknown_paths_and_methods_are_json_errors(raw):
    assert error_of(raw.get("/v2/nothing"))[:3] == (404, "invalid_request_error", "unknown_url")
    assert error_of(raw.post(CHAT + "/"))[0] == 404
    response = raw.put(CHAT)
    assert error_of(response)[:3] == (405, "invalid_request_error", "method_not_allowed")
    assert response.headers["allow"] == "GET, HEAD, POST"
    assert error_of(raw.put("/v1/models"))[0] == 405


def test_all_methods_of_a_path_are_named():
    routes = [Route("/x", Response(), methods=[method]) for method in ("GET", "POST")]
    with running(Guarded(Router(routes))) as url:
        response = httpx.put(f"{url}/x", trust_env=False)
    assert error_of(response)[0] == 405
    assert response.headers["allow"] == "GET, HEAD, POST"


def test_a_page_of_another_site_cannot_spend_money(raw, url):
    for origin in ("https://evil.example", "null", "http://127.0.0.1:1"):
        response = raw.post(CHAT, json=GOOD, headers={"origin": origin})
        assert error_of(response)[:3] == (403, "invalid_request_error", "origin")
    assert raw.post(CHAT, json=GOOD, headers={"origin": url}).is_success


def test_an_unknown_model_is_openais_404(client):
    with pytest.raises(openai.NotFoundError, match="did you mean 'cheap'") as raised:
        client.chat.completions.create(**{**GOOD, "model": "chaep"})
    assert (raised.value.code, raised.value.param) == ("model_not_found", None)


def test_a_retriever_is_no_chat_model(raw):
    assert error_of(raw.post(CHAT, json={**GOOD, "model": "words"}))[::2] == (
        404,
        "model_not_found",
    )


def test_a_prompt_that_is_too_long_has_openais_code(raw):
    messages = [{"role": "user", "content": "word " * 60}]
    response = raw.post(CHAT, json={"model": "lab/dear", "messages": messages})
    expected = (400, "invalid_request_error", "context_length_exceeded", "messages")
    assert error_of(response) == expected


def test_a_slow_expert_is_a_504(raw):
    response = raw.post(CHAT, json={**GOOD, "model": "slow"})
    assert error_of(response) == (504, "timeout_error", "timeout", None)


def test_what_a_remote_expert_refuses_is_the_callers_400(raw):
    messages = [{"role": "user", "content": "wrong"}]
    response = raw.post(CHAT, json={"model": "far", "messages": messages})
    assert error_of(response)[:3] == (400, "invalid_request_error", "expert_refused")
    assert "no such tool" in response.json()["error"]["message"]


def test_an_unexpected_error_is_a_json_500_and_logged_without_the_prompt(raw, caplog, monkeypatch):
    async def broken(self, prompt, *rest):
        raise KeyError(prompt.query)

    monkeypatch.setattr(Planner, "plan", broken)
    for stream in (False, True):
        with caplog.at_level(logging.DEBUG, logger="composer"):
            messages = [{"role": "user", "content": "canary-prompt"}]
            response = raw.post(CHAT, json={**GOOD, "messages": messages, "stream": stream})
        assert error_of(response) == (500, "server_error", None, None)
        assert "canary-prompt" not in response.text
        assert "KeyError" in caplog.text
        assert "canary-prompt" not in caplog.text


@pytest.mark.parametrize(
    ("status", "ours"), [(400, 400), (422, 400), (None, 400), (401, 502), (403, 502), (404, 502)]
)
def test_an_upstream_that_refuses_our_key_or_model_is_not_the_callers_fault(status, ours):
    assert api_error(ExpertRequestError("expert 'a': no", status)).status == ours


def test_a_wait_is_told_in_whole_seconds_that_suffice():
    headers = api_error(ExpertBusyError("expert 'a': busy", 1.2)).headers
    assert (headers["retry-after"], headers["retry-after-ms"]) == ("2", "1200")
    assert "retry-after" not in api_error(ExpertBusyError("expert 'a': busy")).headers


def tree(kind):
    return [kind, *(sub for child in kind.__subclasses__() for sub in tree(child))]


OURS = [kind for kind in tree(ComposerError) if kind.__module__ == errors.__name__]
FOR_OPERATORS = {errors.DatabaseError}  # it names a path


@pytest.mark.parametrize("kind", OURS, ids=lambda kind: kind.__name__)
def test_every_error_of_ours_has_its_place_in_http(kind):
    arguments = {KeyRefusedError: (), LimitError: ("where: what", "tokens", 3.0)}
    error = kind(*arguments.get(kind, ("where: what",)))
    found = api_error(error)
    assert 400 <= found.status < 600
    message = json.loads(json.dumps(found.body))["error"]["message"]
    assert (message == str(error)) == (kind not in FOR_OPERATORS)
    is_servers = found.status >= 500
    assert (found.kind in ("server_error", "timeout_error")) == is_servers


@pytest.mark.parametrize(
    "field", ["temperature", "frequency_penalty", "max_tokens", "n", "seed", "top_logprobs"]
)
def test_a_number_of_400_digits_is_out_of_range(raw, field):
    body = json.dumps({**GOOD, "logprobs": True, field: 0}).replace(": 0", f": 1{'0' * 400}")
    response = raw.post(CHAT, content=body)
    assert response.status_code == 400
    assert error_of(response)[3] == field


@pytest.mark.parametrize(
    "body",
    [
        b'{"model": "cheap", "messages": [{"role": "user", "content": "a\xed\xa0\x80"}]}',
        json.dumps(GOOD).encode("utf-16"),
    ],
    ids=["half a surrogate", "UTF-16"],
)
def test_what_is_not_utf_8_is_refused(raw, body):
    assert error_of(raw.post(CHAT, content=body))[2] == "invalid_json"


def test_quotes_and_brackets_are_counted_in_one_pass(raw):
    """Each quote in a string without an end would otherwise be tried as a new beginning."""
    body = b'{"x": "' + b'\\"' * 200_000 + b"[" * 100
    assert error_of(raw.post(CHAT, content=body, timeout=10))[2] == "invalid_json"


def test_an_origin_that_is_no_address_is_another_site(raw):
    response = raw.post(CHAT, json=GOOD, headers={"origin": "http://["})
    assert error_of(response)[:3] == (403, "invalid_request_error", "origin")
