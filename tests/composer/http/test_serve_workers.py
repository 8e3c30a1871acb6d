"""``serve --workers`` as a user runs it: one server on a Ray cluster of its own."""

import os
import signal
import subprocess
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import httpx
import pytest

from tests.composer.http.processes import COMMAND, descendants, title, url_of
from tests.composer.http.servers import until

pytestmark = pytest.mark.ray

FILE = """\
version: 1
experts:
  - {name: bird, kind: llm, backend: echo, model: echo}
  - {name: sloth, kind: llm, backend: echo, model: echo, options: {delay: 1.5}}
  - {name: dead, kind: llm, backend: echo, model: echo, options: {fail: unavailable}}
  - {name: far, kind: llm, backend: openai, model: far-1,
     options: {base_url: "URL/v1"}, limits: {retries: 0}}
  - {name: words, kind: retriever, backend: hashing, model: hashing, options: {dimensions: 8}}
"""


class Server:
    """A running ``serve --workers`` and a client of it."""

    def __init__(self, path):
        self.path = path
        self.process = subprocess.Popen(
            [*COMMAND, "serve", "-r", str(path), "--port", "0", "--workers",
             "--log-level", "error"],
            stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
            env={**os.environ, "PYTHONUNBUFFERED": "1"},
        )  # fmt: skip
        self.url = url_of(self.process)
        self.client = httpx.Client(base_url=self.url, timeout=60, trust_env=False)

    def say(self, model, text="hello there", **fields):
        body = {"model": model, "messages": [{"role": "user", "content": text}], **fields}
        return self.client.post("/v1/chat/completions", json=body)

    def edit(self, text):
        """Write a file of the experts and wait until it serves; return its generation."""
        before = self.registry()["generation"]
        new = self.path.with_suffix(".new")
        new.write_text(text)
        new.replace(self.path)
        until(lambda: self.registry()["generation"] > before, seconds=60)

    def registry(self):
        return self.client.get("/admin/registry").json()

    def settled(self):
        """The workers of the experts of `FILE`, once those of others have ended."""
        until(lambda: len(self.workers()) == 4, seconds=60)
        return self.workers()

    def workers(self):
        """The processes that run experts on this server's cluster."""
        return {pid for pid in descendants(self.process.pid) if "_ExpertActor" in title(pid)}


@pytest.fixture(scope="module")
def file(upstream_url):
    return FILE.replace("URL", upstream_url)


@pytest.fixture(scope="module")
def server(file, tmp_path_factory):
    path = tmp_path_factory.mktemp("workers") / "experts.yaml"
    path.write_text(file)
    server = Server(path)
    with server.process, server.client:
        yield server
        server.process.kill()


def words(response):
    return response.json()["choices"][0]["message"]["content"]


def test_a_chat_is_answered_by_a_worker(server):
    answer = server.say("bird")
    assert (answer.status_code, words(answer)) == (200, "hello there")


def test_a_stream_comes_whole(server):
    lines = server.say("sloth", stream=True).text.split("\n\n")
    assert lines[-2:] == ["data: [DONE]", ""]
    assert any('"content":"hello' in line for line in lines)


def test_errors_of_experts_keep_their_shape(server):
    answer = server.say("dead")
    assert answer.status_code == 503
    assert answer.json()["error"]["code"] == "expert_unavailable"


@pytest.mark.parametrize("stream", [False, True])
def test_a_client_that_hangs_up_ends_the_call_of_the_worker(server, upstream, stream):
    body = {"model": "far", "messages": [{"role": "user", "content": "hang"}], "stream": stream}
    before = upstream.hung_up
    with pytest.raises(httpx.ReadTimeout):
        server.client.post("/v1/chat/completions", json=body, timeout=1)
    until(lambda: upstream.hung_up > before)


def test_an_edit_keeps_the_workers_of_experts_that_did_not_change(server, file):
    before = server.settled()
    server.edit(file + "  - {name: owl, kind: llm, backend: echo, model: echo}\n")
    assert words(server.say("owl")) == "hello there"
    assert server.workers() > before
    server.edit(file)
    until(lambda: server.workers() == before, seconds=30)


def test_edits_under_load_lose_nothing_and_a_removed_expert_finishes_its_calls(server, file):
    owl = "  - {name: owl, kind: llm, backend: echo, model: echo, options: {delay: 2}}\n"
    server.edit(file + owl)
    with ThreadPoolExecutor(8) as pool, load_on(server, pool) as codes:
        last = [pool.submit(server.say, "owl", stream=stream) for stream in (False, True)]
        time.sleep(0.5)  # they are on their way to the worker
        server.edit(file)
        assert server.say("owl").status_code == 404
        server.edit(file + owl.replace("owl", "hawk").replace("2}", "0}"))
        assert words(server.say("hawk")) == "hello there"
        answers = [one.result() for one in last]
    assert set(codes) == {200}
    assert [answer.status_code for answer in answers] == [200, 200]
    assert answers[1].text.endswith("data: [DONE]\n\n")
    server.edit(file)


@contextmanager
def load_on(server, pool):
    """Ask without end from two clients; their status codes are complete afterwards."""
    is_over, codes = threading.Event(), []

    def ask():
        while not is_over.is_set():
            codes.append(server.say("bird").status_code)

    asking = [pool.submit(ask) for _ in range(2)]
    try:
        yield codes
    finally:
        is_over.set()
        for one in asking:
            one.result()


@pytest.fixture
def victim(server, file):
    """The process of an expert ``hero`` that thinks for 1.5 s, and nobody else's."""
    others = server.settled()
    hero = "  - {name: hero, kind: llm, backend: echo, model: echo, options: {delay: 1.5}}\n"
    server.edit(file + hero)
    until(lambda: len(server.workers()) > len(others), seconds=60)
    server.say("hero")
    yield (server.workers() - others).pop()
    server.edit(file)
    until(lambda: server.workers() == others, seconds=30)


def test_a_killed_worker_costs_no_request_and_touches_only_its_own_calls(server, victim):
    others = server.workers() - {victim}
    with ThreadPoolExecutor(16) as pool, load_on(server, pool) as codes:
        asked = [pool.submit(server.say, "hero", f"say {i}") for i in range(6)]
        beside = pool.submit(server.say, "sloth")
        time.sleep(0.5)  # they are on their way to the worker
        assert not any(one.done() for one in asked)
        os.kill(victim, signal.SIGKILL)
        answers = [one.result() for one in asked]
        assert beside.result().status_code == 200
    assert [words(answer) for answer in answers] == [f"say {i}" for i in range(6)]
    assert set(codes) == {200}
    assert server.workers() > others
    assert victim not in server.workers()
    assert words(server.say("hero")) == "hello there"


def test_a_stream_begins_again_where_its_worker_is_killed_before_its_first_piece(server, victim):
    with ThreadPoolExecutor(1) as pool:
        asked = pool.submit(server.say, "hero", stream=True)
        time.sleep(0.5)
        os.kill(victim, signal.SIGKILL)
        answer = asked.result()
    assert answer.text.endswith("data: [DONE]\n\n")
    assert '"content":"hello' in answer.text


def test_a_stream_whose_worker_is_killed_in_its_middle_ends_with_a_typed_error(server, upstream):
    everybody = server.settled()
    body = {"model": "far", "messages": [{"role": "user", "content": "stall"}], "stream": True}
    with server.client.stream("POST", "/v1/chat/completions", json=body) as response:
        lines = response.iter_lines()
        assert any('"content":"one' in line for line in iter(lambda: next(lines), None))
        for pid in everybody:
            os.kill(pid, signal.SIGKILL)
        rest = "\n".join(lines)
    assert '"code":"expert_unavailable"' in rest
    assert "[DONE]" not in rest
    assert words(server.say("far", "hello")) == "one two"
    assert words(server.say("bird")) == "hello there"


def test_sigterm_finishes_what_is_asked_and_leaves_no_process_behind(server):
    family = descendants(server.process.pid)
    assert any("raylet" in title(pid) for pid in family)
    with ThreadPoolExecutor(1) as pool:
        asked = pool.submit(server.say, "sloth")
        time.sleep(0.5)
        server.process.send_signal(signal.SIGTERM)
        assert words(asked.result()) == "hello there"
    assert server.process.wait(timeout=60) == 0
    until(lambda: not any(title(pid) for pid in family), seconds=30)
