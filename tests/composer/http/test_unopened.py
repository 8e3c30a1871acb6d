"""Experts that cannot be opened: what clients, operators and the file's checks say of them."""

import logging

import httpx
import pytest

from composer import Composer
from composer.checks import check_registry
from composer.http.app import create_app
from experts_registry.errors import ModelSourceError
from experts_registry.registry import Registry
from tests.composer.http.servers import running, until

FILE = """\
version: 1
experts:
  - {name: bird, kind: llm, backend: echo, model: echo}
  - {name: nofile, kind: llm, backend: transformers, model: "path:nowhere"}
  - {name: nokey, kind: llm, backend: openai, model: m,
     options: {base_url: "http://127.0.0.1:9/v1", api_key_env: NO_SUCH_KEY}}
  - {name: wrong, kind: llm, backend: echo, model: echo, options: {dealy: 1}}
  - {name: nowords, kind: retriever, backend: sentence_transformers, model: "path:nowhere"}
compositions:
  - {name: both, experts: [nofile, bird], baseline: nofile}
"""


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "experts.yaml"
    path.write_text(FILE)
    (tmp_path / "private.txt").touch()
    return path


@pytest.fixture
def raw(path):
    with running(create_app(path)) as url, httpx.Client(base_url=url, trust_env=False) as raw:
        yield raw


def say(raw, model, **fields):
    body = {"model": model, "messages": [{"role": "user", "content": "hello"}], **fields}
    return raw.post("/v1/chat/completions", json=body, timeout=60)


def require_unopened(response, name, path):
    assert response.status_code == 503
    error = response.json()["error"]
    assert (error["code"], error["type"]) == ("expert_unavailable", "server_error")
    assert error["message"].startswith(f"expert {name!r}: cannot be opened")
    assert response.headers["x-should-retry"] == "false"
    assert int(response.headers["retry-after"]) >= 1
    for secret in (str(path.parent), "private.txt", "NO_SUCH_KEY", "dealy"):
        assert secret not in response.text


@pytest.mark.parametrize(
    ("name", "logged"),
    [("nofile", "private.txt"), ("nokey", "NO_SUCH_KEY"), ("wrong", "options.dealy")],
)
@pytest.mark.parametrize("stream", [False, True])
def test_only_the_log_says_why_an_expert_cannot_be_opened(raw, path, caplog, name, logged, stream):
    with caplog.at_level(logging.ERROR):
        require_unopened(say(raw, name, stream=stream), name, path)
    assert logged in caplog.text


def test_the_same_goes_for_a_retriever(raw, path):
    response = raw.post("/v1/embeddings", json={"model": "nowords", "input": "hi"}, timeout=60)
    require_unopened(response, "nowords", path)


def test_in_a_composition_another_one_answers(raw):
    assert say(raw, "both").json()["model"] == "bird"


def test_in_python_the_error_tells_it_all(path):
    with Composer.load(path) as composer, pytest.raises(ModelSourceError, match=r"private\.txt"):
        composer.query("hello", model="nofile")


def mistakes(path):
    return [f.text for f in check_registry(Registry.load(path)) if f.level == "error"]


def test_the_check_names_file_line_and_key(path):
    found = mistakes(path)
    assert [text.split(": ")[:3] for text in found] == [
        [f"{path}:4", "expert 'nofile'", "model"],
        [f"{path}:7", "expert 'wrong'", "options.dealy"],
        [f"{path}:8", "expert 'nowords'", "model"],
    ]


@pytest.mark.parametrize(
    ("options", "found"),
    [
        ("base_url: http://127.0.0.1:9/v1", []),
        ("base_url: http://169.254.169.254/v1", ["options.base_url"]),
        ("base_url: http://127.0.0.1:9/v1, dealy: 1", ["options.dealy"]),
    ],
)
def test_a_key_that_is_not_set_hides_no_other_mistake(path, options, found):
    expert = "{name: far, kind: llm, backend: openai, model: m, options: {KEY, api_key_env: UNSET}}"
    path.write_text(f"version: 1\nexperts:\n  - {expert.replace('KEY', options)}\n")
    assert [text.split(": ")[2] for text in mistakes(path)] == found


def test_an_edit_to_a_model_that_is_not_there_is_refused(raw, path):
    bad = FILE.replace(
        "backend: echo, model: echo}", "backend: transformers, model: 'path:gone'}", 1
    )
    path.write_text(bad)
    until(lambda: raw.get("/admin/registry").json()["last_reload"])
    told = raw.get("/admin/registry").json()
    assert (told["generation"], told["last_reload"]["ok"]) == (1, False)
    assert f"{path}:3: expert 'bird': model: " in told["last_reload"]["error"]
    assert "nofile" not in told["last_reload"]["error"]  # was wrong before


def test_an_old_mistake_on_another_line_blocks_no_edit(raw, path):
    path.write_text(FILE.replace("experts:\n", "\n\nexperts:\n", 1))
    until(lambda: raw.get("/admin/registry").json()["generation"] == 2)


def test_a_remote_expert_is_remote_before_it_was_asked(raw):
    tiers = {e["name"]: e["tier"] for e in raw.get("/admin/status").json()["experts"]}
    assert (tiers["nokey"], tiers["nofile"]) == ("remote", "disk")
