import json
import socket
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest

from composer.http.app import create_app
from tests.composer.http.faulty import BEFORE, MIDDLE, Faulty, serving
from tests.composer.http.servers import running

KEY = "sk-canary-of-the-upstream-1234567890"
DEADLINE = 4.0  # seconds of every composition
SLACK = 4.0  # a busy machine's
PARALLEL = 6
# Without an alternative: the status, and the code.
ALONE = {
    "refuse": (503, "expert_unavailable"),
    "reset": (503, "expert_unavailable"),
    "hang": (504, "timeout"),
    "slow-headers": (504, "timeout"),
    "429": (429, "rate_limit_exceeded"),
    "500": (503, "expert_unavailable"),
    "503": (503, "overloaded"),
    "401": (502, "expert_refused"),
    "html": (502, "bad_reply"),
    "truncated": (502, "bad_reply"),
    "empty": (502, "bad_reply"),
    "binary": (502, "bad_reply"),
    "in-band": (503, "expert_unavailable"),
    "oversized": (502, "bad_reply"),
    "half-500": (200, None),
}


@pytest.fixture(scope="module")
def faulty():
    return Faulty()


@pytest.fixture(scope="module")
def door(faulty, tmp_path_factory):
    folder = tmp_path_factory.mktemp("faults")
    with serving(faulty) as url, socket.create_server(("127.0.0.1", 0)) as taken:
        dead = f"http://127.0.0.1:{taken.getsockname()[1]}"
        taken.close()
        (folder / "experts.yaml").write_text(registry(url, dead))
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("UPSTREAM_KEY", KEY)
            with (
                running(create_app(folder / "experts.yaml")) as address,
                httpx.Client(base_url=address, timeout=60, trust_env=False) as client,
            ):
                yield client


def registry(url, dead):
    def expert(name, fault):
        base = dead if fault == "refuse" else f"{url}/{fault}"
        options = f'{{base_url: "{base}/v1", api_key_env: UPSTREAM_KEY}}'
        return f"  - {{name: {name}, kind: llm, backend: openai, model: m, options: {options}}}"

    def composition(name, *experts):
        return (
            f"  - {{name: {name}, experts: [{', '.join(experts)}], baseline: {experts[0]}, "
            f"limits: {{seconds: {DEADLINE}}}}}"
        )

    faults = (*BEFORE, *MIDDLE)
    experts = [expert(f"{role}.{fault}", fault) for fault in faults for role in ("bad", "lone")]
    compositions = [composition(f"with.{fault}", f"bad.{fault}", "good") for fault in faults]
    compositions += [composition(f"alone.{fault}", f"lone.{fault}") for fault in faults]
    lines = ["version: 1", "experts:", expert("good", "ok"), *experts]
    return "\n".join([*lines, "compositions:", *compositions]) + "\n"


def ask(door, model, **fields):
    began = time.perf_counter()
    body = {"model": model, "messages": [{"role": "user", "content": "hello"}], **fields}
    response = door.post("/v1/chat/completions", json=body)
    return response, time.perf_counter() - began


def line(row):
    widths = (14, 22, 22, 9, 9)
    return "  ".join(f"{cell:>{width}}" for cell, width in zip(row, widths, strict=True))


def test_every_fault_is_survived_with_an_alternative_and_named_without(door, faulty, capsys):
    rows = []
    for fault in BEFORE:
        before = faulty.calls[fault]
        with ThreadPoolExecutor(PARALLEL) as pool:
            both = list(pool.map(lambda _, f=fault: ask(door, f"with.{f}"), range(PARALLEL)))
        assert [r.status_code for r, _ in both] == [200] * PARALLEL, (fault, both[0][0].text)
        assert all(r.json()["choices"][0]["message"]["content"] == "well" for r, _ in both)
        slowest = max(seconds for _, seconds in both)
        assert slowest < DEADLINE + SLACK
        calls = faulty.calls[fault] - before
        assert calls <= PARALLEL  # one try each: there is another expert to ask
        response, seconds = ask(door, f"alone.{fault}")
        error = response.json().get("error", {})
        assert (response.status_code, error.get("code")) == ALONE[fault], (fault, response.text)
        assert seconds < DEADLINE + SLACK
        assert KEY not in response.text
        if error:
            assert sorted(error) == ["code", "message", "param", "type"]
            assert response.headers["x-should-retry"] == "false"
        if response.status_code in (429, 503):
            assert int(response.headers["retry-after"]) == (7 if fault == "429" else 1)
        alone = f"{response.status_code} {error.get('code') or 'answered'}"
        rows.append((fault, f"{PARALLEL}/{PARALLEL}, {calls} calls", alone, slowest, seconds))
    with capsys.disabled():
        table = [("fault", "with an alternative", "alone", "slowest", "alone")]
        table += [(*cells, f"{slow:.2f} s", f"{alone:.2f} s") for *cells, slow, alone in rows]
        sys.stdout.write("\n" + "\n".join(map(line, table)) + "\n")


@pytest.mark.parametrize("fault", BEFORE)
def test_before_the_first_piece_a_stream_fails_over_unseen(door, fault):
    response, _ = ask(door, f"with.{fault}", stream=True)
    assert response.status_code == 200
    assert response.text.endswith("data: [DONE]\n\n")
    assert "error" not in response.text


@pytest.mark.parametrize("fault", MIDDLE)
def test_after_the_first_piece_a_stream_ends_with_an_error_and_without_done(door, fault):
    response, seconds = ask(door, f"with.{fault}", stream=True)
    assert seconds < DEADLINE + SLACK
    *pieces, last = [
        json.loads(line[6:]) for line in response.text.splitlines() if line.startswith("data: ")
    ]
    assert "[DONE]" not in response.text
    assert sorted(last["error"]) == ["code", "message", "param", "type"]
    said = "".join(p["choices"][0]["delta"].get("content") or "" for p in pieces)
    assert said == "well"
    assert response.headers["x-composer-expert"] == f"bad.{fault}"
