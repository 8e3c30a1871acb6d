"""What an error or an answer tells a client: the field that is wrong, and no more than it may."""

import json
import pickle

import httpx
import pytest

from composer.http.app import create_app
from composer.http.errors import api_error
from composer.key_store import KeyStore
from experts_registry.errors import ExpertRequestError, OffersError
from tests.composer.http.servers import running
from tests.composer.http.upstream import DETAILS, TOLD

CHAT = "/v1/chat/completions"
CANARY = "CANARYPROMPT"


def say(raw, content="hello", model="cheap", **fields):
    messages = [{"role": "user", "content": content}]
    return raw.post(CHAT, json={"model": model, "messages": messages, **fields})


@pytest.mark.parametrize(
    ("path", "fields", "param"),
    [
        (CHAT, {"tools": [{"type": "function", "function": {"name": "f"}}]}, "tools"),
        (CHAT, {"response_format": {"type": "json_object"}}, "response_format"),
        (CHAT, {"tomorrow": 1}, "tomorrow"),
        (CHAT, {"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, "messages"),
        ("/v1/embeddings", {"model": "words", "input": "x", "dimensions": 99}, "dimensions"),
    ],
)
def test_the_field_that_no_expert_offers_is_named(raw, path, fields, param):
    body = {"model": "cheap", "messages": [{"role": "user", "content": "hello"}], **fields}
    error = raw.post(path, json=body).json()["error"]
    assert (error["code"], error["param"]) == ("unsupported_parameter", param)


def test_what_an_upstream_blames_is_passed_on(raw):
    response = say(raw, "blame", "far")
    error = response.json()["error"]
    assert response.status_code == 400
    assert (error["code"], error["param"]) == ("invalid_tool", "tools[0].type")


def test_what_a_remote_expert_tells_of_its_answer_is_passed_on(raw):
    whole = say(raw, "tell", "far").json()
    assert {key: whole[key] for key in TOLD} == TOLD
    assert {key: whole["usage"][key] for key in DETAILS} == DETAILS
    assert "usage" not in whole["choices"][0]["message"]
    fields = {"stream": True, "stream_options": {"include_usage": True}}
    lines = say(raw, "tell", "far", **fields).text.split("\n\n")
    last = json.loads(lines[-3].removeprefix("data: "))
    assert {key: last[key] for key in TOLD} == TOLD
    assert {key: last["usage"][key] for key in DETAILS} == DETAILS
    assert TOLD.keys().isdisjoint(say(raw).json())


@pytest.mark.parametrize(
    ("path", "fields", "where"),
    [
        (CHAT, {"messages": [{"role": "user", "content": "x"}, CANARY]}, "messages[1]: is a str"),
        (CHAT, {"messages": [{"role": "user", "content": {"a": CANARY}}]}, "messages[0]: "),
        ("/v1/responses", {"input": [CANARY]}, "input[0]: is a str"),
        ("/v1/responses", {"input": [{"role": CANARY, "content": "x"}]}, "input[0].role: "),
        ("/v1/responses", {"input": [{"type": CANARY}]}, "input[0]: "),
        ("/v1/responses", {"input": "x", "tools": [{"type": CANARY}]}, "tools[0]: "),
        (
            "/v1/responses",
            {"input": [{"role": "user", "content": [{"type": CANARY}]}]},
            "input[0].content[0]: ",
        ),
        ("/v1/embeddings", {"model": "words", "input": "x", "input_type": CANARY}, "input_type: "),
    ],
)
def test_no_error_repeats_the_prompt(raw, path, fields, where):
    response = raw.post(path, json={"model": "cheap", **fields})
    assert response.status_code == 400
    assert response.json()["error"]["message"].startswith(where)
    assert CANARY not in response.text


def test_a_name_of_any_length_is_quoted_in_part(raw):
    long = "x" * 3_000_000
    for response in (
        say(raw, model=long),
        raw.post("/v1/embeddings", json={"model": long, "input": "x"}),
        raw.post("/v1/feedback", json={"id": long, "quality": 1}),
        raw.post("/v1/rerank", json={"model": long, "query": "x", "documents": ["x"]}),
        say(raw, **{long: 1}),
    ):
        assert response.status_code in (400, 404)
        assert len(response.content) < 2000


@pytest.mark.parametrize("stream", [False, True])
def test_a_client_learns_neither_key_variable_nor_host(
    upstream_url, tmp_path, monkeypatch, caplog, stream
):
    monkeypatch.setenv("UPSTREAM_KEY", "sk-abcdefgh")
    path = tmp_path / "experts.yaml"
    far = f'{{base_url: "{upstream_url}/v1", api_key_env: UPSTREAM_KEY}}'
    gone = '{base_url: "http://127.0.0.1:9/v1"}'
    path.write_text(
        "version: 1\nexperts:\n"
        f"  - {{name: far, kind: llm, backend: openai, model: m, options: {far}}}\n"
        f"  - {{name: gone, kind: llm, backend: openai, model: m, limits: {{retries: 0}},"
        f" options: {gone}}}\n"
    )
    host = upstream_url.removeprefix("http://")
    with running(create_app(path)) as url, httpx.Client(base_url=url, trust_env=False) as raw:
        refused = say(raw, "leak", "far", stream=stream)
        away = say(raw, model="gone", stream=stream)
    assert refused.json()["error"]["message"].startswith("expert 'far': HTTP 401: ")
    assert "the operator has to check its API key" in refused.text
    assert away.json()["error"]["code"] == "expert_unavailable"
    for secret in ("UPSTREAM_KEY", host, "127.0.0.1", "sk-abc"):
        assert secret not in refused.text + away.text
    assert "UPSTREAM_KEY" in caplog.text


def test_a_server_that_cannot_read_its_keys_is_not_ready(tmp_path):
    path = tmp_path / "experts.yaml"
    path.write_text("version: 1\nexperts: [{name: bird, kind: llm, backend: echo, model: echo}]\n")
    store = KeyStore(tmp_path / "keys.db")
    store.create("first")
    store.close()
    with running(create_app(path)) as url, httpx.Client(base_url=url, trust_env=False) as raw:
        assert raw.get("/health/ready").status_code == 200
    for file in tmp_path.glob("keys.db*"):
        file.unlink()
    (tmp_path / "keys.db").write_bytes(b"this is no database at all, however long" * 200)
    with running(create_app(path)) as url, httpx.Client(base_url=url, trust_env=False) as raw:
        assert say(raw, model="bird").status_code == 503
        response = raw.get("/health/ready")
        assert response.status_code == 503
        assert str(tmp_path) not in response.text
        assert raw.get("/health").status_code == 200


def test_errors_keep_what_they_know_on_the_way_between_processes():
    sent = ExpertRequestError("expert 'a': no", 400, "tools", "bad_tool")
    sent.public = "no"
    got = api_error(pickle.loads(pickle.dumps(sent)))
    assert (got.code, got.param, str(got)) == ("bad_tool", "tools", "no")
    offers = pickle.loads(pickle.dumps(OffersError("no", "tools")))
    assert (str(offers), offers.param) == ("no", "tools")
