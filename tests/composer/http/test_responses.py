import json

import pytest
from openai.types.responses import Response, ResponseStreamEvent
from pydantic import BaseModel, TypeAdapter

from composer.http.response_output import Output
from experts_registry.types import Chunk, Generation

WEATHER = {
    "type": "function",
    "name": "weather",
    "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
    "strict": True,
}
EVENT = TypeAdapter(ResponseStreamEvent)


def post(raw, **fields):
    return raw.post(
        "/v1/responses", json={"model": "cheap", "input": "three little words", **fields}
    )


def events(response):
    """Read typed events, each against the client's own model of it."""
    found = []
    for block in filter(None, response.text.split("\n\n")):
        name, data = block.split("\n")
        value = json.loads(data.removeprefix("data: "))
        assert name == f"event: {value['type']}"
        EVENT.validate_python(value)
        found.append(value)
    assert [event["sequence_number"] for event in found] == [*range(len(found))]
    return found


def test_the_openai_client_gets_a_response(client):
    done = client.responses.create(model="cheap", input="three little words")
    assert (done.output_text, done.status, done.model) == (
        "three little words", "completed", "cheap",
    )  # fmt: skip
    assert (done.usage.input_tokens, done.usage.output_tokens, done.usage.total_tokens) == (3, 3, 6)


def test_a_response_has_every_key_that_openai_promises(raw):
    done = post(raw, store=True, metadata={"a": "b"}, temperature=0.5).json()
    Response.model_validate(done)
    answer = done["id"].removeprefix("resp_")
    assert 1_700_000_000 < done.pop("created_at") <= done.pop("completed_at")
    text = {
        "type": "output_text", "text": "three little words", "annotations": [], "logprobs": [],
    }  # fmt: skip
    assert done == {
        "id": f"resp_{answer}",
        "object": "response",
        "status": "completed",
        "error": None,
        "incomplete_details": None,
        "model": "cheap",
        "output": [
            {
                "id": f"msg_{answer}",
                "type": "message",
                "role": "assistant",
                "status": "completed",
                "content": [text],
            }
        ],
        "instructions": None,
        "max_output_tokens": None,
        "max_tool_calls": None,
        "prompt_cache_key": None,
        "safety_identifier": None,
        "temperature": 0.5,
        "top_logprobs": None,
        "top_p": None,
        "user": None,
        "background": False,
        "metadata": {"a": "b"},
        "parallel_tool_calls": True,
        "previous_response_id": None,
        "reasoning": {"effort": None, "summary": None},
        "service_tier": None,
        "store": False,
        "text": {"format": {"type": "text"}},
        "tool_choice": "auto",
        "tools": [],
        "truncation": "disabled",
        "usage": {
            "input_tokens": 3,
            "input_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 0},
            "output_tokens": 3,
            "output_tokens_details": {"reasoning_tokens": 0},
            "total_tokens": 6,
        },
    }


def test_headers_and_the_decision_log_are_those_of_a_chat(raw):
    for stream in (False, True):
        headers = post(raw, model="shaky", stream=stream).headers
        told = {key: headers[f"x-composer-{key}"] for key in ("model", "expert", "attempts")}
        assert told == {"model": "shaky", "expert": "cheap", "attempts": "2"}


def test_an_answer_that_was_cut_off_is_incomplete(client):
    done = client.responses.create(model="cheap", input="three little words", max_output_tokens=2)
    assert (done.output_text, done.status) == ("three little", "incomplete")
    assert done.incomplete_details.reason == "max_output_tokens"
    assert done.output[0].status == "incomplete"


def test_a_stream_has_openais_events_in_their_order(raw):
    response = post(raw, stream=True)
    assert response.headers["content-type"].startswith("text/event-stream")
    assert "[DONE]" not in response.text
    found = events(response)
    assert [event["type"].removeprefix("response.") for event in found] == [
        "created", "in_progress", "output_item.added", "content_part.added",
        *["output_text.delta"] * 3,
        "output_text.done", "content_part.done", "output_item.done", "completed",
    ]  # fmt: skip
    assert "".join(e["delta"] for e in found if "delta" in e) == "three little words"
    assert found[0]["response"]["output"] == []
    last = found[-1]["response"]
    assert last["output"] == [found[-2]["item"]]
    assert last["usage"]["total_tokens"] == 6


@pytest.mark.parametrize(("model", "text"), [("cheap", "so it goes"), ("far", "tool")])
def test_a_stream_ends_with_what_a_whole_response_is(raw, model, text):
    def told(response):
        names = {"id", "created_at", "completed_at"}
        kept = {key: value for key, value in response.items() if key not in names}
        for item in kept["output"]:
            item.pop("id")
        return kept

    fields = {"model": model, "input": text, "max_output_tokens": 9}
    fields |= {"tools": [WEATHER]} if model == "far" else {}
    whole = post(raw, **fields).json()
    assert told(events(post(raw, **fields, stream=True))[-1]["response"]) == told(whole)


def test_a_cut_off_stream_ends_with_an_incomplete_response(raw):
    *_, last = events(post(raw, stream=True, max_output_tokens=1))
    assert last["type"] == "response.incomplete"
    assert last["response"]["incomplete_details"] == {"reason": "max_output_tokens"}


def test_the_clients_stream_puts_text_and_tool_calls_together(client):
    with client.responses.stream(model="cheap", input="a b c") as stream:
        assert stream.get_final_response().output_text == "a b c"
    with client.responses.stream(model="far", input="tool", tools=[WEATHER]) as stream:
        kinds = [event.type for event in stream]
        (call,) = stream.get_final_response().output
    assert (call.name, call.call_id, call.arguments) == ("weather", "call_1", '{"city": "Oslo"}')
    assert kinds[2:-1] == [
        "response.output_item.added",
        "response.function_call_arguments.delta",
        "response.function_call_arguments.done",
        "response.output_item.done",
    ]


def test_a_tool_is_called_and_its_result_goes_back(client, upstream):
    done = client.responses.create(
        model="far",
        input="tool",
        tools=[WEATHER],
        tool_choice={"type": "function", "name": "weather"},
        parallel_tool_calls=False,
    )
    (call,) = done.output
    assert (call.type, call.arguments) == ("function_call", '{"city": "Oslo"}')
    sent = upstream.requests[-1]
    assert sent["tools"] == [
        {"type": "function", "function": {k: v for k, v in WEATHER.items() if k != "type"}}
    ]
    assert sent["tool_choice"] == {"type": "function", "function": {"name": "weather"}}
    assert sent["parallel_tool_calls"] is False
    history = [{"role": "user", "content": "what is the weather?"}, *done.output]
    result = {"type": "function_call_output", "call_id": call.call_id, "output": "rain"}
    last = client.responses.create(model="far", input=[*history, result], tools=[WEATHER])
    assert last.output_text == "one two"
    assert upstream.requests[-1]["messages"] == [
        {"role": "user", "content": "what is the weather?"},
        {
            "role": "assistant",
            "content": "",
            "tool_calls": [
                {
                    "id": "call_1",
                    "type": "function",
                    "function": {"name": "weather", "arguments": '{"city": "Oslo"}'},
                }
            ],
        },
        {"role": "tool", "tool_call_id": "call_1", "content": "rain"},
    ]


def test_items_become_the_messages_of_a_chat(raw, upstream):
    call = {"type": "function_call", "name": "f", "arguments": "{}"}
    output = {"type": "function_call_output", "output": [{"type": "input_text", "text": "yes"}]}
    image = {"type": "input_image", "image_url": "data:image/png;base64,AA==", "detail": "low"}
    items = [
        {"role": "developer", "content": "be kind"},
        {"role": "user", "content": [{"type": "input_text", "text": "look"}, image]},
        {"type": "reasoning", "id": "rs_1", "summary": []},
        {"role": "assistant", "content": [{"type": "output_text", "text": "I call"}]},
        {**call, "call_id": "1"},
        {**call, "call_id": "2"},
        {**output, "call_id": "1"},
        {**output, "call_id": "2"},
        {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "so?"}]},
    ]
    assert post(raw, model="far", input=items, instructions="be brief").status_code == 200
    function = {"type": "function", "function": {"name": "f", "arguments": "{}"}}
    assert upstream.requests[-1]["messages"] == [
        {"role": "system", "content": "be brief"},
        {"role": "system", "content": "be kind"},
        {
            "role": "user",
            "content": [
                {"type": "text", "text": "look"},
                {"type": "image_url", "image_url": {"url": image["image_url"], "detail": "low"}},
            ],
        },
        {
            "role": "assistant",
            "content": "I call",
            "tool_calls": [{**function, "id": "1"}, {**function, "id": "2"}],
        },
        {"role": "tool", "tool_call_id": "1", "content": "yes"},
        {"role": "tool", "tool_call_id": "2", "content": "yes"},
        {"role": "user", "content": "so?"},
    ]


def test_settings_reach_a_remote_expert_in_the_words_of_a_chat(raw, upstream):
    schema = {"name": "city", "schema": {"type": "object"}, "strict": True}
    fields = {
        "max_output_tokens": 7, "temperature": 0.5, "top_p": 0.9, "user": "ann", "top_k": 3,
        "reasoning": {"effort": "low", "summary": "auto"}, "metadata": {"a": "b"}, "store": True,
        "text": {"format": {"type": "json_schema", **schema}, "verbosity": "low"},
        "tool_choice": "auto", "truncation": "auto", "include": ["reasoning.encrypted_content"],
        "api_base": "http://127.0.0.1:9/", "max_tool_calls": 2,
    }  # fmt: skip
    assert post(raw, model="far", **fields).status_code == 200
    sent = upstream.requests[-1]
    sent.pop("messages")
    assert sent == {
        "model": "far-1", "stream": False, "max_tokens": 7, "temperature": 0.5, "top_p": 0.9,
        "user": "ann", "top_k": 3, "reasoning_effort": "low", "verbosity": "low",
        "response_format": {"type": "json_schema", "json_schema": schema},
    }  # fmt: skip


def test_a_format_is_parsed_by_the_client(client, upstream):
    class City(BaseModel):
        name: str

    with pytest.raises(ValueError, match="City"):  # the upstream answers with text all the same
        client.responses.parse(model="far", input="which?", text_format=City)
    sent = upstream.requests[-1]["response_format"]
    assert (sent["type"], sent["json_schema"]["name"]) == ("json_schema", "City")
    assert sent["json_schema"]["schema"]["properties"]["name"]["type"] == "string"


def test_logprobs_come_where_they_are_included(client):
    done = client.responses.create(
        model="far", input="hi", include=["message.output_text.logprobs"]
    )
    (entry,) = done.output[0].content[0].logprobs
    assert (entry.token, entry.logprob, entry.bytes) == ("one", -0.5, list(b"one"))


def test_feedback_names_a_response_by_its_id(client, raw):
    done = client.responses.create(model="cheap", input="hello")
    given = raw.post("/v1/feedback", json={"id": done.id, "quality": 0.5}).json()
    assert (given["expert"], given["id"]) == ("cheap", done.id.removeprefix("resp_"))


@pytest.mark.parametrize(
    ("fields", "status", "code", "param"),
    [
        ({"input": None}, 400, "missing_required_parameter", "input"),
        ({"input": []}, 400, "empty_array", "input"),
        ({"input": ""}, 400, "invalid_value", "input"),
        ({"input": 5}, 400, "invalid_type", "input"),
        ({"input": ["x"]}, 400, "invalid_type", "input[0]"),
        ({"input": [{"role": "robot", "content": "x"}]}, 400, "invalid_value", "input[0].role"),
        ({"input": [{"role": "user"}]}, 400, "invalid_type", "input[0].content"),
        (
            {"input": [{"role": "user", "content": [{"type": "input_file", "file_id": "f"}]}]},
            400, "unsupported_parameter", "input[0].content[0]",
        ),
        ({"input": [{"type": "item_reference", "id": "x"}]}, 400, "unsupported_value", "input[0]"),
        (
            {"input": [{"type": "function_call", "name": "f", "arguments": "{}"}]},
            400, "missing_required_parameter", "input[0].call_id",
        ),
        ({"instructions": 3}, 400, "invalid_type", "instructions"),
        ({"model": None}, 400, "missing_required_parameter", "model"),
        ({"model": "cheep"}, 404, "model_not_found", None),
        ({"max_output_tokens": 0}, 400, "integer_below_min_value", "max_output_tokens"),
        ({"temperature": 3}, 400, "decimal_above_max_value", "temperature"),
        ({"previous_response_id": "resp_1"}, 400, "unsupported_parameter", "previous_response_id"),
        ({"conversation": "c"}, 400, "unsupported_parameter", "conversation"),
        ({"prompt": {"id": "p"}}, 400, "unsupported_parameter", "prompt"),
        ({"background": True}, 400, "unsupported_parameter", "background"),
        ({"input": [{"type": {}, "role": "user"}]}, 400, "unsupported_value", "input[0]"),
        ({"tools": False}, 400, "invalid_type", "tools"),
        ({"tools": [{"type": "web_search"}]}, 400, "unsupported_parameter", "tools[0]"),
        ({"tools": [{"type": "function"}]}, 400, "missing_required_parameter", "tools[0].name"),
        ({"tools": [WEATHER], "tool_choice": "any"}, 400, "unsupported_value", "tool_choice"),
        ({"text": {"format": {"type": "xml"}}}, 400, "invalid_value", "text.format"),
        ({"text": "json"}, 400, "invalid_type", "text"),
        ({"metadata": {"a": 1}}, 400, "invalid_type", "metadata.a"),
        ({"store": "no"}, 400, "invalid_type", "store"),
        ({"user": 3}, 400, "invalid_type", "user"),
        ({"max_tool_calls": "x"}, 400, "invalid_type", "max_tool_calls"),
        ({"tool_choice": ["x"]}, 400, "unsupported_value", "tool_choice"),
        ({"parallel_tool_calls": "x"}, 400, "invalid_type", "parallel_tool_calls"),
        ({"include": "x"}, 400, "invalid_type", "include"),
    ],
)  # fmt: skip
def test_what_is_wrong_or_not_there_is_refused(raw, fields, status, code, param):
    response = post(raw, **fields)
    error = response.json()["error"]
    assert (response.status_code, error["code"], error["param"]) == (status, code, param)


def test_a_failure_before_the_first_byte_of_a_stream_is_a_plain_error(raw):
    response = post(raw, model="dead", stream=True)
    assert (response.status_code, response.json()["error"]["code"]) == (503, "expert_unavailable")


def test_a_failure_after_the_first_byte_is_a_failed_response(raw, client):
    response = post(raw, model="cut", stream=True)
    assert response.status_code == 200
    last = events(response)[-1]
    assert last["type"] == "response.failed"
    assert last["response"]["status"] == "failed"
    assert last["response"]["error"]["code"] == "server_error"
    stream = client.responses.create(model="cut", input="one two three", stream=True)
    assert [event.type for event in stream][-1] == "response.failed"


# -- what servers send in pieces ----------------------------------------------------------------


def kinds(events):
    return [kind.removeprefix("response.") for kind, _ in events]


def call(index, **function):
    return {"index": index, "id": f"call_{index}", "function": function}


def test_calls_may_grow_side_by_side_and_after_a_text():
    output = Output("x")
    found = output.add(Chunk("I look"))
    found += output.add(Chunk("", extra={"tool_calls": [call(0, name="f"), call(1, name="g")]}))
    for index, text in ((0, "{"), (1, "[]"), (0, "}")):
        extra = {"tool_calls": [{"index": index, "function": {"arguments": text}}]}
        found += output.add(Chunk("", extra=extra))
    found += output.end(Generation(text="I look", finish_reason="tool_calls"))
    assert [i.get("arguments", i.get("content")) for i in output.json()][1:] == ["{}", "[]"]
    assert kinds(found)[3:6] == ["output_text.done", "content_part.done", "output_item.done"]
    assert kinds(found)[-4:] == ["function_call_arguments.done", "output_item.done"] * 2
    assert [i["status"] for i in output.json()] == ["completed"] * 3


def test_calls_of_a_server_that_does_not_count_are_told_apart_by_their_ids():
    output = Output("x")
    for fragment in (
        {"id": "a", "function": {"name": "f", "arguments": "1"}},
        {"function": {"arguments": "2"}},
        {"id": "b", "function": {"name": "g", "arguments": "3"}},
    ):
        output.add(Chunk("", extra={"tool_calls": [fragment]}))
    assert [(i["call_id"], i["arguments"]) for i in output.json()] == [("a", "12"), ("b", "3")]


def test_a_refusal_is_a_part_of_its_own_kind():
    output = Output("x")
    found = output.add(Chunk("", extra={"refusal": "I will"}))
    found += output.add(Chunk("", extra={"refusal": " not"}))
    found += output.end(Generation(text=""))
    assert output.json()[0]["content"] == [{"type": "refusal", "refusal": "I will not"}]
    assert kinds(found)[2:5] == ["refusal.delta", "refusal.delta", "refusal.done"]
    whole = Output.of("x", Generation(text="", extra={"refusal": "I will not"}))
    assert whole.json() == output.json()


@pytest.mark.parametrize("key", ["reasoning_content", "reasoning"])
def test_what_an_expert_tells_of_its_reasoning_is_an_item(key):
    output = Output("x")
    found = output.add(Chunk("", extra={key: "Hm,"})) + output.add(Chunk("", extra={key: " so"}))
    found += output.add(Chunk("Yes"))
    found += output.end(Generation(text="Yes"))
    for number, (kind, fields) in enumerate(found):
        EVENT.validate_python({"type": kind, "sequence_number": number, **fields})
    reasoning, message = output.json()
    assert reasoning["content"] == [{"type": "reasoning_text", "text": "Hm, so"}]
    assert (reasoning["type"], message["content"][0]["text"]) == ("reasoning", "Yes")
    assert kinds(found)[2:7] == [
        *["reasoning_text.delta"] * 2,
        "reasoning_text.done", "content_part.done", "output_item.done",
    ]  # fmt: skip
    assert Output.of("x", Generation(text="Yes", extra={key: "Hm, so"})).json() == output.json()


def test_an_answer_of_nothing_is_an_empty_message():
    (item,) = Output.of("x", Generation(text="")).json()
    assert item["content"][0]["text"] == ""
