import asyncio
import json
from contextlib import contextmanager
from types import SimpleNamespace

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from composer.handouts import Handout
from composer.http.app import create_app
from composer.http.finished import Finished
from composer.http.meters import Meters
from composer.key_store import KeyStore
from composer.trace import Ledger, Trail
from experts_registry.errors import ExpertTimeoutError
from experts_registry.registry import Registry
from experts_registry.types import Generation, Prompt
from routers.decision import Decision
from tests.composer.http.conftest import REGISTRY
from tests.composer.http.servers import running, until

CHAT = "/v1/chat/completions"


def asking(model, text="hello there you", **more):
    return {"model": model, "messages": [{"role": "user", "content": text}], **more}


def read(client):
    """Return the samples: {(name, sorted labels): value}."""
    response = client.get("/metrics")
    assert response.status_code == 200
    assert response.headers["content-type"].startswith("text/plain; version=0.0.4")
    return {
        (sample.name, *sorted(f"{k}={v}" for k, v in sample.labels.items() if v)): sample.value
        for family in text_string_to_metric_families(response.text)
        for sample in family.samples
    }


def value(found, name, *labels):
    """Add up the samples of a name that have at least these labels."""
    return sum(v for (n, *ls), v in found.items() if n == name and set(labels) <= set(ls))


@contextmanager
def door(folder, **options):
    path = folder / "experts.yaml"
    path.write_text(REGISTRY.replace("URL", "http://127.0.0.1:9"))
    with (
        running(create_app(path, **options)) as url,
        httpx.Client(base_url=url, timeout=20, trust_env=False) as client,
    ):
        yield client


def test_requests_are_counted_under_the_names_of_opentelemetry(tmp_path):
    with door(tmp_path) as client:
        assert client.post(CHAT, json=asking("cheap")).status_code == 200
        assert client.post(CHAT, json=asking("dead")).status_code == 503
        assert client.post("/v1/embeddings", json={"model": "words", "input": "a"}).is_success
        found = read(client)
    duration = "gen_ai_server_request_duration_seconds"
    good = (
        "gen_ai_request_model=cheap",
        "gen_ai_response_model=cheap",
        "gen_ai_operation_name=chat",
    )
    assert value(found, f"{duration}_count", *good, "gen_ai_provider_name=echo") == 1
    assert value(found, f"{duration}_bucket", *good, "le=81.92") == 1
    assert value(found, f"{duration}_count", "error_type=ExpertUnavailableError") == 1
    assert value(found, f"{duration}_count", "gen_ai_operation_name=embeddings") == 1
    tokens = "gen_ai_client_token_usage_sum"
    assert value(found, tokens, "gen_ai_token_type=input") == 3
    assert value(found, tokens, "gen_ai_token_type=output") == 3
    assert value(found, "expert_composer_cost_usd_total") == pytest.approx((3 * 1 + 3 * 2) / 1e6)
    assert value(found, "expert_composer_requests_total", f"route={CHAT}", "status=200") == 1


def test_a_stream_tells_the_time_to_its_first_token_and_per_token(tmp_path):
    with door(tmp_path) as client:
        client.post(CHAT, json=asking("cheap")).raise_for_status()
        assert value(read(client), "gen_ai_server_time_to_first_token_seconds_count") == 0
        client.post(CHAT, json=asking("cheap", stream=True)).raise_for_status()
        found = read(client)
    assert value(found, "gen_ai_server_time_to_first_token_seconds_count") == 1
    assert value(found, "gen_ai_server_time_per_output_token_seconds_count") == 1


def test_decisions_and_fallbacks_are_counted(tmp_path):
    with door(tmp_path) as client:
        client.post(CHAT, json=asking("shaky")).raise_for_status()
        client.post(CHAT, json=asking("cheap")).raise_for_status()
        found = read(client)
    routed = "expert_composer_routed_total"
    assert value(found, routed, "expert=dead", "reason=no_router") == 1
    assert value(found, routed, "expert=cheap", "reason=named") == 1
    failed = ("expert=dead", "error_type=ExpertUnavailableError")
    assert value(found, "expert_composer_fallbacks_total", *failed) == 1
    assert value(found, "expert_composer_decision_seconds_count") == 2


def test_the_same_expert_asked_again_is_a_retry(tmp_path):
    (tmp_path / "experts.yaml").write_text(REGISTRY)
    registry = Registry.load(tmp_path / "experts.yaml")
    trail, meters = Trail(), Meters()
    ledger = Ledger(registry)
    trail.note(0.0, Decision(("cheap",), (), "asked by name"), ledger)
    ledger.failed("cheap", 0.0, ExpertTimeoutError("x"))
    ledger.answered("cheap", 0.0, Handout(prompt=Prompt.of("x")), Generation(text="y"))
    visit = SimpleNamespace(
        model="cheap", answers=[], trails=[trail], error=None, registry=registry, steps=[]
    )
    meters.record(Finished("r", "POST", CHAT, 200, 0.0, 1.0, visit))
    get = meters.registry.get_sample_value
    assert get("expert_composer_retries_total", {"expert": "cheap"}) == 1


async def call(app, method, path, body):
    """Ask an app without a server, which would take most of the time; return status and body."""
    said, sent = [], [{"type": "http.request", "body": json.dumps(body).encode()}]

    async def receive():
        return sent.pop() if sent else await asyncio.Event().wait()

    async def send(message):
        said.append(message)

    scope = {"type": "http", "method": method, "path": path, "root_path": "", "query_string": b""}
    await app({**scope, "headers": [(b"host", b"x")]}, receive, send)
    return said[0]["status"], b"".join(message.get("body", b"") for message in said)


@pytest.mark.parametrize("many", [300, pytest.param(10_000, marks=pytest.mark.slow)])
def test_invented_names_add_no_series(tmp_path, many):
    (tmp_path / "experts.yaml").write_text(REGISTRY.replace("URL", "http://127.0.0.1:9"))
    app = create_app(tmp_path / "experts.yaml")

    async def series_after(count):
        for i in range(count):
            assert (await call(app, "POST", CHAT, asking(f"invented-{i}")))[0] == 404
        for i in range(count // 100 + 1):
            await call(app, "GET", f"/v1/models/invented-{i}", {})
            await call(app, "GET", f"/invented-{i}", {})
            await call(app, f"INVENTED{i}", CHAT, {})
        _, text = await call(app, "GET", "/metrics", {})
        assert b"invented" not in text.lower()
        return text.count(b"\n")

    async def all_at_once():
        await series_after(1)  # of which the metrics themselves are a request too
        return [await series_after(count) for count in (1, many)]

    before, after = asyncio.run(all_at_once())
    assert after == before


def test_counters_survive_an_edit_and_tell_of_it(tmp_path):
    good = REGISTRY.replace("dead", "late").replace("URL", "http://127.0.0.1:9")
    with door(tmp_path) as client:
        client.post(CHAT, json=asking("cheap")).raise_for_status()

        def reloads(result):
            return value(read(client), "expert_composer_reloads_total", f"result={result}")

        (tmp_path / "experts.yaml").write_text(good)
        until(lambda: reloads("ok") == 1)
        client.post(CHAT, json=asking("cheap")).raise_for_status()
        found = read(client)
        assert value(found, "gen_ai_server_request_duration_seconds_count") == 2
        assert value(found, "expert_composer_generation") == 2
        assert value(found, "expert_composer_last_reload_ok") == 1
        (tmp_path / "experts.yaml").write_text(good.replace("kind: llm", "kind: lm", 1))
        until(lambda: reloads("refused") == 1)
        assert value(read(client), "expert_composer_last_reload_ok") == 0


def test_two_apps_count_for_themselves(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    with door(tmp_path / "a") as one, door(tmp_path / "b") as other:
        one.post(CHAT, json=asking("cheap")).raise_for_status()
        assert value(read(one), "gen_ai_server_request_duration_seconds_count") == 1
        assert value(read(other), "gen_ai_server_request_duration_seconds_count") == 0


def test_from_the_first_key_on_metrics_are_for_admins(tmp_path):
    store = KeyStore(tmp_path / "keys.db")
    tokens = store.create("user").token, store.create("boss", is_admin=True).token
    store.close()
    with door(tmp_path) as client:
        assert client.get("/metrics").status_code == 401
        user, boss = ({"authorization": f"Bearer {token}"} for token in tokens)
        assert client.get("/metrics", headers=user).status_code == 403
        assert client.get("/metrics", headers=boss).status_code == 200


def test_a_limit_of_a_key_is_counted(tmp_path):
    store = KeyStore(tmp_path / "keys.db")
    boss = store.create("boss", is_admin=True, rpm=1)
    store.close()
    with door(tmp_path) as client:
        client.headers["authorization"] = f"Bearer {boss.token}"
        codes = [client.post(CHAT, json=asking("cheap")).status_code for _ in range(2)]
        assert codes == [200, 429]
        assert value(read(client), "expert_composer_limited_total", "limit=requests") == 1


def test_what_is_turned_away_at_the_door_is_counted(tmp_path):
    with door(tmp_path, most_at_once=0) as client:
        assert client.post(CHAT, json=asking("cheap")).status_code == 503
        assert value(read(client), "expert_composer_shed_total") == 1


def test_experts_are_told_with_their_breaker_and_load(tmp_path):
    with door(tmp_path) as client:
        for _ in range(6):
            client.post(CHAT, json=asking("dead"))
        found = read(client)
    breaker = "expert_composer_expert_breaker"
    assert value(found, breaker, "expert=dead", "state=open") == 1
    assert value(found, breaker, "expert=dead", "state=closed") == 0
    assert value(found, breaker, "expert=cheap", "state=closed") == 1
    assert value(found, "expert_composer_expert_tier", "expert=dead", "tier=host") == 1
    assert ("expert_composer_expert_waiting", "expert=cheap") in found
    assert value(found, "expert_composer_expert_in_flight") == 0


def test_the_decision_log_tells_what_waits_and_what_was_dropped(tmp_path):
    with door(tmp_path) as client:
        client.post(CHAT, json=asking("cheap")).raise_for_status()
        until(lambda: value(read(client), "expert_composer_decision_log_waiting") == 0)
        found = read(client)
    assert value(found, "expert_composer_decision_log_lag_seconds") == 0
    assert ("expert_composer_decision_log_dropped_total",) in found
