import json

import httpx
import openai
import pytest
from openai.types.chat import ChatCompletion, ChatCompletionChunk

from tests.composer.http.servers import until


def ask(text="three little words", **fields):
    return {"model": "cheap", "messages": [{"role": "user", "content": text}], **fields}


def post(raw, path="/v1/chat/completions", **fields):
    return raw.post(path, json=ask(**fields))


def events(response):
    lines = [line for line in response.text.split("\n\n") if line]
    assert all(line.startswith("data: ") for line in lines)
    return [line.removeprefix("data: ") for line in lines]


def test_the_openai_client_gets_an_answer(client):
    done = client.chat.completions.create(**ask())
    assert done.choices[0].message.content == "three little words"
    assert done.choices[0].finish_reason == "stop"
    assert done.usage.total_tokens == 6
    assert done.model == "cheap"


def test_an_answer_has_every_key_that_openai_promises(raw):
    done = post(raw).json()
    assert done.pop("id").startswith("chatcmpl-")
    assert done.pop("created") > 1_700_000_000
    assert done == {
        "object": "chat.completion",
        "model": "cheap",
        "choices": [
            {
                "index": 0,
                "message": {
                    "role": "assistant",
                    "content": "three little words",
                    "refusal": None,
                },
                "logprobs": None,
                "finish_reason": "stop",
            }
        ],
        "usage": {"prompt_tokens": 3, "completion_tokens": 3, "total_tokens": 6},
    }


def test_headers_say_who_answered_and_what_it_took(raw):
    headers = post(raw, model="shaky").headers
    assert headers["x-request-id"].startswith("req_")
    told = {key: headers[f"x-composer-{key}"] for key in ("model", "expert", "attempts")}
    assert told == {"model": "shaky", "expert": "cheap", "attempts": "2"}
    assert headers["x-composer-fallbacks"] == "1"
    assert float(headers["x-composer-cost-usd"]) == pytest.approx(9e-6)
    assert 0 <= float(headers["x-composer-overhead-ms"]) < 1000
    assert headers["x-composer-generation"] == "1"


def test_the_score_is_told_where_a_composition_decided(raw):
    assert "x-composer-score" in post(raw, model="auto").headers
    assert "x-composer-score" not in post(raw, model="cheap").headers


def test_a_stream_has_openais_events(raw):
    response = post(raw, stream=True)
    assert response.headers["content-type"].startswith("text/event-stream")
    *pieces, done = events(response)
    assert done == "[DONE]"
    chunks = [json.loads(piece) for piece in pieces]
    assert len({chunk["id"] for chunk in chunks}) == 1
    assert {chunk["object"] for chunk in chunks} == {"chat.completion.chunk"}
    assert {chunk["model"] for chunk in chunks} == {"cheap"}
    assert not any("usage" in chunk for chunk in chunks)
    choices = [chunk["choices"][0] for chunk in chunks]
    assert choices[0]["delta"] == {"role": "assistant", "content": "", "refusal": None}
    assert [c["finish_reason"] for c in choices] == [None] * (len(choices) - 1) + ["stop"]
    assert all(c["logprobs"] is None for c in choices)
    assert "".join(c["delta"].get("content", "") for c in choices) == "three little words"


def test_a_stream_tells_its_usage_only_where_asked(raw):
    response = post(raw, stream=True, stream_options={"include_usage": True})
    *chunks, last = [json.loads(piece) for piece in events(response)[:-1]]
    assert all(chunk["usage"] is None for chunk in chunks)
    assert last["choices"] == []
    assert last["usage"] == {"prompt_tokens": 3, "completion_tokens": 3, "total_tokens": 6}


def test_answers_and_events_fit_openais_own_models(raw):
    for model, text in (("cheap", "hello"), ("far", "tool")):
        messages = [{"role": "user", "content": text}]
        body = {"model": model, "messages": messages}
        ChatCompletion.model_validate(raw.post("/v1/chat/completions", json=body).json())
        body |= {"stream": True, "stream_options": {"include_usage": True}}
        *pieces, _ = events(raw.post("/v1/chat/completions", json=body))
        for piece in pieces:
            ChatCompletionChunk.model_validate_json(piece)


def test_stream_options_without_a_stream_are_ignored(raw):
    assert post(raw, stream_options={"include_usage": True}).status_code == 200


def test_a_stream_fails_over_unseen_before_its_first_byte(raw):
    response = post(raw, model="shaky", stream=True)
    assert response.headers["x-composer-expert"] == "cheap"
    assert response.headers["x-composer-attempts"] == "2"
    assert response.headers["x-composer-fallbacks"] == "1"
    assert events(response)[-1] == "[DONE]"


def test_a_failure_before_the_first_byte_of_a_stream_is_a_plain_error(raw):
    response = post(raw, model="dead", stream=True)
    assert response.status_code == 503
    assert response.json()["error"]["code"] == "expert_unavailable"
    assert response.headers["x-should-retry"] == "false"


def test_a_failure_after_the_first_byte_is_an_event_and_no_done(raw):
    response = post(raw, model="cut", stream=True)
    assert response.status_code == 200
    *_, last = events(response)
    assert json.loads(last)["error"]["code"] == "expert_unavailable"
    assert "[DONE]" not in response.text


def test_the_openai_client_raises_on_a_cut_stream(client):
    messages = [{"role": "user", "content": "cut"}]
    stream = client.chat.completions.create(model="far", messages=messages, stream=True)
    assert [next(stream).choices[0].delta.content for _ in range(3)] == ["", "one", " two"]
    with pytest.raises(openai.APIError, match="the stream ended before the answer did"):
        next(stream)


def test_several_answers_are_one_completion(client):
    done = client.chat.completions.create(**ask(n=3))
    assert [(c.index, c.message.content) for c in done.choices] == [
        (i, "three little words") for i in range(3)
    ]
    assert (done.usage.prompt_tokens, done.usage.completion_tokens) == (3, 9)


@pytest.mark.parametrize("model", ["cheap", "far"])
def test_several_answers_stream_side_by_side(client, model):
    chunks = [*client.chat.completions.create(**ask("one two", model=model, n=3), stream=True)]
    assert len({chunk.id for chunk in chunks}) == 1
    choices = [chunk.choices[0] for chunk in chunks]
    for index in range(3):
        mine = [choice for choice in choices if choice.index == index]
        assert mine[0].delta.role == "assistant"
        assert "".join(c.delta.content or "" for c in mine) == "one two"
        assert [c.finish_reason for c in mine][-2:] == [None, "stop"]
    spoken = [choice.index for choice in choices if choice.delta.content]
    assert spoken == [0, 1, 2, 0, 1, 2]


def test_an_unexpected_number_of_answers_is_never_given(client, upstream):
    upstream.requests.clear()
    fields = {"model": "far", "messages": [{"role": "user", "content": "once"}]}
    done = client.chat.completions.create(**fields, n=3)
    assert [c.message.content for c in done.choices] == ["one two"] * 3
    assert [request.get("n") for request in upstream.requests] == [3, 2, None]
    chunks = [*client.chat.completions.create(**fields, n=2, stream=True)]
    texts = ["", ""]
    for chunk in chunks:
        texts[chunk.choices[0].index] += chunk.choices[0].delta.content or ""
    assert texts == ["one two", "one two"]


def test_one_of_n_answers_that_fails_fails_the_request(raw):
    response = post(raw, model="dead", n=3)
    assert (response.status_code, response.json()["error"]["code"]) == (503, "expert_unavailable")


def test_a_remote_expert_draws_several_answers_in_one_call(raw, upstream):
    upstream.requests.clear()
    done = post(raw, "/v1/chat/completions", model="far", n=3, seed=5).json()
    (request,) = upstream.requests
    assert (request["n"], request["seed"]) == (3, 5)
    assert len(done["choices"]) == 3
    assert done["usage"]["prompt_tokens"] == 5


def test_sampling_reaches_the_expert(raw):
    done = post(raw, max_tokens=2).json()["choices"][0]
    assert (done["message"]["content"], done["finish_reason"]) == ("three little", "length")
    done = post(raw, max_completion_tokens=1, max_tokens=2).json()["choices"][0]
    assert done["message"]["content"] == "three"
    assert post(raw, stop="words").json()["choices"][0]["message"]["content"] == "three little "


def test_a_remote_expert_gets_what_we_do_not_read_untouched(raw, upstream):
    upstream.requests.clear()
    tools = [{"type": "function", "function": {"name": "weather", "parameters": {}}}]
    known = {
        "tools": tools,
        "tool_choice": "auto",
        "response_format": {"type": "json_object"},
        "metadata": {"a": "b"},
        "a_key_of_tomorrow": [1, {"x": None}],
    }
    post(raw, model="far", temperature=0.5, stop=["x", "y"], seed=3, **known)
    (request,) = upstream.requests
    assert {key: request[key] for key in known} == known
    assert (request["model"], request["temperature"]) == ("far-1", 0.5)
    assert (request["stop"], request["seed"]) == (["x", "y"], 3)


@pytest.mark.parametrize(
    "key", ["api_base", "base_url", "api_key", "extra_headers", "user_config", "API_BASE"]
)
def test_a_client_cannot_choose_the_upstream(raw, upstream, key):
    upstream.requests.clear()
    assert post(raw, model="far", **{key: "http://127.0.0.1:9/"}).status_code == 200
    (request,) = upstream.requests
    assert key not in request


def test_a_tool_call_passes_whole_and_in_pieces(client):
    messages = [{"role": "user", "content": "tool"}]
    done = client.chat.completions.create(model="far", messages=messages)
    (call,) = done.choices[0].message.tool_calls
    assert done.choices[0].message.content is None
    assert (call.function.name, call.function.arguments) == ("weather", '{"city": "Oslo"}')
    assert done.choices[0].finish_reason == "tool_calls"
    with client.chat.completions.stream(model="far", messages=messages) as stream:
        final = stream.get_final_completion()
    (call,) = final.choices[0].message.tool_calls
    assert (call.id, call.function.arguments) == ("call_1", '{"city": "Oslo"}')
    assert final.choices[0].finish_reason == "tool_calls"


def test_the_answer_to_a_tool_call_is_passed_on(client, upstream):
    upstream.requests.clear()
    messages = [
        {"role": "user", "content": "what is the weather?"},
        {
            "role": "assistant",
            "content": None,
            "tool_calls": [
                {
                    "id": "call_1",
                    "type": "function",
                    "function": {"name": "weather", "arguments": "{}"},
                }
            ],
        },
        {"role": "tool", "tool_call_id": "call_1", "content": "rain"},
    ]
    client.chat.completions.create(model="far", messages=messages)
    sent = upstream.requests[0]["messages"]
    assert sent[1]["tool_calls"] == messages[1]["tool_calls"]
    assert sent[2]["tool_call_id"] == "call_1"


def test_logprobs_have_openais_shape(client):
    done = client.chat.completions.create(
        model="far",
        messages=[{"role": "user", "content": "hi"}],
        logprobs=True,
        top_logprobs=2,
    )
    (entry,) = done.choices[0].logprobs.content
    assert (entry.token, entry.logprob, entry.bytes) == ("one", -0.5, list(b"one"))
    assert [(t.token, t.logprob) for t in entry.top_logprobs] == [("one", -0.5), ("other", -1.5)]


@pytest.mark.parametrize("model", ["cheap", "far"])
def test_a_streamed_chunk_has_the_logprobs_of_its_own_tokens(client, model):
    stream = client.chat.completions.create(
        **ask("one two", model=model, n=2), stream=True, logprobs=True
    )
    told = {0: [], 1: []}
    for chunk in stream:
        (choice,) = chunk.choices
        if choice.logprobs is not None:
            tokens = [entry.token for entry in choice.logprobs.content]
            assert "".join(tokens) == choice.delta.content
            told[choice.index] += tokens
        else:
            assert not choice.delta.content
    assert told == {0: ["one", " two"], 1: ["one", " two"]}


IMAGE = {"type": "image_url", "image_url": {"url": "data:image/png;base64,iVBORw0KGgo="}}


def test_a_turn_that_is_only_an_image_goes_to_experts_that_could_see_it(raw, upstream):
    upstream.requests.clear()
    body = {"model": "far", "messages": [{"role": "user", "content": [IMAGE]}]}
    assert raw.post("/v1/chat/completions", json=body).status_code == 200
    assert upstream.requests[0]["messages"] == body["messages"]
    refused = raw.post("/v1/chat/completions", json={**body, "model": "cheap"})
    assert (refused.status_code, refused.json()["error"]["code"]) == (400, "unsupported_parameter")
    assert "image_url" in refused.json()["error"]["message"]


def test_a_conversation_may_have_no_user_turn(client):
    messages = [{"role": "developer", "content": "say it"}]
    done = client.chat.completions.create(model="cheap", messages=messages)
    assert done.choices[0].message.content == "say it"


TOOLS = [{"type": "function", "function": {"name": "weather", "parameters": {}}}]


@pytest.mark.parametrize(
    ("fields", "word"),
    [
        ({"tools": TOOLS}, "tools"),
        ({"response_format": {"type": "json_object"}}, "writes no other format"),
        ({"a_key_of_tomorrow": 1}, "a_key_of_tomorrow"),
    ],
)
def test_an_expert_of_this_process_does_what_is_asked_or_refuses(raw, fields, word):
    error = post(raw, **fields).json()["error"]
    assert error["code"] == "unsupported_parameter"
    assert word in error["message"]


def test_a_composition_asks_an_expert_that_can(raw, upstream):
    upstream.requests.clear()
    answer = post(raw, model="mixed", tools=TOOLS)
    assert answer.headers["x-composer-expert"] == "far"
    assert upstream.requests[0]["tools"] == TOOLS


def test_no_tokens_may_be_asked_for(raw):
    choice = post(raw, max_tokens=0).json()["choices"][0]
    assert (choice["message"]["content"], choice["finish_reason"]) == ("", "length")


def test_retry_after_of_a_busy_expert_is_forwarded(client):
    with pytest.raises(openai.RateLimitError) as raised:
        client.chat.completions.create(
            model="far-busy", messages=[{"role": "user", "content": "busy"}]
        )
    headers = raised.value.response.headers
    assert (headers["retry-after"], headers["retry-after-ms"]) == ("7", "7000")
    assert headers["x-should-retry"] == "false"
    assert raised.value.code == "rate_limit_exceeded"


@pytest.mark.parametrize(
    ("text", "is_streamed"), [("hang", False), ("hang", True), ("stall", True)]
)
def test_a_client_that_hangs_up_ends_its_upstream_call(client, upstream, text, is_streamed):
    before = upstream.hung_up

    impatient = client.with_options(timeout=0.3)
    fields = {"model": "far", "messages": [{"role": "user", "content": text}]}
    with pytest.raises((openai.APITimeoutError, httpx.ReadTimeout)):
        list(impatient.chat.completions.create(**fields, stream=is_streamed))
    until(lambda: upstream.hung_up == before + 1, seconds=1.5)
    assert not upstream.waiting
