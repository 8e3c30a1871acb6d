"""``deploy`` as a user runs it: two ingress replicas behind HAProxy, on a cluster of its own."""

import os
import signal
import subprocess
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import httpx
import openai
import pytest

from composer.key_store import KeyStore
from tests.composer.http.processes import COMMAND, descendants, listeners, title, url_of
from tests.composer.http.servers import until

pytestmark = pytest.mark.ray

FILE = """\
version: 1
experts:
  - {name: bird, kind: llm, backend: echo, model: echo}
  - {name: sloth, kind: llm, backend: echo, model: echo, options: {delay: 3}}
  - {name: dear, kind: llm, backend: echo, model: echo, options: {delay: 0.2},
     price: {prompt: 0, completion: 1000}}
  - {name: far, kind: llm, backend: openai, model: far-1,
     options: {base_url: "URL/v1"}, limits: {retries: 0}}
"""
CHAT = "/v1/chat/completions"
LOOPBACK = "0100007F"


class Door:
    """A running ``deploy`` and a client of it, with an admin's key."""

    def __init__(self, path, port, token):
        self.path = path
        self.process = subprocess.Popen(
            [*COMMAND, "deploy", str(path), "--port", str(port), "--replicas", "2"],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            env={**os.environ, "PYTHONUNBUFFERED": "1"},
        )  # fmt: skip
        self.url, self.token = url_of(self.process), token
        headers = {"authorization": f"Bearer {token}"}
        limits = httpx.Limits(max_keepalive_connections=0)  # HAProxy deals out connections
        self.client = httpx.Client(
            base_url=self.url, headers=headers, timeout=60, trust_env=False, limits=limits
        )

    def say(self, model, text="hello there", token=None, **fields):
        body = {"model": model, "messages": [{"role": "user", "content": text}], **fields}
        headers = {"authorization": f"Bearer {token or self.token}"}
        return self.client.post(CHAT, json=body, headers=headers)

    def replicas(self, asks=16):
        """The generation that each replica serves."""
        answers = [self.client.get("/admin/registry") for _ in range(asks)]
        return {a.headers["x-composer-replica"]: a.json()["generation"] for a in answers}

    def pids(self, what="ServeReplica"):
        return {pid for pid in descendants(self.process.pid) if what in title(pid)}


@pytest.fixture(scope="module")
def file(upstream_url):
    return FILE.replace("URL", upstream_url)


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    store = KeyStore(tmp_path_factory.mktemp("deploy") / "keys.db")
    yield store
    store.close()


@pytest.fixture(scope="module")
def door(file, store, free_port):
    path = Path(store.where).parent / "experts.yaml"
    path.write_text(file)
    door = Door(path, free_port(), store.create("admin", is_admin=True).token)
    with door.process, door.client:
        yield door
        for pid in (*descendants(door.process.pid), door.process.pid):  # where a test failed
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


def test_an_openai_client_is_answered_whole_and_as_a_stream(door):
    http = openai.DefaultHttpxClient(trust_env=False)
    messages = [{"role": "user", "content": "hello there"}]
    with openai.OpenAI(base_url=f"{door.url}/v1", api_key=door.token, http_client=http) as client:
        whole = client.chat.completions.create(model="bird", messages=messages)
        chunks = list(client.chat.completions.create(model="far", messages=messages, stream=True))
    assert whole.choices[0].message.content == "hello there"
    texts = [chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices]
    assert "".join(texts) == "one two"


def test_every_answer_says_which_replica_gave_it(door):
    replicas = Counter(door.say("bird").headers["x-composer-replica"] for _ in range(20))
    assert len(replicas) == 2
    assert "x-composer-replica" in door.client.get("/nowhere").headers


def test_an_answer_has_one_request_id_and_any_replica_tells_its_story(door):
    answer = door.say("bird")
    sent = door.client.get("/health", headers={"x-request-id": "mine"})
    assert [len(each.headers.get_list("x-request-id")) for each in (answer, sent)] == [1, 1]
    assert sent.headers["x-request-id"] != "mine"
    path = f"/v1/decisions/{answer.headers['x-request-id']}"
    until(lambda: door.client.get(path).is_success)
    told = [door.client.get(path) for _ in range(8)]
    assert {each.json()["model"] for each in told} == {"bird"}
    assert len({each.headers["x-composer-replica"] for each in told}) == 2


def test_every_replica_follows_an_edit_of_the_file(door, file):
    before = door.replicas()
    door.path.write_text(file + "  - {name: owl, kind: llm, backend: echo, model: echo}\n")
    until(lambda: min(door.replicas().values()) > max(before.values()), seconds=30)
    assert {door.say("owl").status_code for _ in range(8)} == {200}
    assert door.replicas().keys() == before.keys()


@pytest.mark.parametrize("stream", [False, True])
def test_a_client_that_hangs_up_ends_its_upstream_call(door, upstream, stream):
    body = {"model": "far", "messages": [{"role": "user", "content": "hang"}], "stream": stream}
    before = upstream.hung_up
    headers = dict(door.client.headers)
    with pytest.raises(httpx.ReadTimeout):  # not from the pool, which may keep the connection
        httpx.post(f"{door.url}{CHAT}", json=body, headers=headers, timeout=1, trust_env=False)
    until(lambda: upstream.hung_up > before)


def test_a_budget_for_ten_calls_holds_over_all_replicas(door, store):
    token = store.create("poor", usd=0.01).token  # a call costs 0.001
    with ThreadPoolExecutor(32) as pool:
        asked = [pool.submit(door.say, "dear", "x", token, max_tokens=1) for _ in range(100)]
        answers = [one.result() for one in asked]
    statuses = Counter(answer.status_code for answer in answers)
    assert statuses.keys() == {200, 429}
    assert statuses[200] <= 10
    assert len({answer.headers["x-composer-replica"] for answer in answers}) == 2


def test_nothing_of_ours_listens_beyond_loopback(door):
    assert [listeners(pid) for pid in door.pids("haproxy -db")] == [{LOOPBACK}]
    assert [listeners(pid) for pid in door.pids()] == [{LOOPBACK}] * 2


def test_a_killed_replica_costs_only_its_own_calls_and_is_replaced(door):
    before, names = door.pids(), door.replicas().keys()

    def ask(_):
        try:
            return door.say("sloth")
        except httpx.RemoteProtocolError:  # HAProxy leaves it to the client to try again
            return None

    with ThreadPoolExecutor(12) as pool:
        asked = [pool.submit(ask, i) for i in range(12)]
        time.sleep(1)  # they are on their way
        os.kill(min(before), signal.SIGKILL)
        answers = [one.result() for one in asked]
    good = [a for a in answers if a is not None and a.status_code == 200]
    told = [a.json()["error"]["code"] for a in answers if a is not None and a.status_code != 200]
    assert 4 <= len(good) < 12
    assert set(told) <= {"server_unavailable"}
    assert {door.say("bird").status_code for _ in range(10)} == {200}
    until(lambda: len(door.replicas().keys() - names) == 1, seconds=60)


def test_sigterm_finishes_streams_and_leaves_no_process_behind(door):
    family = descendants(door.process.pid)
    with ThreadPoolExecutor(1) as pool:
        asked = pool.submit(door.say, "sloth", stream=True)
        time.sleep(0.5)
        door.process.send_signal(signal.SIGTERM)
        until(lambda: door.say("bird").status_code == 503)
        assert not asked.done()
        assert asked.result().text.endswith("data: [DONE]\n\n")
    assert door.process.wait(timeout=60) == 0
    until(lambda: not any(title(pid) for pid in family), seconds=30)
    assert door.process.stderr.read() == ""
