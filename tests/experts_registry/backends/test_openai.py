"""Against a real local server with scripted faults."""

import asyncio
import gzip
import json
import socket
import threading
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import httpx
import pytest

from experts_registry.backends.openai import OpenAILLM
from experts_registry.errors import (
    ContentPolicyError,
    ContextLengthError,
    ExpertBusyError,
    ExpertOverloadedError,
    ExpertReplyError,
    ExpertRequestError,
    ExpertTimeoutError,
    ExpertUnavailableError,
    OffersError,
    PromptError,
    RegistryError,
)
from experts_registry.testing import check_llm
from experts_registry.types import Message, Prompt, TokenLogprob, Usage

CUT = object()
"""In a script: close the connection here."""


class Server(ThreadingHTTPServer):
    """Plays its replies in order and repeats the last one; a function is given the request."""

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.replies = []
        self.requests = []
        self.headers = []
        self.released = threading.Event()

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server_port}/v1"

    def next_reply(self, request):
        reply = self.replies.pop(0) if len(self.replies) > 1 else self.replies[0]
        return reply(request) if callable(reply) else reply


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def do_POST(self):
        request = json.loads(self.rfile.read(int(self.headers["content-length"])))
        self.server.requests.append(request)
        self.server.headers.append((self.path, dict(self.headers)))
        status, headers, parts = self.server.next_reply(request)
        self.send_response(status)
        for name, value in {"transfer-encoding": "chunked", **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        for part in parts:
            if part is CUT:
                self.close_connection = True
                self.connection.shutdown(socket.SHUT_RDWR)
                return
            if isinstance(part, threading.Event):
                part.wait(20)
                continue
            try:
                self.wfile.write(b"%x\r\n%s\r\n" % (len(part), part))
            except OSError:
                self.close_connection = True
                return
        self.wfile.write(b"0\r\n\r\n")


@pytest.fixture
def server():
    with Server() as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield server
        server.released.set()
        server.shutdown()


@pytest.fixture
def llm(server, spec):
    def build(transport=None, **keys):
        options = {"base_url": server.url, "timeout": 5, **keys.pop("options", {})}
        return OpenAILLM(spec("openai", "big-model", options=options, **keys), transport=transport)

    return build


def reply(text="Paris.", *, status=200, headers=None, **message):
    choice = {"index": 0, "message": {"role": "assistant", "content": text, **message}}
    body = {
        "choices": [{**choice, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 7, "completion_tokens": 2},
    }
    return (
        status,
        {"content-type": "application/json", **(headers or {})},
        [json.dumps(body).encode()],
    )


def refuse(status, error="no", **headers):
    return (
        status,
        {"content-type": "application/json", **headers},
        [json.dumps({"error": error}).encode()],
    )


def stream(*parts):
    lines = [
        p if isinstance(p, bytes | threading.Event) else f"data: {json.dumps(p)}\n\n".encode()
        for p in parts
    ]
    return 200, {"content-type": "text/event-stream; charset=utf-8"}, lines


def delta(finish_reason=None, **keys):
    return {"choices": [{"index": 0, "delta": keys, "finish_reason": finish_reason}]}


DONE = b"data: [DONE]\n\n"
USAGE = {"choices": [], "usage": {"prompt_tokens": 7, "completion_tokens": 2}}


def ask(llm, prompt="Where?", **sampling):
    async def call():
        try:
            return await llm.generate(Prompt.of(prompt, **sampling))
        finally:
            await llm.aclose()

    return asyncio.run(call())


def read(llm, prompt="Where?", **sampling):
    async def call():
        try:
            return [chunk async for chunk in llm.stream(Prompt.of(prompt, **sampling))]
        finally:
            await llm.aclose()

    return asyncio.run(call())


# -- answers ------------------------------------------------------------------------------------


def test_an_answer_is_read(llm, server):
    server.replies = [reply("Paris.", tool_calls=[{"id": "a"}], refusal=None)]
    answer = ask(llm())
    assert (answer.text, answer.finish_reason) == ("Paris.", "stop")
    assert answer.usage == Usage(prompt_tokens=7, completion_tokens=2)
    assert answer.extra == {"tool_calls": [{"id": "a"}]}
    assert server.headers[0][0] == "/v1/chat/completions"


def test_openai_keeps_the_contract(llm, server):
    def play(request):
        words = ["Paris", " is", " it", "!"]
        limit = request.get("max_tokens")
        stop = request.get("stop", ["never"])
        text = "".join(words[:limit]).split(stop[-1])[0]
        kept = [w for w in words if w in text][:limit]
        reason = "length" if limit and limit < len(words) else "stop"
        usage = {"prompt_tokens": 7, "completion_tokens": len(kept)}
        if request["stream"]:
            return stream(
                *(delta(content=w) for w in kept),
                delta(reason),
                {"choices": [], "usage": usage},
                DONE,
            )
        message = {"role": "assistant", "content": "".join(kept)}
        body = {"choices": [{"message": message, "finish_reason": reason}], "usage": usage}
        return 200, {"content-type": "application/json"}, [json.dumps(body).encode()]

    server.replies = [play]
    check_llm(llm())


def test_a_request_says_what_was_asked_and_no_more(llm, server):
    server.replies = [reply()]
    ask(llm())
    assert server.requests == [
        {
            "model": "big-model",
            "messages": [{"role": "user", "content": "Where?"}],
            "stream": False,
        }
    ]


def test_sampling_tools_and_parts_are_passed_on_and_our_keys_win(llm, server):
    parts = [{"type": "text", "text": "Where?"}, {"type": "image_url", "image_url": {"url": "u"}}]
    prompt = Prompt(
        Prompt.of([{"role": "user", "content": parts, "name": "me"}]).messages,
        Prompt.of("x", max_tokens=5, temperature=0.5, top_p=0.9, stop=("a", ""), seed=3).sampling,
        {"tools": [{"type": "function"}], "model": "other", "stream": True, "base_url": "http://e"},
    )
    server.replies = [reply()]
    ask(llm(), prompt)
    assert server.requests[0] == {
        "model": "big-model",
        "messages": [{"role": "user", "content": parts, "name": "me"}],
        "stream": False,
        "max_tokens": 5,
        "temperature": 0.5,
        "top_p": 0.9,
        "stop": ["a"],
        "seed": 3,
        "tools": [{"type": "function"}],
        "base_url": "http://e",
    }


@pytest.mark.parametrize(
    ("extra", "sent"),
    [({}, {"max_completion_tokens": 9}), ({"max_tokens": 3}, {"max_tokens": 3})],
)
def test_the_files_limit_is_sent_unless_the_caller_has_one(llm, server, extra, sent):
    server.replies = [reply()]
    expert = llm(limits={"max_tokens": 9}, options={"max_tokens_key": "max_completion_tokens"})
    ask(expert, Prompt((Message("user", "Where?"),), extra=extra))
    assert {k: v for k, v in server.requests[0].items() if "tokens" in k} == sent


def test_logprobs_are_asked_for_and_read(llm, server):
    status, headers, body = reply()
    value = json.loads(body[0])
    value["choices"][0]["logprobs"] = {"content": [{"token": "Pa", "logprob": -0.5, "bytes": []}]}
    server.replies = [(status, headers, [json.dumps(value).encode()])]
    assert ask(llm(), logprobs=True).logprobs == (TokenLogprob("Pa", -0.5, ()),)
    assert server.requests[0]["logprobs"] is True


def test_logprobs_that_the_file_does_not_offer_are_refused(llm):
    with pytest.raises(OffersError, match="expert 'x': does not offer logprobs"):
        ask(llm(offers=("text",)), logprobs=True)


def test_the_key_is_sent_as_a_bearer_token_and_never_shown(llm, server, monkeypatch):
    monkeypatch.setenv("BIG_KEY", "sk-secret")
    server.replies = [refuse(401, {"message": "Incorrect API key provided: sk-secret"})]
    with pytest.raises(ExpertRequestError) as error:
        ask(llm(options={"api_key_env": "BIG_KEY"}))
    assert server.headers[0][1]["authorization"] == "Bearer sk-secret"
    assert "sk-secret" not in str(error.value)
    assert "check the API key in environment variable 'BIG_KEY'" in str(error.value)


def test_without_a_key_none_is_sent(llm, server, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "sk-public")
    server.replies = [reply()]
    ask(llm())
    assert "authorization" not in {name.lower() for name in server.headers[0][1]}


def test_a_prompt_without_json_form_is_a_prompt_error(llm):
    with pytest.raises(PromptError, match="no JSON form"):
        ask(llm(), Prompt((Message("user", "x"),), extra={"tools": {1, 2}}))


def test_lone_surrogates_and_other_scripts_arrive(llm, server):
    server.replies = [reply()]
    ask(llm(), "東京 \ud800 ?")
    assert server.requests[0]["messages"][0]["content"] == "東京 \ud800 ?"


def test_a_model_in_parts_is_refused(spec):
    with pytest.raises(RegistryError, match="model: is a list; name one served model"):
        OpenAILLM(spec("openai", ("a", "b")))


# -- faults -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "error", "kind", "said"),
    [
        (
            400,
            {"message": "bad tool"},
            ExpertRequestError,
            "HTTP 400: bad tool; change the request",
        ),
        (400, {"message": "m", "code": "context_length_exceeded"}, ContextLengthError, "shorten"),
        (
            400,
            "This model's maximum context length is 8192 tokens",
            ContextLengthError,
            "maximum context length is 8192",
        ),
        (400, "stop: maximum length is 4", ExpertRequestError, "maximum length is 4"),
        (401, "no key", ExpertRequestError, "options.api_key_env"),
        (403, "no", ExpertRequestError, "options.api_key_env"),
        (404, "no such model", ExpertRequestError, "check model and options.base_url"),
        (422, "unprocessable", ExpertRequestError, "change the request"),
        (408, "slow", ExpertTimeoutError, "HTTP 408"),
        (302, "moved", ExpertReplyError, "address it moved to"),
        (500, "broke", ExpertUnavailableError, "HTTP 500: broke"),
        (501, "broke", ExpertUnavailableError, "HTTP 501"),
        (503, "full", ExpertOverloadedError, "HTTP 503: full"),
    ],
)
def test_refusals_become_our_errors(llm, server, status, error, kind, said):
    server.replies = [refuse(status, error, location="http://127.0.0.1:9/v1")]
    with pytest.raises(kind, match=r"expert 'x' at 127\.0\.0\.1:") as caught:
        ask(llm())
    assert said in str(caught.value)
    assert type(caught.value) is kind
    if kind is ExpertRequestError:
        assert caught.value.status == status


@pytest.mark.parametrize("status", [400, 401, 429, 500, 503])
def test_a_backend_asks_once_and_leaves_further_tries_to_the_composer(llm, server, status):
    server.replies = [refuse(status)]
    with pytest.raises(Exception, match=f"HTTP {status}"):
        ask(llm())
    assert len(server.requests) == 1


@pytest.mark.parametrize("code", ["content_filter", "content_policy_violation"])
def test_a_content_filter_is_told_apart_from_other_refusals(llm, server, code):
    server.replies = [refuse(400, {"message": "no", "code": code})]
    with pytest.raises(ContentPolicyError):
        ask(llm())


def in_an_hour():
    return format_datetime(datetime.now(UTC) + timedelta(hours=1), usegmt=True)


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"retry-after": "120"}, 120),
        ({"retry-after": in_an_hour}, 3600),
        ({"retry-after": "1", "retry-after-ms": "90000"}, 90),
        ({"retry-after": "0.01"}, 0.01),
        ({"retry-after": "Wed, 01 Jan 2020 00:00:00 GMT"}, 0),
        ({"retry-after": "soon"}, None),
        ({"retry-after": "-3"}, None),
        ({"retry-after": "nan"}, None),
    ],
)
def test_when_to_come_back_is_read(llm, server, headers, seconds):
    # A date is made now, not when the tests were collected.
    said = {key: value() if callable(value) else value for key, value in headers.items()}
    server.replies = [refuse(429, "slow down", **said)]
    with pytest.raises(ExpertBusyError) as error:
        ask(llm())
    found = error.value.retry_after
    assert found == (seconds if not seconds or seconds < 60 else pytest.approx(seconds, abs=60))


@pytest.mark.parametrize(
    ("content_type", "body", "said"),
    [
        ("text/html", b"<html><body>Welcome</body></html>", "text/html that is not a chat"),
        ("application/json", b'{"choices": [{"mess', "Invalid JSON"),
        ("application/json", b'{"object": "list"}', "'choices' is missing or empty"),
        ("application/json", b'{"choices": []}', "'choices' is missing or empty"),
        ("application/json", b'{"choices": [{"message": {"content": 7}}]}', "content"),
        ("application/json", b"[]", "not a chat completion"),
        ("application/json", b"null", "not a chat completion"),
        ("", b"", "no content type"),
        ("image/png", b"\x89PNG\xff\xfe", "image/png"),
    ],
)
@pytest.mark.parametrize("call", [ask, read])
def test_what_is_not_an_answer_is_said_to_be_none(llm, server, content_type, body, said, call):
    server.replies = [(200, {"content-type": content_type}, [body] if body else [])]
    with pytest.raises((ExpertReplyError, ExpertUnavailableError)) as error:
        call(llm())
    assert str(error.value).startswith("expert 'x' at 127.0.0.1:")
    if call is ask:
        assert type(error.value) is ExpertReplyError
        assert said in str(error.value)
        assert len(str(error.value)) < 500


def test_an_error_inside_a_success_is_an_error(llm, server):
    server.replies = [
        (200, {"content-type": "application/json"}, [b'{"error": {"message": "no"}}'])
    ]
    with pytest.raises(ExpertUnavailableError, match="no"):
        ask(llm())


def test_an_endless_body_is_cut(llm, server):
    server.replies = [(200, {"content-type": "text/plain"}, [b"x" * 2**20] * 40)]
    with pytest.raises(ExpertReplyError, match="xxx"):
        ask(llm())


def test_a_reply_that_is_cut_is_unavailable(llm, server):
    server.replies = [(200, {"content-type": "application/json"}, [b'{"choices"', CUT])]
    with pytest.raises(ExpertUnavailableError, match="the connection broke"):
        ask(llm())


def test_a_silent_server_times_out(llm, server):
    server.replies = [(200, {"content-type": "application/json"}, [server.released])]
    with pytest.raises(ExpertTimeoutError, match=r"silent for options.timeout \(0.2 s\)"):
        ask(llm(options={"timeout": 0.2}))


def test_a_dead_endpoint_says_what_to_check(llm):
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    expert = llm(options={"base_url": f"http://127.0.0.1:{port}/v1"})
    with pytest.raises(ExpertUnavailableError, match=f"127.0.0.1:{port}: cannot connect") as error:
        ask(expert)
    assert "check options.base_url and that the server runs" in str(error.value)


def test_an_unknown_host_is_unavailable(llm):
    def fail(request):
        raise httpx.ConnectError("[Errno -2] Name or service not known")

    expert = llm(httpx.MockTransport(fail), options={"base_url": "https://nowhere.invalid/v1"})
    with pytest.raises(ExpertUnavailableError, match=r"nowhere\.invalid: cannot connect"):
        ask(expert)


# -- streams ------------------------------------------------------------------------------------


def test_a_stream_is_read_piece_by_piece(llm, server):
    server.replies = [
        stream(
            b": ping\n\n",
            delta(role="assistant", content=""),
            delta(content="Pa"),
            b": x\r\n\r\n",
            delta(content="ris."),
            delta("stop"),
            USAGE,
            DONE,
        )
    ]
    *pieces, last = read(llm())
    assert [p.text for p in pieces] == ["Pa", "ris."]
    assert last.generation.text == "Paris."
    assert last.generation.usage == Usage(prompt_tokens=7, completion_tokens=2)
    assert server.requests[0]["stream_options"] == {"include_usage": True}


def test_a_stream_delivers_before_it_ends(llm, server):
    server.replies = [stream(delta(content="Pa"), delta("stop"), DONE)]
    server.replies[0][2].insert(1, server.released)

    async def first():
        expert = llm()
        stream = expert.stream(Prompt.of("Where?"))
        chunk = await anext(stream)
        await stream.aclose()
        await expert.aclose()
        return chunk.text

    assert asyncio.run(first()) == "Pa"


def test_tool_calls_are_put_together(llm, server):
    def call(index, **function):
        return delta(tool_calls=[{"index": index, "function": function}])

    first = {"index": 0, "id": "a", "type": "function", "function": {"name": "f", "arguments": ""}}
    server.replies = [
        stream(
            delta(tool_calls=[first]),
            call(0, arguments='{"x"'),
            call(1, name="g", arguments="{}"),
            call(0, arguments=": 1}"),
            delta("tool_calls"),
            DONE,
        )
    ]
    *pieces, last = read(llm())
    assert pieces[1].extra == {"tool_calls": [{"index": 0, "function": {"arguments": '{"x"'}}]}
    assert last.generation.finish_reason == "tool_calls"
    assert last.generation.extra == {
        "tool_calls": [
            {**first, "function": {"name": "f", "arguments": '{"x": 1}'}},
            {"index": 1, "function": {"name": "g", "arguments": "{}"}},
        ]
    }


def test_only_the_first_of_several_answers_is_read(llm, server):
    other = {"choices": [{"index": 1, "delta": {"content": "London"}}]}
    server.replies = [stream(other, delta(content="Paris"), other, delta("stop"), DONE)]
    assert read(llm())[-1].generation.text == "Paris"


@pytest.mark.parametrize("end", [[delta("stop")], [DONE]], ids=["finish_reason", "done"])
def test_either_sign_of_the_end_is_enough(llm, server, end):
    server.replies = [stream(delta(content="Paris"), *end)]
    assert read(llm())[-1].generation.finish_reason == "stop"


@pytest.mark.parametrize(
    ("parts", "kind", "said"),
    [
        ([delta(content="Pa")], ExpertUnavailableError, "ended before the answer did"),
        ([delta(content="Pa"), CUT], ExpertUnavailableError, "the connection broke"),
        ([delta(content="Pa"), b"data: {oops\n\n"], ExpertReplyError, "Invalid JSON"),
        ([delta(content="Pa"), {"error": {"message": "lost"}}], ExpertUnavailableError, "lost"),
        ([{"error": {"message": "m", "code": 429}}], ExpertBusyError, "HTTP 429"),
        ([b'event: error\ndata: {"message": "lost"}\n\n'], ExpertUnavailableError, "lost"),
        (
            [{"error": {"message": "m", "code": "context_length_exceeded"}}],
            ContextLengthError,
            "HTTP 400",
        ),
    ],
)
def test_a_broken_stream_is_a_typed_error(llm, server, parts, kind, said):
    status, headers, lines = stream(*(b"" if part is CUT else part for part in parts))
    lines = [part if part is CUT else line for part, line in zip(parts, lines, strict=True)]
    server.replies = [(status, headers, lines)]
    with pytest.raises(kind, match=said):
        read(llm())


def test_a_server_that_cannot_stream_is_read_as_a_whole(llm, server):
    server.replies = [reply("Paris.")]
    assert [c.text for c in read(llm())] == ["Paris.", ""]


def test_connections_are_used_again(llm, server):
    server.replies = [reply(), stream(delta("stop", content="Paris"), DONE), reply()]
    ports = []
    server.verify_request = lambda request, address: ports.append(address[1]) or True

    async def calls():
        expert = llm()
        await expert.generate(Prompt.of("a"))
        assert [c async for c in expert.stream(Prompt.of("b"))]
        await expert.generate(Prompt.of("c"))
        await expert.aclose()

    asyncio.run(calls())
    assert len(set(ports)) == 1


def packed(body):
    status, headers, [plain] = reply()
    return status, {**headers, "content-encoding": "gzip"}, [body(plain)]


def test_a_compressed_answer_is_read_and_a_broken_one_is_told(llm, server):
    server.replies = [packed(gzip.compress), packed(lambda plain: b"no gzip" + plain)]
    assert ask(llm()).text == "Paris."
    with pytest.raises(ExpertReplyError, match="cannot be decoded"):
        ask(llm())


def test_no_redirect_is_followed_and_no_cookie_kept(llm, server):
    cookie = {"set-cookie": "who=alice; path=/"}
    server.replies = [reply(headers=cookie), refuse(307, location=f"{server.url}/elsewhere")]

    async def calls():
        expert = llm()
        await expert.generate(Prompt.of("a"))
        with pytest.raises(ExpertReplyError, match="HTTP 307"):
            await expert.generate(Prompt.of("b"))
        await expert.aclose()

    asyncio.run(calls())
    assert len(server.headers) == 2
    assert not any("cookie" in map(str.lower, headers) for _, headers in server.headers)


def test_a_call_that_gets_no_connection_in_time_is_busy(llm, server):
    server.replies = [stream(delta(content="Par"), server.released)]

    async def calls():
        expert = llm(options={"timeout": 0.5}, limits={"concurrency": 1})
        first = expert.stream(Prompt.of("a"))
        await anext(first)
        with pytest.raises(ExpertBusyError, match="all connections are in use"):
            await expert.generate(Prompt.of("b"))
        await first.aclose()
        await expert.aclose()

    asyncio.run(calls())


def test_a_proxy_of_the_environment_is_asked(llm, server, monkeypatch):
    server.replies = [reply()]
    monkeypatch.setenv("HTTP_PROXY", server.url.removesuffix("/v1"))
    monkeypatch.delenv("NO_PROXY", raising=False)
    assert ask(llm(options={"base_url": "http://far.invalid/v1"})).text == "Paris."
    assert server.headers[0][0] == "http://far.invalid/v1/chat/completions"


def test_a_call_after_its_loop_ended_opens_a_new_connection(llm, server):
    server.replies = [reply()]
    expert = llm()

    async def once():
        return (await expert.generate(Prompt.of("a"))).text

    assert [asyncio.run(once()) for _ in range(3)] == ["Paris."] * 3


def test_cancelling_hangs_up(llm, server):
    server.replies = [(200, {"content-type": "application/json"}, [server.released])]

    async def cancel():
        expert = llm()
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(expert.generate(Prompt.of("a")), 0.2)
        await expert.aclose()

    asyncio.run(cancel())


@pytest.mark.parametrize("tokens", ["1" + "0" * 400, "-5"])
def test_whatever_usage_a_server_claims_can_be_counted(llm, server, tokens):
    status, headers, (body,) = reply()
    server.replies = [(status, headers, [body.replace(b": 7", f": {tokens}".encode())])]
    usage = ask(llm()).usage
    assert 0 <= usage.total_tokens * 0.001 < 1e18


@pytest.mark.parametrize("index", [-1, 1])
def test_pieces_of_answers_that_nobody_asked_for_are_left_out(llm, server, index):
    other = {"choices": [{"index": index, "delta": {"content": "x"}, "finish_reason": "stop"}]}
    server.replies = [stream(delta(content="Paris."), other, delta("stop"), DONE)]

    async def read():
        expert = llm()
        try:
            return [chunk async for chunk in expert.stream(Prompt.of("Where?"))]
        finally:
            await expert.aclose()

    *pieces, last = asyncio.run(read())
    assert [(piece.text, piece.index) for piece in pieces] == [("Paris.", 0)]
    assert [choice.text for choice in last.generation.choices] == ["Paris."]
