import json
import os
import re
import signal
import socket
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import httpx
import openai
import pytest

from composer.decision_log import DecisionLog
from tests.composer.http.servers import until

REGISTRY = """\
version: 1
experts:
  - {name: bird, kind: llm, backend: echo, model: echo}
  - {name: far, kind: llm, backend: openai, model: far-1, options: {base_url: "URL/v1"}}
"""
COMMAND = [sys.executable, "-c", "from composer.cli import main; main()"]


@pytest.fixture
def path(tmp_path, upstream_url):
    (tmp_path / "experts.yaml").write_text(REGISTRY.replace("URL", upstream_url))
    return tmp_path / "experts.yaml"


@contextmanager
def serving(path, *options):
    process = subprocess.Popen(
        [*COMMAND, "serve", "-r", str(path), "--port", "0", *options],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
    )  # fmt: skip
    with process:
        try:
            yield process
        finally:
            process.kill()


def address(process):
    found = re.search(r"http://[^/]+", line := process.stdout.readline())
    assert found, line + process.stderr.read()
    return found.group()


def refused(*arguments):
    done = subprocess.run(
        [*COMMAND, "serve", *arguments], capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 1
    return done.stderr


def test_the_printed_address_answers_an_openai_client(path):
    with serving(path) as process:
        url = address(process)
        http = openai.DefaultHttpxClient(trust_env=False)
        with openai.OpenAI(base_url=f"{url}/v1", api_key="any", http_client=http) as client:
            messages = [{"role": "user", "content": "hello"}]
            done = client.chat.completions.create(model="auto", messages=messages)
        assert done.choices[0].message.content == "hello"
        assert process.stdout.readline().startswith(f"  curl {url}/v1/chat/completions")


def is_listening(url):
    try:
        return httpx.get(f"{url}/health", trust_env=False).is_success
    except httpx.TransportError:  # also one that was accepted while the server closed
        return False


@pytest.mark.parametrize("stream", [False, True])
def test_sigterm_lets_a_request_in_flight_finish_and_exits_with_0(path, upstream, stream):
    upstream.is_released = False
    messages = [{"role": "user", "content": "wait"}]
    body = {"model": "far", "messages": messages, "stream": stream}
    with serving(path) as process, ThreadPoolExecutor(1) as pool:
        url = address(process)
        asked = pool.submit(
            httpx.post, f"{url}/v1/chat/completions", json=body, trust_env=False, timeout=30
        )
        until(lambda: upstream.waiting)
        process.send_signal(signal.SIGTERM)
        until(lambda: not is_listening(url))
        assert not asked.done()
        upstream.is_released = True
        response = asked.result(timeout=20)
        assert process.wait(timeout=20) == 0
        [line] = process.stderr.read().splitlines()  # that of the access log
        assert "POST /v1/chat/completions 200" in line
    assert response.status_code == 200
    assert response.text.endswith("data: [DONE]\n\n") == stream


STREAM = {"model": "far", "messages": [{"role": "user", "content": "stall"}], "stream": True}


@contextmanager
def streaming(url, upstream):
    """A stream that stalls after its first words."""
    hung_up = upstream.hung_up
    with httpx.stream(
        "POST", f"{url}/v1/chat/completions", json=STREAM, trust_env=False, timeout=60
    ) as response:
        events = response.iter_lines()
        assert next(events).startswith("data: ")
        yield events
    until(lambda: upstream.hung_up > hung_up)


@pytest.mark.parametrize("signals", [1, 2])
def test_a_stream_that_outlasts_the_drain_is_told_and_its_upstream_left(path, upstream, signals):
    """At a second signal, or as here after no time at all."""
    drain = ["--drain", "0.2"] if signals == 1 else []
    with serving(path, *drain) as process:
        url = address(process)
        with streaming(url, upstream) as events:
            process.send_signal(signal.SIGTERM)
            until(lambda: not is_listening(url))
            if signals == 2:
                process.send_signal(signal.SIGTERM)
            told = [line for line in events if line]
        assert json.loads(told[-1].removeprefix("data: "))["error"]["code"] == "overloaded"
        assert process.wait(timeout=20) == 0
        assert "Traceback" not in process.stderr.read()
    log = DecisionLog(path.parent / "decisions.db")
    assert log.recent(1)[0].status == 499  # and its row was still written
    log.close()


def test_a_connection_that_waits_is_closed_at_once_when_the_server_drains(path, upstream):
    with serving(path) as process:
        url = address(process)
        with httpx.Client(base_url=url, trust_env=False) as client, streaming(url, upstream):
            assert client.get("/health/ready").status_code == 200
            process.send_signal(signal.SIGTERM)
            until(lambda: not is_listening(url))
            with pytest.raises(httpx.TransportError):  # which a probe takes for not ready
                client.get("/health/ready")
            process.send_signal(signal.SIGTERM)
            assert process.wait(timeout=20) == 0


def test_a_client_that_dribbles_does_not_hold_up_the_end(path):
    with serving(path) as process:
        host, port = address(process).removeprefix("http://").split(":")
        with socket.create_connection((host, int(port))) as client:
            client.sendall(b"POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\n")
            process.send_signal(signal.SIGTERM)
            assert process.wait(timeout=20) == 0


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "example.org"])
def test_an_address_that_others_can_reach_is_refused(path, host):
    said = refused("-r", str(path), "--host", host)
    assert f"--host: {host!r} could be reached from other machines" in said


def test_a_port_in_use_is_named(path):
    with serving(path) as process:
        port = address(process).rpartition(":")[2]
        assert f"--port: cannot listen on 127.0.0.1:{port}" in refused(
            "-r", str(path), "--port", port
        )


def test_a_wrong_file_is_told_with_its_line(path):
    path.write_text(REGISTRY.replace("llm", "lm", 1))
    assert "experts.yaml:3: experts.0.kind: " in refused("-r", str(path), "--port", "0")


def test_a_missing_extra_is_named(path, tmp_path):
    (tmp_path / "uvicorn.py").write_text("raise ModuleNotFoundError(name='uvicorn')\n")
    done = subprocess.run(
        [*COMMAND, "serve", "-r", str(path)], capture_output=True, text=True, check=False,
        env={**os.environ, "PYTHONPATH": f"{tmp_path}:{os.environ.get('PYTHONPATH', '')}"},
    )  # fmt: skip
    assert "uvicorn is missing; run: pip install 'expert-composer[serve]'" in done.stderr


def test_the_command_line_loads_no_server_until_it_serves():
    code = "import sys, composer.cli.main; print(*sorted(sys.modules))"
    loaded = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert not {"starlette", "uvicorn", "httpx"} & set(loaded.stdout.split())
