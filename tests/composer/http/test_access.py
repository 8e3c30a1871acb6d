import asyncio
import json
import time
from datetime import UTC, datetime

import httpx
import openai
import pytest

from composer.http.app import create_app
from composer.key_store import KeyStore
from tests.composer.http.servers import running, until

CHAT = "/v1/chat/completions"
FILE = """\
version: 1
experts:
  - {name: cheap, kind: llm, backend: echo, model: echo, price: {prompt: 1, completion: 1}}
  - {name: dear, kind: llm, backend: echo, model: echo, price: {prompt: 1000, completion: 1000}}
  - {name: slow, kind: llm, backend: echo, model: echo, options: {delay: 30},
     price: {prompt: 1000, completion: 1000}}
  - {name: dead, kind: llm, backend: echo, model: echo, options: {fail: unavailable}}
  - {name: gone, kind: llm, backend: echo, model: echo, limits: {retries: 0},
     options: {fail: unavailable}}
  - {name: lost, kind: llm, backend: echo, model: echo, limits: {retries: 0},
     options: {fail: unavailable}}
  - {name: cut, kind: llm, backend: echo, model: echo,
     options: {fail: unavailable, fail_after: 1}}
  - {name: torn, kind: llm, backend: echo, model: echo, price: {prompt: 1000, completion: 1000},
     options: {fail: unavailable, fail_after: 1, fail_times: 1}}
  - {name: small, kind: llm, backend: echo, model: echo, context_window: 20}
  - {name: words, kind: retriever, backend: hashing, model: hashing, options: {dimensions: 8}}
compositions:
  - {name: auto, experts: [cheap]}
  - {name: doomed, experts: [lost, gone], baseline: lost}
"""
CANARY = "canary-prompt-7f3a"


def asking(model="cheap", text="hello", **more):
    return {"model": model, "messages": [{"role": "user", "content": text}], **more}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("access")
    (folder / "experts.yaml").write_text(FILE)
    return folder


@pytest.fixture(scope="module")
def store(folder):
    store = KeyStore(folder / "keys.db")
    store.create("first")  # from now on everybody needs one
    yield store
    store.close()


@pytest.fixture(scope="module")
def url(folder, store):
    with running(create_app(folder / "experts.yaml")) as url:
        yield url


@pytest.fixture
def door(url, store):
    """Give a client with a new key of these limits."""
    clients = []

    def made(**limits):
        new = store.create("test", **limits)
        headers = {"authorization": f"Bearer {new.token}"}
        clients.append(httpx.Client(base_url=url, headers=headers, timeout=20, trust_env=False))
        clients[-1].key, clients[-1].token = new.key, new.token
        return clients[-1]

    yield made
    for client in clients:
        client.close()


def code(response):
    return response.status_code, response.json()["error"]["code"]


def logged(client, response):
    """Wait for the row of a request."""
    until = time.monotonic() + 10
    while time.monotonic() < until:
        found = client.get(f"/v1/decisions/{response.headers['x-request-id']}")
        if found.status_code == 200:
            return found.json()
        time.sleep(0.05)
    raise AssertionError(found.text)


def test_without_keys_nobody_needs_one(tmp_path):
    (tmp_path / "experts.yaml").write_text(FILE)
    with (
        running(create_app(tmp_path / "experts.yaml")) as url,
        httpx.Client(base_url=url, trust_env=False) as client,
    ):
        answer = client.post(CHAT, json=asking())
        assert answer.status_code == 200
        assert logged(client, answer)["expert"] == "cheap"
        assert client.get("/admin/registry").status_code == 200


@pytest.mark.parametrize(
    "header", [None, "", "Bearer", "Bearer none", "Basic abc", "Bearer ec-0123456789-" + "x" * 43]
)
@pytest.mark.parametrize("path", [CHAT, "/v1/embeddings", "/v1/route", "/v1/feedback"])
def test_from_the_first_key_on_every_post_needs_one(url, path, header):
    headers = {} if header is None else {"authorization": header}
    with httpx.Client(base_url=url, trust_env=False) as client:
        refused = client.post(path, json=asking(), headers=headers)
    assert code(refused) == (401, "invalid_api_key")
    assert refused.headers["www-authenticate"] == "Bearer"


def test_models_and_decisions_need_a_key_and_health_does_not(url):
    with httpx.Client(base_url=url, trust_env=False) as client:
        for path in ("/v1/models", "/v1/models/auto", "/v1/decisions/x", "/admin/registry"):
            assert code(client.get(path)) == (401, "invalid_api_key")
        for path in ("/health", "/health/ready"):
            assert client.get(path).status_code == 200


def test_the_openai_client_asks_with_a_key_and_reads_a_refusal(url, door):
    transport = openai.DefaultHttpxClient(trust_env=False)
    with openai.OpenAI(
        base_url=f"{url}/v1", api_key=door().token, max_retries=0, http_client=transport
    ) as client:
        answer = client.chat.completions.create(**asking())
        assert answer.choices[0].message.content
        with pytest.raises(openai.AuthenticationError):
            client.with_options(api_key="wrong").chat.completions.create(**asking())


def test_a_key_may_ask_for_its_models_alone_and_sees_no_others(door):
    client = door(models=("auto",))
    assert client.post(CHAT, json=asking("auto")).status_code == 200
    for model in ("cheap", "no-such-model"):
        assert code(client.post(CHAT, json=asking(model))) == (403, "permission_denied")
        assert code(client.post("/v1/route", json=asking(model))) == (403, "permission_denied")
    embedding = client.post("/v1/embeddings", json={"model": "words", "input": "x"})
    assert code(embedding) == (403, "permission_denied")
    assert [m["id"] for m in client.get("/v1/models").json()["data"]] == ["auto"]
    assert client.get("/v1/models/cheap").status_code == 404


def test_only_an_admin_sees_the_registry(door):
    assert code(door().get("/admin/registry")) == (403, "permission_denied")
    assert door(is_admin=True).get("/admin/registry").status_code == 200


def test_a_revoked_key_is_refused_within_its_time(door, store):
    client = door()
    assert client.get("/v1/models").status_code == 200
    store.revoke(client.key.id)
    until = time.monotonic() + 6
    while client.get("/v1/models").status_code == 200:
        assert time.monotonic() < until
        time.sleep(0.1)


def test_requests_and_tokens_a_minute_are_limited_with_the_seconds_to_wait(door):
    client = door(rpm=2)
    assert [client.post(CHAT, json=asking()).status_code for _ in range(2)] == [200, 200]
    refused = client.post(CHAT, json=asking())
    assert code(refused) == (429, "rate_limit_exceeded")
    assert 0 < int(refused.headers["retry-after"]) <= 60
    assert refused.headers["x-should-retry"] == "true"
    tokens = door(tpm=50).post(CHAT, json=asking(max_tokens=100))
    assert code(tokens) == (429, "rate_limit_exceeded")
    assert tokens.headers["x-should-retry"] == "false"  # alone it is over the limit


def spent(client, folder):
    from composer.spending import Spending

    spending = Spending(folder / "keys.db")
    try:
        return spending.spent(client.key.id)
    finally:
        spending.close()


def settled(client, folder, usd=None):
    """Wait until it is in the books, and nothing set aside: both are written a moment later."""

    def is_settled():
        found = spent(client, folder)
        is_right = found.usd > 0 if usd is None else found.usd == pytest.approx(usd)
        return is_right and not found.reserved

    until(is_settled, seconds=20)


def test_a_hundred_calls_at_once_never_exceed_a_budget_for_ten(url, door, folder):
    text = "one two three"
    read, written = (len(text) // 2 + 8, 3)  # what is reserved: half of the bytes, and the answer
    one = (read + written) * 1000 / 1e6
    client = door(usd=10 * one)

    async def all_at_once():
        headers = {"authorization": f"Bearer {client.token}"}
        limits = httpx.Limits(max_connections=100)
        async with httpx.AsyncClient(
            base_url=url, headers=headers, timeout=60, limits=limits, trust_env=False
        ) as many:
            body = asking("dear", text, max_tokens=written)
            calls = [many.post(CHAT, json=body) for _ in range(100)]
            return await asyncio.gather(*calls)

    found = asyncio.run(all_at_once())
    granted = [r for r in found if r.status_code == 200]
    refused = [r for r in found if r.status_code != 200]
    assert granted
    assert {code(r) for r in refused} == {(429, "insufficient_quota")}
    paid = sum(float(r.headers["x-composer-cost-usd"]) for r in granted)
    assert paid <= 10 * one
    settled(client, folder, paid)


def test_what_fails_costs_nothing_and_a_stream_is_charged(door, folder):
    client = door(usd=1.0)
    assert client.post(CHAT, json=asking("dead", max_tokens=5)).status_code == 503
    assert spent(client, folder).usd == 0
    with client.stream("POST", CHAT, json=asking("dear", max_tokens=5, stream=True)) as stream:
        assert "data: [DONE]" in stream.read().decode()
    settled(client, folder)


def test_a_client_that_hangs_up_is_charged_what_was_set_aside(door, folder):
    client = door(usd=1.0)
    with pytest.raises(httpx.ReadTimeout):
        client.post(CHAT, json=asking("slow", max_tokens=5), timeout=0.5)
    settled(client, folder)


def test_a_decision_is_told_to_whom_it_belongs_and_to_admins(door):
    client = door()
    answer = client.post(CHAT, json=asking("auto"))
    found = logged(client, answer)
    assert (found["model"], found["expert"], found["status"]) == ("auto", "cheap", 200)
    assert found["key_id"] == client.key.id
    assert found["cost"] == pytest.approx(float(answer.headers["x-composer-cost-usd"]))
    assert [step["expert"] for step in found["steps"]] == ["cheap"]
    path = f"/v1/decisions/{answer.headers['x-request-id']}"
    assert code(door().get(path)) == (404, "decision_not_found")
    assert door(is_admin=True).get(path).status_code == 200


def test_a_failure_is_logged_with_its_status_and_class(door):
    client = door()
    found = logged(client, client.post(CHAT, json=asking("dead")))
    # The second where its breaker is open: other tests ask it too.
    assert found["status"] == 503
    assert found["error"] in ("ExpertUnavailableError", "ExpertOverloadedError")


@pytest.mark.parametrize("stream", [False, True])
def test_the_calls_of_a_failed_request_are_logged_and_in_its_headers(door, stream):
    client = door()
    failed = client.post(CHAT, json=asking("doomed", CANARY, stream=stream))
    assert failed.status_code == 503
    assert failed.headers["x-composer-expert"] == "gone"
    assert failed.headers["x-composer-model"] == "doomed"
    assert failed.headers["x-composer-attempts"] == "2"
    assert failed.headers["x-composer-fallbacks"] == "2"
    assert failed.headers["x-composer-generation"] == "1"
    assert float(failed.headers["x-composer-overhead-ms"]) >= 0
    found = logged(client, failed)
    assert [step["expert"] for step in found["steps"]] == ["lost", "gone"]
    assert {step["error"] for step in found["steps"]} == {"ExpertUnavailableError"}
    assert (found["expert"], found["decision"]["experts"]) == ("gone", ["lost"])


def test_a_stream_that_breaks_is_logged_with_its_call(door):
    client = door()
    with client.stream("POST", CHAT, json=asking("cut", stream=True)) as stream:
        assert '"error"' in stream.read().decode()
    found = logged(client, stream)
    assert (found["status"], len(found["steps"])) == (503, 1)
    assert found["steps"][0]["error"] == "ExpertUnavailableError"


def test_an_error_before_any_decision_has_no_headers_of_one(door):
    refused = door().post(CHAT, json=asking("no-such"))
    assert not [name for name in refused.headers if name.startswith("x-composer")]


def test_of_several_answers_the_failed_one_is_logged_beside_the_others(door, folder):
    client = door()
    body = {"model": "small", "prompt": ["short", "long " * 50], "max_tokens": 3}
    failed = client.post("/v1/completions", json=body)
    assert failed.status_code == 400
    assert logged(client, failed)["error"] == "ContextLengthError"


def test_no_prompt_and_no_key_is_in_any_file_or_log(door, folder, caplog):
    client = door(usd=1.0)
    for model in ("cheap", "dead", "no-such"):
        response = client.post(CHAT, json=asking(model, CANARY, max_tokens=5))
        assert client.token not in response.text
        logged(client, response) if model != "no-such" else None
    for path in folder.iterdir():
        content = path.read_bytes()
        assert CANARY.encode() not in content
        assert client.token.encode() not in content
    assert CANARY not in caplog.text
    assert client.token not in caplog.text


def test_feedback_counts_among_the_requests_of_a_minute(door):
    client = door(rpm=2)
    answer = client.post(CHAT, json=asking()).json()["id"]
    grade = {"id": answer, "quality": 1}
    assert client.post("/v1/feedback", json=grade).status_code == 200
    assert code(client.post("/v1/feedback", json=grade)) == (429, "rate_limit_exceeded")


def test_unknown_paths_are_no_secret(url):
    """Which paths there are is documented: a client that asks a wrong one is told so."""
    with httpx.Client(base_url=url, trust_env=False) as client:
        assert code(client.get("/v2/nothing")) == (404, "unknown_url")
        assert code(client.put(CHAT)) == (405, "method_not_allowed")


def test_the_log_says_when(door):
    client = door()
    found = logged(client, client.post(CHAT, json=asking()))
    assert abs((datetime.now(UTC) - datetime.fromisoformat(found["time"])).total_seconds()) < 60
    assert json.dumps(found)


def test_tools_and_other_fields_count_for_what_is_set_aside(door):
    tool = {"type": "function", "function": {"name": "f", "description": "x" * 400_000}}
    client = door(usd=0.05)
    refused = client.post(CHAT, json=asking("dear", max_tokens=1, tools=[tool]))
    assert code(refused) == (429, "insufficient_quota")


def test_of_many_answers_the_unfinished_ones_are_charged_too(door, folder):
    client = door(usd=10.0)
    body = {"model": "slow", "prompt": ["a b"] * 4, "max_tokens": 5}
    with pytest.raises(httpx.ReadTimeout):
        client.post("/v1/completions", json=body, timeout=0.5)
    settled(client, folder, 4 * (1 + 8 + 5) * 1000 / 1e6)


def test_a_stream_that_breaks_is_charged_as_one_that_its_client_left(door, folder):
    client = door(usd=10.0)
    body = {"model": "torn", "prompt": "a b", "max_tokens": 5, "stream": True}
    with client.stream("POST", "/v1/completions", json=body) as stream:
        assert "[DONE]" not in stream.read().decode()
    settled(client, folder, (1 + 8 + 5) * 1000 / 1e6)


def test_one_request_asks_for_so_many_answers_and_no_more(door):
    refused = door().post("/v1/completions", json={"model": "cheap", "prompt": ["a"] * 65, "n": 2})
    assert code(refused) == (400, "invalid_value")


def test_requests_that_cost_nothing_count_in_their_minute(door):
    client = door(rpm=1)
    body = {"model": "words", "input": "x"}
    assert client.post("/v1/embeddings", json=body).status_code == 200
    assert code(client.post("/v1/embeddings", json=body)) == (429, "rate_limit_exceeded")
    assert code(client.post("/v1/route", json=asking())) == (429, "rate_limit_exceeded")


def test_what_is_no_name_of_the_file_is_not_kept_under_model(door, folder):
    client = door()
    refused = client.post(CHAT, json=asking(client.token))
    assert code(refused) == (404, "model_not_found")
    assert client.token not in refused.text
    found = logged(client, client.post(CHAT, json=asking(CANARY)))
    assert (found["model"], found["status"]) == ("(unknown)", 404)
    assert not any(CANARY.encode() in path.read_bytes() for path in folder.iterdir())


def test_two_keys_are_none(url, door):
    headers = [("authorization", f"Bearer {door().token}") for _ in range(2)]
    with httpx.Client(base_url=url, trust_env=False) as client:
        refused = client.post(CHAT, json=asking(), headers=headers)
    assert code(refused) == (401, "invalid_api_key")


def test_revoking_the_only_key_does_not_open_the_door(tmp_path):
    (tmp_path / "experts.yaml").write_text(FILE)
    store = KeyStore(tmp_path / "keys.db")
    store.revoke(store.create("only").key.id)
    store.close()
    with (
        running(create_app(tmp_path / "experts.yaml")) as url,
        httpx.Client(base_url=url, trust_env=False) as client,
    ):
        assert code(client.post(CHAT, json=asking())) == (401, "invalid_api_key")


def test_a_key_with_rates_is_told_what_they_leave(door):
    client = door(rpm=2, tpm=100_000)
    told = {f"x-ratelimit-limit-{what}": n for what, n in (("requests", "2"), ("tokens", "100000"))}
    for stream, left in ((False, "1"), (True, "0")):
        headers = client.post(CHAT, json=asking(max_tokens=9, stream=stream)).headers
        assert told.items() <= dict(headers).items()
        assert headers["x-ratelimit-remaining-requests"] == left
        assert 99_900 < int(headers["x-ratelimit-remaining-tokens"]) < 100_000
    refused = client.post(CHAT, json=asking())
    assert refused.status_code == 429
    assert refused.headers["x-ratelimit-remaining-requests"] == "0"


def test_a_key_is_told_of_no_rate_that_it_does_not_have(door):
    headers = door(rpm=5).post(CHAT, json=asking()).headers
    assert {name for name in headers if "ratelimit" in name} == {
        "x-ratelimit-limit-requests", "x-ratelimit-remaining-requests",
    }  # fmt: skip
    assert not [name for name in door(usd=1).get("/v1/models").headers if "ratelimit" in name]
