import base64

import numpy as np
import openai
import pytest

from experts_registry.backends.hashing import HashingEmbedder
from experts_registry.schema import ExpertSpec


def embedded(texts, role="passage"):
    spec = ExpertSpec(
        name="w", kind="retriever", backend="hashing", model="h", options={"dimensions": 16}
    )
    return HashingEmbedder(spec).embed(texts, role=role)


# -- embeddings ---------------------------------------------------------------------------------


def test_the_openai_client_gets_embeddings(client):
    done = client.embeddings.create(model="words", input=["one", "two"])
    assert [d.index for d in done.data] == [0, 1]
    np.testing.assert_array_equal(
        np.float32([d.embedding for d in done.data]), embedded(["one", "two"])
    )
    assert done.usage.prompt_tokens == done.usage.total_tokens == 2


def test_base64_is_little_endian_float32(raw):
    fields = {"model": "words", "input": "one"}
    floats = raw.post("/v1/embeddings", json=fields).json()
    coded = raw.post("/v1/embeddings", json={**fields, "encoding_format": "base64"}).json()
    decoded = np.frombuffer(base64.b64decode(coded["data"][0]["embedding"]), "<f4")
    np.testing.assert_array_equal(decoded, np.float32(floats["data"][0]["embedding"]))
    assert (floats["object"], floats["data"][0]["object"]) == ("list", "embedding")


@pytest.mark.parametrize(
    ("fields", "status", "code"),
    [
        ({"input": [1, 2, 3]}, 400, "unsupported_parameter"),
        ({"input": [[1, 2], [3]]}, 400, "unsupported_parameter"),
        ({"input": [[1], []]}, 400, "invalid_type"),
        ({"input": [1, "a"]}, 400, "invalid_type"),
        ({"input": []}, 400, "empty_array"),
        ({"input": ""}, 400, "invalid_value"),
        ({"input": None}, 400, "missing_required_parameter"),
        ({"input": ["x"] * 2049}, 400, "array_above_max_length"),
        ({"encoding_format": "hex"}, 400, "invalid_value"),
        ({"encoding_format": ""}, 400, "invalid_value"),
        ({"dimensions": 0}, 400, "integer_below_min_value"),
        ({"dimensions": 17}, 400, "unsupported_parameter"),
        ({"input_type": "song"}, 400, "invalid_value"),
        ({"model": "wrods"}, 404, "model_not_found"),
        ({"model": "cheap"}, 404, "model_not_found"),
    ],
)
def test_what_cannot_be_embedded_is_refused(raw, fields, status, code):
    response = raw.post("/v1/embeddings", json={"model": "words", "input": "x", **fields})
    assert (response.status_code, response.json()["error"]["code"]) == (status, code)


def test_the_retrievers_own_dimensions_may_be_said(raw):
    fields = {"model": "words", "input": "x", "dimensions": 16, "input_type": "query"}
    assert raw.post("/v1/embeddings", json=fields).status_code == 200


@pytest.mark.parametrize("dimensions", [1, 8, 5])
def test_fewer_dimensions_are_still_unit_vectors(client, dimensions):
    done = client.embeddings.create(model="words", input=["one", "two"], dimensions=dimensions)
    x = np.float32([d.embedding for d in done.data])
    assert x.shape == (2, dimensions)
    np.testing.assert_allclose(np.linalg.norm(x, axis=1), 1, rtol=1e-6)


def test_fewer_buckets_are_those_of_a_smaller_retriever(client):
    done = client.embeddings.create(model="words", input=["one", "two"], dimensions=8)
    whole = embedded(["one", "two"])
    folded = whole[:, :8] + whole[:, 8:]
    folded /= np.linalg.norm(folded, axis=1, keepdims=True)
    np.testing.assert_allclose(np.float32([d.embedding for d in done.data]), folded, rtol=1e-5)


# -- completions --------------------------------------------------------------------------------


def test_texts_are_completed(client):
    done = client.completions.create(model="cheap", prompt=["a b", "c"], n=2, echo=True)
    assert [c.text for c in done.choices] == ["a ba b", "a ba b", "cc", "cc"]
    assert [c.index for c in done.choices] == [0, 1, 2, 3]
    assert (done.object, done.usage.completion_tokens) == ("text_completion", 6)
    assert done.choices[0].logprobs is None


def test_a_text_completion_has_sixteen_tokens_by_default(client):
    done = client.completions.create(model="cheap", prompt="word " * 30)
    assert done.usage.completion_tokens == 16
    assert done.choices[0].finish_reason == "length"


def test_a_text_completion_streams(client):
    stream = client.completions.create(
        model="cheap", prompt="a b c", stream=True, stream_options={"include_usage": True}
    )
    *chunks, last = stream
    assert "".join(c.choices[0].text for c in chunks) == "a b c"
    assert [c.choices[0].finish_reason for c in chunks][-2:] == [None, "stop"]
    assert (last.choices, last.usage.total_tokens) == ([], 6)


def test_several_prompts_stream_side_by_side(client):
    stream = client.completions.create(
        model="cheap",
        prompt=["a b", "c d e"],
        n=2,
        echo=True,
        stream=True,
        stream_options={"include_usage": True},
    )
    *chunks, last = stream
    assert len({chunk.id for chunk in chunks}) == 1
    texts = dict.fromkeys(range(4), "")
    for chunk in chunks:
        texts[chunk.choices[0].index] += chunk.choices[0].text
    assert [*texts.values()] == ["a ba b", "a ba b", "c d ec d e", "c d ec d e"]
    assert [c.choices[0].finish_reason for c in chunks].count("stop") == 4
    assert (last.usage.prompt_tokens, last.usage.completion_tokens) == (5, 10)


def test_a_stream_of_empty_answers_ends_well(client):
    chunks = [
        *client.completions.create(model="cheap", prompt=["a", "b"], max_tokens=0, stream=True)
    ]
    assert [c.choices[0].finish_reason for c in chunks if c.choices[0].finish_reason] == [
        "length",
        "length",
    ]


@pytest.mark.parametrize("stream", [False, True])
def test_one_of_several_prompts_that_fails_fails_the_request(client, stream):
    with pytest.raises(openai.APIError):
        list(client.completions.create(model="dead", prompt=["a", "b"], stream=stream))


def test_text_logprobs_have_the_older_shape(client):
    done = client.completions.create(model="cheap", prompt="a b", logprobs=1, echo=True)
    told = done.choices[0].logprobs
    assert (told.tokens, told.token_logprobs) == (["a", " b"], [0.0, 0.0])
    assert told.top_logprobs == [{"a": 0.0}, {" b": 0.0}]
    assert [done.choices[0].text[offset:] for offset in told.text_offset] == ["a b", " b"]
    chunks = [*client.completions.create(model="cheap", prompt="a b", logprobs=0, stream=True)]
    found = [c.choices[0].logprobs for c in chunks if c.choices[0].logprobs]
    assert [(one.tokens, one.text_offset, one.top_logprobs) for one in found] == [
        (["a"], [0], None),
        ([" b"], [1], None),
    ]


def test_best_of_counts_all_that_were_drawn(client):
    done = client.completions.create(model="cheap", prompt="a b", best_of=5, n=2)
    assert [c.text for c in done.choices] == ["a b", "a b"]
    assert done.choices[0].logprobs is None
    assert done.usage.completion_tokens == 10


@pytest.mark.parametrize(
    ("fields", "code", "param"),
    [
        ({"prompt": [1, 2]}, "unsupported_parameter", "prompt"),
        ({"prompt": [[1], [2]]}, "unsupported_parameter", "prompt"),
        ({"model": "auto", "prompt": [1, 2]}, "unsupported_parameter", "prompt"),
        ({"model": "far", "prompt": [1, 2]}, "unsupported_parameter", "prompt"),
        ({"prompt": [[1], ["a"]]}, "invalid_type", "prompt"),
        ({"prompt": []}, "empty_array", "prompt"),
        ({"prompt": ""}, "invalid_value", "prompt"),
        ({"prompt": ["a"] * 129}, "array_above_max_length", "prompt"),
        ({"model": "far", "suffix": "x"}, "unsupported_parameter", "suffix"),
        ({"logprobs": 6}, "integer_above_max_value", "logprobs"),
        ({"best_of": 2, "n": 3}, "invalid_value", "best_of"),
        ({"best_of": 2, "stream": True}, "invalid_value", "best_of"),
        ({"best_of": 20, "prompt": ["a"] * 7}, "invalid_value", "best_of"),
        ({"n": 2, "prompt": ["a"] * 65}, "invalid_value", "n"),
    ],
)
def test_what_a_chat_of_one_turn_cannot_do_is_refused(client, fields, code, param):
    with pytest.raises(openai.BadRequestError) as raised:
        client.completions.create(**{"model": "cheap", "prompt": "x", **fields})
    assert (raised.value.code, raised.value.param) == (code, param)


def test_no_completion_is_kept(client):
    assert list(client.chat.completions.list()) == []
    done = client.chat.completions.create(
        model="cheap", messages=[{"role": "user", "content": "hello"}], store=True
    )
    with pytest.raises(openai.NotFoundError):
        client.chat.completions.retrieve(done.id)


# -- models, decisions, feedback, state ---------------------------------------------------------


def test_models_are_compositions_and_experts(client):
    listed = client.models.list().data
    assert [m.id for m in listed] == [
        "auto", "shaky", "mixed",
        "cheap", "lab/dear", "dead", "cut", "slow", "far", "far-busy", "words",
    ]  # fmt: skip
    for one in listed:
        assert client.models.retrieve(one.id) == one


def test_a_model_id_may_hold_a_slash(raw):
    for path in ("/v1/models/lab/dear", "/v1/models/lab%2Fdear"):
        assert raw.get(path).json() == {
            "id": "lab/dear", "object": "model", "created": 0, "owned_by": "echo",
            "kind": "llm",
        }  # fmt: skip


def test_an_unknown_model_is_not_found(client):
    with pytest.raises(openai.NotFoundError, match="'lab/daer'"):
        client.models.retrieve("lab/daer")


def test_a_route_says_why_and_asks_nobody(raw, upstream):
    upstream.requests.clear()
    messages = [{"role": "user", "content": "hello"}]
    told = raw.post("/v1/route", json={"model": "auto", "messages": messages}).json()
    assert told["experts"] == ["cheap"]
    assert [c["expert"] for c in told["candidates"]] == ["cheap", "lab/dear"]
    assert "no router is trained" in told["reason"]
    assert (told["model"], told["generation"]) == ("auto", 1)
    assert raw.post("/v1/route", json={"model": "far", "messages": messages}).is_success
    assert not upstream.requests


@pytest.mark.parametrize("stream", [False, True])
def test_feedback_names_an_answer_by_its_id(client, raw, stream):
    fields = {"model": "cheap", "messages": [{"role": "user", "content": "hello"}]}
    done = client.chat.completions.create(**fields, stream=stream)
    answer = [chunk.id for chunk in done].pop() if stream else done.id
    given = raw.post("/v1/feedback", json={"id": answer, "quality": 0.5}).json()
    assert (given["expert"], given["quality"]) == ("cheap", 0.5)
    assert given["id"] == answer.removeprefix("chatcmpl-")


@pytest.mark.parametrize(
    ("fields", "status", "code"),
    [
        ({"id": "chatcmpl-nobody", "quality": 1}, 404, "answer_not_found"),
        ({"quality": 1}, 400, "missing_required_parameter"),
        ({"id": "x", "quality": "good"}, 400, "invalid_type"),
        ({"id": 5, "quality": 1}, 400, "invalid_type"),
        ({"id": "chatcmpl-nobody", "quality": 1.1}, 400, "decimal_above_max_value"),
    ],
)
def test_feedback_that_cannot_be_taken_is_refused(raw, fields, status, code):
    response = raw.post("/v1/feedback", json=fields)
    assert (response.status_code, response.json()["error"]["code"]) == (status, code)


def test_quality_outside_its_range_is_refused(client, raw):
    fields = {"model": "cheap", "messages": [{"role": "user", "content": "hello"}]}
    answer = client.chat.completions.create(**fields).id
    response = raw.post("/v1/feedback", json={"id": answer, "quality": 2})
    assert response.status_code == 400


def test_health_needs_nothing(raw):
    assert raw.get("/health").json() == {"status": "ok"}
    assert raw.get("/health/ready").json() == {"status": "ready"}
    assert raw.head("/health").status_code == 200


def test_the_registry_in_force_is_told(raw):
    told = raw.get("/admin/registry").json()
    assert (told["generation"], told["last_reload"]) == (1, None)
    assert len(told["digest"]) == 64
    assert "far" in told["experts"]


def test_who_opens_the_server_in_a_browser_is_led_to_its_page(raw):
    answer = raw.get("/")
    assert (answer.status_code, answer.headers["location"]) == (307, "ui")
    assert raw.get("/", follow_redirects=True).headers["content-type"].startswith("text/html")
    assert raw.get("/other").json()["error"]["code"] == "unknown_url"
