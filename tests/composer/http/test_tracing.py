import subprocess
import sys
from contextlib import contextmanager

import httpx
import pytest

from composer.http.app import create_app
from composer.http.otlp import tracing_from_environment
from experts_registry.errors import OptionError
from tests.composer.http.collector import attributes, collecting
from tests.composer.http.conftest import REGISTRY
from tests.composer.http.servers import running

CHAT = "/v1/chat/completions"
TRACE, PARENT = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"


def asking(model, **more):
    return {"model": model, "messages": [{"role": "user", "content": "one two three"}], **more}


@pytest.fixture
def collector():
    with collecting() as collector:
        yield collector


@pytest.fixture
def door(collector, tmp_path, monkeypatch, upstream_url):
    """Serve with traces; on leaving, all of them have arrived."""
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url)

    @contextmanager
    def opened():
        path = tmp_path / "experts.yaml"
        path.write_text(REGISTRY.replace("URL", upstream_url))
        with (
            running(create_app(path)) as url,
            httpx.Client(base_url=url, timeout=20, trust_env=False) as client,
        ):
            yield client

    return opened


def named(collector, name):
    [span] = [span for span in collector.spans if span.name == name]
    return span


def test_a_request_its_decision_and_its_calls_are_spans(door, collector):
    with door() as client:
        answer = client.post(CHAT, json=asking("shaky"))
    request = named(collector, "chat shaky")
    children = [span for span in collector.spans if span.parent_span_id == request.span_id]
    assert [span.name for span in children] == ["decide", "chat dead", "chat cheap"]
    assert {span.trace_id for span in collector.spans} == {request.trace_id}
    assert collector.services == {"expert-composer"}
    for span in children:
        assert request.start_time_unix_nano <= span.start_time_unix_nano
        assert span.start_time_unix_nano <= span.end_time_unix_nano
        assert span.end_time_unix_nano <= request.end_time_unix_nano
    told = attributes(request)
    assert told["gen_ai.operation.name"] == "chat"
    assert told["gen_ai.provider.name"] == "echo"
    assert (told["gen_ai.request.model"], told["gen_ai.response.model"]) == ("shaky", "cheap")
    assert (told["gen_ai.usage.input_tokens"], told["gen_ai.usage.output_tokens"]) == (3, 3)
    assert told["gen_ai.response.finish_reasons"] == ["stop"]
    assert told["http.response.status_code"] == 200
    assert told["expert_composer.request_id"] == answer.headers["x-request-id"]
    assert attributes(children[1])["error.type"] == "ExpertUnavailableError"
    assert children[1].status.code == 2
    assert children[2].status.code == 0


def test_a_failed_request_says_with_what(door, collector):
    with door() as client:
        assert client.post(CHAT, json=asking("dead")).status_code == 503
    [request] = [span for span in collector.spans if not span.parent_span_id]
    assert attributes(request)["error.type"] == "ExpertUnavailableError"
    assert request.status.code == 2


@pytest.mark.parametrize("stream", [False, True])
def test_the_clients_trace_goes_on_here_and_at_the_upstream_server(
    door, collector, upstream, stream
):
    headers = {"traceparent": f"00-{TRACE}-{PARENT}-01"}
    with door() as client:
        client.post(CHAT, json=asking("far", stream=stream), headers=headers).raise_for_status()
        sent = upstream.headers[-1]
        client.post(CHAT, json=asking("far")).raise_for_status()
        alone = upstream.headers[-1]
    request = next(s for s in collector.spans if s.parent_span_id.hex() == PARENT)
    assert request.trace_id.hex() == TRACE
    assert sent["traceparent"] == f"00-{TRACE}-{request.span_id.hex()}-01"
    assert TRACE not in alone["traceparent"]


def test_a_trace_that_is_none_is_not_passed_on(door, upstream):
    with door() as client:
        headers = {"traceparent": "00-zz\u00e9-1"}
        raw = {name: value.encode("latin-1") for name, value in headers.items()}
        client.post(CHAT, json=asking("far"), headers=raw).raise_for_status()
    assert "zz" not in upstream.headers[-1]["traceparent"]


def test_without_a_collector_nothing_of_it_is_loaded_or_sent(raw, upstream):
    raw.post(CHAT, json=asking("far"), headers={"traceparent": f"00-{TRACE}-{PARENT}-01"})
    assert "traceparent" not in upstream.headers[-1]
    code = "import sys, composer.http.app; print(*sorted(sys.modules))"
    loaded = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout.split()
    assert "composer.http.otlp" in loaded
    assert not [name for name in loaded if name.startswith("opentelemetry")]


@pytest.mark.parametrize("variable", ["OTEL_SDK_DISABLED=true", "OTEL_TRACES_EXPORTER=none"])
def test_variables_turn_traces_off(monkeypatch, variable):
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setenv(*variable.split("="))
    assert tracing_from_environment() is None


def test_another_protocol_is_refused(monkeypatch):
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc")
    with pytest.raises(OptionError, match="use 'http/protobuf'"):
        tracing_from_environment()
