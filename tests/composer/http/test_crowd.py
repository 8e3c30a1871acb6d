from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest

from composer.http.app import create_app
from tests.composer.http.servers import running, until

FILE = """\
version: 1
experts:
  - {name: far, kind: llm, backend: openai, model: m, limits: {concurrency: 1, queue: 1},
     options: {base_url: "URL/v1"}}
  - {name: quick, kind: llm, backend: echo, model: echo}
"""


@pytest.fixture
def path(tmp_path, upstream_url):
    path = tmp_path / "experts.yaml"
    path.write_text(FILE.replace("URL", upstream_url))
    return path


def ask(client, model="far", text="wait"):
    body = {"model": model, "messages": [{"role": "user", "content": text}]}
    return client.post("/v1/chat/completions", json=body)


def test_more_requests_than_there_is_room_for_are_turned_away_at_once(path, upstream):
    app = create_app(path, most_at_once=2)
    upstream.is_released = False
    with (
        running(app) as url,
        httpx.Client(base_url=url, timeout=20, trust_env=False) as client,
        ThreadPoolExecutor(2) as pool,
    ):
        first = [pool.submit(ask, client) for _ in range(2)]
        until(lambda: upstream.waiting == 1)
        until(lambda: ask(client, "quick").status_code == 503)
        refused = ask(client, "quick")
        assert client.get("/health").status_code == 200
        upstream.is_released = True
        assert [future.result().status_code for future in first] == [200, 200]
        assert ask(client, "quick").status_code == 200
    assert refused.json()["error"]["code"] == "overloaded"
    assert refused.headers["x-should-retry"] == "true"
    assert int(refused.headers["retry-after"]) >= 1


def test_an_experts_queue_is_bounded(path, upstream):
    upstream.is_released = False
    with (
        running(create_app(path)) as url,
        httpx.Client(base_url=url, timeout=20, trust_env=False) as client,
        ThreadPoolExecutor(6) as pool,
    ):
        answers = [pool.submit(ask, client) for _ in range(6)]
        until(lambda: sum(answer.done() for answer in answers) == 4, seconds=15)
        upstream.is_released = True
        done = [answer.result() for answer in answers]
    assert sorted(answer.status_code for answer in done) == [200, 200, 503, 503, 503, 503]
    refused = next(answer for answer in done if answer.status_code == 503)
    assert refused.json()["error"]["code"] == "overloaded"
    assert int(refused.headers["retry-after"]) >= 1
