"""One sum for a request, wherever it is told: header, key, decision log, status and metrics."""

import time
from contextlib import suppress

import httpx
import pytest

from composer.decision_log import DecisionLog
from composer.http.app import create_app
from composer.key_store import KeyStore
from composer.spending import Spending
from tests.composer.http.servers import running

CHAT, TEXT, RESPONSES = "/v1/chat/completions", "/v1/completions", "/v1/responses"
FILE = """\
version: 1
experts:
  - {name: far, kind: llm, backend: openai, model: far-1, options: {base_url: "URL/v1"},
     price: {prompt: 1000, completion: 1000}}
  - {name: brief, kind: llm, backend: openai, model: far-1, options: {base_url: "URL/v1"},
     price: {prompt: 1000, completion: 1000}, limits: {seconds: 1}}
  - {name: dead, kind: llm, backend: echo, model: echo, limits: {retries: 0},
     options: {fail: unavailable}}
"""
ONE_CALL = 1000 / 1e6  # USD a token


@pytest.fixture(scope="module")
def folder(upstream_url, tmp_path_factory):
    folder = tmp_path_factory.mktemp("costs")
    (folder / "experts.yaml").write_text(FILE.replace("URL", upstream_url))
    return folder


@pytest.fixture(scope="module")
def client(folder):
    store = KeyStore(folder / "keys.db")
    new = store.create("all", usd=1e6, is_admin=True)
    store.close()
    headers = {"authorization": f"Bearer {new.token}"}
    with (
        running(create_app(folder / "experts.yaml")) as url,
        httpx.Client(base_url=url, headers=headers, timeout=30, trust_env=False) as client,
    ):
        client.key_id = new.key.id
        yield client


def body(path, text, model, **more):
    """Return what asks a text on a path."""
    asked = {
        CHAT: {"messages": [{"role": "user", "content": text}], "max_tokens": 5},
        TEXT: {"prompt": text, "max_tokens": 5},
        RESPONSES: {"input": text, "max_output_tokens": 16},
    }[path]
    return {"model": model, **asked, **more}


def spent(client, folder):
    spending = Spending(folder / "keys.db")
    try:
        return spending.spent(client.key_id)
    finally:
        spending.close()


def counted_usd(client, expert):
    """Return the USD of an expert, by the metrics."""
    lines = client.get("/metrics").text.splitlines()
    name = f'expert_composer_cost_usd_total{{expert="{expert}"}}'
    return sum(float(line.split()[-1]) for line in lines if line.startswith(name))


def status(client, expert):
    experts = client.get("/admin/status").json()["experts"]
    return next(one for one in experts if one["name"] == expert)


def latest(folder):
    """Return the last row of the decision log."""
    log = DecisionLog(folder / "decisions.db")
    try:
        return log.recent(1)[0]
    finally:
        log.close()


def eventually(found, expected):
    """Wait until something is so."""
    until = time.monotonic() + 20
    while (last := found()) != expected:
        assert time.monotonic() < until, (last, expected)
        time.sleep(0.1)


@pytest.fixture
def books(client, folder):
    """Give what a request adds to every book; asks the decision log last."""

    def sums(expert):
        return [spent(client, folder).usd, counted_usd(client, expert)]

    def added(expert, request):
        before = sums(expert)
        request_id = request()
        row = logged(client, request_id)
        expected = [pytest.approx(old + row["cost"]) for old in before]
        eventually(lambda: sums(expert), expected)
        return row

    return added


def logged(client, request_id):
    until = time.monotonic() + 20
    while (found := client.get(f"/v1/decisions/{request_id}")).status_code != 200:
        assert time.monotonic() < until, found.text
        time.sleep(0.05)
    return found.json()


@pytest.mark.parametrize("text", ["uncounted", "negative"])
@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("path", [CHAT, TEXT, RESPONSES])
def test_what_a_server_does_not_count_is_estimated_in_every_book(client, books, path, stream, text):
    answers = []

    def asked():
        answers.append(client.post(path, json=body(path, text, "far", stream=stream)))
        return answers[0].headers["x-request-id"]

    row = books("far", asked)
    (step,) = row["steps"]
    # Nine or eight characters are asked, and "one two" is answered, at four to a token.
    assert (step["usage"]["prompt_tokens"], step["usage"]["completion_tokens"]) in [(3, 2), (2, 2)]
    assert step["is_estimated"]
    assert row["cost"] == pytest.approx((row["prompt_tokens"] + 2) * ONE_CALL)
    if not stream:
        usage = answers[0].json()["usage"]
        assert usage["total_tokens"] == row["prompt_tokens"] + 2
        assert float(answers[0].headers["x-composer-cost-usd"]) == pytest.approx(row["cost"])


def test_what_a_server_counts_is_not_estimated(client, books):
    row = books(
        "far", lambda: client.post(CHAT, json=body(CHAT, "x", "far")).headers["x-request-id"]
    )
    assert row["cost"] == pytest.approx(7 * ONE_CALL)
    assert not row["steps"][0]["is_estimated"]


@pytest.mark.parametrize(("text", "status"), [("cut", 503), ("stall", 504)])
@pytest.mark.parametrize("path", [CHAT, TEXT, RESPONSES])
def test_a_stream_that_breaks_costs_what_was_set_aside_in_every_book(
    client, books, path, text, status
):
    def asked():
        answer = client.post(path, json=body(path, text, "brief", stream=True))
        assert "[DONE]" not in answer.text
        return answer.headers["x-request-id"]

    row = books("brief", asked)
    written = 16 if path == RESPONSES else 5
    assert row["cost"] == pytest.approx((len(text) // 2 + 8 + written) * ONE_CALL)
    assert (row["expert"], row["status"]) == ("brief", status)
    assert row["steps"][0]["is_estimated"]


def test_of_several_prompts_one_row_sums_up_what_broke_and_what_was_answered(client, books):
    def asked():
        asked = body(TEXT, ["stall", "x", "stall"], "brief", stream=True)
        return client.post(TEXT, json=asked).headers["x-request-id"]

    row = books("brief", asked)
    assert len(row["steps"]) == 3
    assert row["cost"] == pytest.approx(sum(step["cost"] for step in row["steps"]))
    assert row["cost"] == pytest.approx((2 * (5 // 2 + 8 + 5) + 7) * ONE_CALL)


def test_the_answers_to_several_prompts_are_one_row(client, books):
    def asked():
        answer = client.post(TEXT, json=body(TEXT, ["a", "b", "c"], "far"))
        assert answer.headers["x-composer-attempts"] == "3"
        return answer.headers["x-request-id"]

    row = books("far", asked)
    assert [step["expert"] for step in row["steps"]] == ["far"] * 3
    assert row["cost"] == pytest.approx(3 * 7 * ONE_CALL)
    assert (row["status"], row["expert"]) == (200, "far")


@pytest.mark.parametrize("stream", [False, True])
def test_an_answer_that_its_client_stopped_is_in_every_book_and_no_failure(
    client, books, folder, stream
):
    logged(client, client.post(CHAT, json=body(CHAT, "x", "far")).headers["x-request-id"])
    time.sleep(2.1)  # a status is given again for so long
    before, last = status(client, "far"), latest(folder).request_id

    def asked():
        text = "stall" if stream else "hang"
        asked = body(CHAT, text, "far", stream=stream)
        with (
            suppress(httpx.ReadTimeout),
            client.stream("POST", CHAT, json=asked, timeout=2) as answer,
        ):
            next(answer.iter_raw())
        eventually(lambda: latest(folder).request_id != last, True)
        return latest(folder).request_id

    row = books("far", asked)
    text = 5 if stream else 4
    assert row["cost"] == pytest.approx((text // 2 + 8 + 5) * ONE_CALL)
    assert (row["expert"], row["status"]) == ("far", 499)
    usd = pytest.approx(before["usd"] + row["cost"])
    eventually(lambda: status(client, "far")["usd"], usd)
    assert status(client, "far")["errors"] == before["errors"]


def test_a_call_that_was_not_made_is_not_counted(client):
    def failed():
        return client.post(CHAT, json=body(CHAT, "x", "dead"))

    until = time.monotonic() + 20
    while "failed too often" not in (refused := failed()).json()["error"]["message"]:
        assert refused.headers["x-composer-attempts"] == "1"
        assert time.monotonic() < until
    assert refused.headers["x-composer-attempts"] == refused.headers["x-composer-fallbacks"] == "0"
    row = logged(client, refused.headers["x-request-id"])
    assert (row["steps"], row["expert"]) == ([], refused.headers["x-composer-expert"])
