import logging
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest

from composer import Composer
from composer.http.app import create_app
from tests.composer.http.servers import running, until

FIRST = """\
version: 1
experts:
  - {name: bird, kind: llm, backend: echo, model: echo, options: {reply: one}}
  - {name: sloth, kind: llm, backend: echo, model: echo, options: {reply: at last, delay: 0.7}}
"""


def write(path, text):
    """Edit as editors should: beside the file, then renamed."""
    new = path.with_suffix(".new")
    new.write_text(text)
    new.replace(path)


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "experts.yaml"
    path.write_text(FIRST)
    return path


@pytest.fixture
def closed(monkeypatch):
    """The generations whose composers were closed."""
    closed, aclose = [], Composer.aclose

    async def noted(self):
        await aclose(self)
        closed.append(self.registry.generation)

    monkeypatch.setattr(Composer, "aclose", noted)
    return closed


@pytest.fixture
def raw(path, closed):
    with running(create_app(path)) as url, httpx.Client(base_url=url, trust_env=False) as raw:
        yield raw


def say(raw, model="bird", **fields):
    messages = [{"role": "user", "content": "hello"}]
    body = {"model": model, "messages": messages, **fields}
    return raw.post("/v1/chat/completions", json=body, timeout=20)


def words(response):
    return response.json()["choices"][0]["message"]["content"]


def generation(raw):
    return raw.get("/admin/registry").json()["generation"]


def test_a_good_edit_serves_the_next_request_and_closes_the_old_edition(raw, path, closed):
    assert words(say(raw)) == "one"
    write(path, FIRST.replace("reply: one", "reply: two").replace("sloth", "snail"))
    until(lambda: generation(raw) == 2)
    response = say(raw)
    assert (words(response), response.headers["x-composer-generation"]) == ("two", "2")
    assert say(raw, "sloth").status_code == 404
    assert raw.get("/v1/models/snail").is_success
    assert raw.get("/admin/registry").json()["last_reload"]["ok"] is True
    until(lambda: closed == [1])


@pytest.mark.parametrize("stream", [False, True])
def test_a_request_in_flight_keeps_the_edition_it_began_with(raw, path, closed, stream):
    with ThreadPoolExecutor(1) as pool:
        slow = pool.submit(say, raw, "sloth", stream=stream)
        until(lambda: not slow.done())
        write(path, FIRST.split("  - {name: sloth")[0])
        until(lambda: generation(raw) == 2)
        assert not slow.done()
        assert closed == []
        response = slow.result(timeout=20)
    assert response.headers["x-composer-generation"] == "1"
    assert "last" in response.text
    until(lambda: closed == [1])


def test_a_bad_edit_leaves_the_last_good_one_serving_and_is_reported(raw, path, caplog):
    with caplog.at_level(logging.INFO, logger="composer.http"):
        write(path, FIRST.replace("kind: llm", "kind: lm", 1))
        until(lambda: raw.get("/admin/registry").json()["last_reload"])
    told = raw.get("/admin/registry").json()
    assert (told["generation"], told["last_reload"]["ok"]) == (1, False)
    assert "experts.yaml:3: experts.0.kind: " in told["last_reload"]["error"]
    assert "experts.yaml:3: experts.0.kind: " in caplog.text
    assert words(say(raw)) == "one"
    write(path, FIRST.replace("reply: one", "reply: two"))
    until(lambda: generation(raw) == 2)
    assert words(say(raw)) == "two"


def test_an_edit_that_only_building_shows_wrong_is_refused(raw, path):
    write(path, FIRST.replace("reply: one", "replay: one"))
    until(lambda: raw.get("/admin/registry").json()["last_reload"])
    told = raw.get("/admin/registry").json()
    assert told["generation"] == 1
    assert "options.replay" in told["last_reload"]["error"]
    assert words(say(raw)) == "one"


BROKEN = """\
compositions:
  - {name: auto, experts: [bird, sloth], router: routers/auto}
  - {name: other, experts: [bird, sloth], router: routers/other}
"""


def test_what_was_broken_at_the_start_does_not_block_the_edit_that_mends_a_part(path):
    for name in ("auto", "other"):
        folder = path.parent / "routers" / name
        folder.mkdir(parents=True)
        (folder / "router.json").write_text("{")
    first = f"{FIRST}  - {{name: hash, kind: retriever, backend: hashing, model: hashing}}\n"
    write(path, first + BROKEN)
    with running(create_app(path)) as url, httpx.Client(base_url=url, trust_env=False) as raw:
        assert say(raw, "auto").status_code >= 400
        mended = BROKEN.replace(", router: routers/auto", "")
        write(path, first + mended)
        until(lambda: generation(raw) == 2)
        assert words(say(raw, "auto")) == "one"
        write(path, first + mended.replace("routers/other", "routers/auto"))  # newly wrong
        until(lambda: not raw.get("/admin/registry").json()["last_reload"]["ok"])
        assert generation(raw) == 2


def test_feedback_reaches_an_answer_of_an_older_edition(raw, path):
    answer = say(raw).json()["id"]
    write(path, FIRST.replace("reply: one", "reply: two"))
    until(lambda: generation(raw) == 2)
    assert raw.post("/v1/feedback", json={"id": answer, "quality": 1}).status_code == 200


def test_no_request_is_lost_while_the_file_is_edited(raw, path):
    with ThreadPoolExecutor(4) as pool:
        edits = [FIRST.replace("reply: one", f"reply: {word}") for word in ("two", "six", "ten")]
        asked = []
        for number, text in enumerate(edits):
            asked += [pool.submit(say, raw) for _ in range(40)]
            write(path, text)
            until(lambda number=number: generation(raw) == number + 2)
        asked += [pool.submit(say, raw) for _ in range(40)]
        answers = [one.result() for one in asked]
    assert {answer.status_code for answer in answers} == {200}
    assert {words(answer) for answer in answers} <= {"one", "two", "six", "ten"}
    assert words(answers[-1]) == "ten"


def test_a_system_without_watches_serves_on_and_says_so(path, monkeypatch):
    async def awatch(*paths, **options):
        raise OSError("no space left for watches")
        yield

    monkeypatch.setattr("experts_registry.watch.awatch", awatch)
    with running(create_app(path)) as url, httpx.Client(base_url=url, trust_env=False) as raw:
        until(lambda: raw.get("/admin/registry").json()["last_reload"])
        told = raw.get("/admin/registry").json()["last_reload"]
        assert "no longer followed: no space left for watches" in told["error"]
        assert words(say(raw)) == "one"


def test_a_composer_is_served_as_it_is_and_closed_at_the_end(path, closed):
    composer = Composer.load(path)
    with running(create_app(composer)) as url:
        assert httpx.get(f"{url}/health/ready", trust_env=False).is_success
    assert closed == [1]


def test_a_registry_without_experts_is_not_ready(tmp_path):
    (tmp_path / "experts.yaml").write_text("version: 1\n")
    with running(create_app(tmp_path / "experts.yaml")) as url:
        assert httpx.get(f"{url}/health", trust_env=False).status_code == 200
        assert httpx.get(f"{url}/health/ready", trust_env=False).status_code == 503
