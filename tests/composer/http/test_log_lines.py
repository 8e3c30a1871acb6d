import json
import os
import re
import signal
import subprocess
import sys
from contextlib import closing, contextmanager

import httpx
import pytest

from composer.key_store import KeyStore
from tests.composer.http.collector import collecting
from tests.composer.http.conftest import REGISTRY

CHAT = "/v1/chat/completions"
CANARY = "canary-prompt-91c4"
HEADER = "x-client-request-id"


def asking(model, text="one two", **more):
    return {"model": model, "messages": [{"role": "user", "content": text}], **more}


@contextmanager
def serving(folder, upstream_url, *options, **environment):
    """Serve in a process of its own; on leaving, ``lines`` is what it logged."""
    path = folder / "experts.yaml"
    text = REGISTRY.replace("URL", upstream_url)
    path.write_text(text.replace('/v1"}', '/v1", api_key_env: FAR_KEY}'))
    command = "from composer.cli import main; main()"
    process = subprocess.Popen(
        [sys.executable, "-c", command, "serve", "-r", str(path), "--port", "0", *options],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env={**os.environ, "PYTHONUNBUFFERED": "1", "FAR_KEY": "none", **environment},
    )  # fmt: skip
    with process:
        try:
            url = process.stdout.readline().split()[1].removesuffix("/v1;")
            with httpx.Client(base_url=url, timeout=20, trust_env=False) as client:
                client.lines = []
                yield client
            process.send_signal(signal.SIGTERM)
            client.lines += process.communicate(timeout=30)[1].splitlines()
        finally:
            process.kill()


def test_json_lines_tell_of_each_request(tmp_path, upstream_url):
    with serving(tmp_path, upstream_url, "--log-format", "json") as client:
        answer = client.post(CHAT, json=asking("cheap"))
        client.get("/health")
        client.post(CHAT, json=asking("dead"))
        client.get("/no/such/path")
    lines = [json.loads(line) for line in client.lines]
    good, bad, lost = [line for line in lines if line["logger"] == "composer.access"]
    assert good.pop("ms") > 0
    assert good.pop("time").endswith("Z")
    assert good == {
        "level": "info",
        "logger": "composer.access",
        "request_id": answer.headers["x-request-id"],
        "method": "POST",
        "route": CHAT,
        "status": 200,
        "model": "cheap",
        "expert": "cheap",
        "calls": 1,
        "prompt_tokens": 2,
        "completion_tokens": 2,
        "usd": 6e-06,
    }
    assert (bad["status"], bad["error"], bad["expert"]) == (503, "ExpertUnavailableError", "dead")
    assert (lost["status"], lost["route"]) == (404, "(unknown)")
    [warning] = [line for line in lines if line["logger"] == "composer.http.connection"]
    assert "503" in warning["message"]


def test_lines_are_text_unless_told_otherwise(tmp_path, upstream_url):
    with serving(tmp_path, upstream_url) as client:
        answer = client.post(CHAT, json=asking("cheap"))
    [line] = client.lines
    for part in (answer.headers["x-request-id"], f"POST {CHAT} 200", "cheap -> cheap", "4 tokens"):
        assert part in line


@pytest.mark.parametrize("how", ["text", "json"])
def test_a_clients_own_name_of_its_request_is_told_and_logged(tmp_path, upstream_url, how):
    with closing(KeyStore(tmp_path / "elsewhere.db")) as store:
        token = store.create("x").token
    unfit = ["x" * 129, "caf\u00e9".encode("latin-1"), "a\tb", token, ""]
    with serving(tmp_path, upstream_url, "--log-format", how) as client:
        for path in (CHAT, "/no/such/path"):
            answer = client.post(path, json=asking("cheap"), headers={HEADER: "job 7"})
            assert answer.headers[HEADER] == "job 7"
        for name in unfit:
            assert HEADER not in client.get("/v1/models", headers={HEADER: name}).headers
        assert HEADER not in client.get("/v1/models").headers
    assert [("job 7" in line) for line in client.lines] == [True, True] + [False] * 6
    if how == "json":
        assert json.loads(client.lines[0])["client_request_id"] == "job 7"
    assert not any(token in line or "xxx" in line for line in client.lines)


def test_a_level_leaves_lines_out(tmp_path, upstream_url):
    with serving(tmp_path, upstream_url, "--log-level", "error") as client:
        client.post(CHAT, json=asking("dead"))
    assert client.lines == []


@pytest.mark.parametrize("how", ["text", "json"])
def test_no_prompt_and_no_key_is_logged_counted_traced_or_told(tmp_path, upstream_url, how):
    store = KeyStore(tmp_path / "keys.db")
    with closing(store):
        boss = store.create("boss", is_admin=True, usd=1.0)
    secret = "sk-canary-of-the-upstream"
    told = []
    with collecting() as collector:
        variables = {"OTEL_EXPORTER_OTLP_ENDPOINT": collector.url, "FAR_KEY": secret}
        with serving(tmp_path, upstream_url, "--log-format", how, **variables) as client:
            client.headers["authorization"] = f"Bearer {boss.token}"
            for model in ("cheap", "dead", "cut", "shaky", "far", "no-such", CANARY):
                for stream in (False, True):
                    answer = client.post(CHAT, json=asking(model, CANARY, stream=stream))
                    if answer.status_code != 200:
                        told.append(answer.text)
            leaked = client.post(CHAT, json=asking("far", f"leak {CANARY}"))
            assert leaked.status_code == 502
            told.append(leaked.text)
            told.append(client.post(CHAT, content=f'{{"model": "{CANARY}').text)
            told.append(client.get(f"/{CANARY}", headers={"authorization": CANARY}).text)
            told.append(client.post(CHAT, json=asking(boss.token)).text)
            told.append(client.get("/metrics").text)
        told += client.lines
    assert len(collector.spans) > 20
    kept = b"".join(p.read_bytes() for p in tmp_path.iterdir() if p.suffix != ".yaml")
    everything = "\n".join(told).encode() + collector.received + kept
    for canary in (boss.token, secret):
        assert canary.encode() not in everything
    # To the client that sent it, and to nobody else, an error may repeat a name or a path.
    quoted = [text for text in told if CANARY in text]
    assert len(quoted) == 3
    assert all(re.search("is not one of|is not served|HTTP 401", text) for text in quoted)
    assert CANARY.encode() not in collector.received + kept + "\n".join(client.lines).encode()
