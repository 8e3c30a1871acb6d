"""OpenAI's fields with a model that runs in the server itself."""

import json
import math

import httpx
import openai
import pytest

from composer.http.app import create_app
from tests.composer.http.servers import running
from tests.experts_registry.backends.conftest import bert, llama, tokenizer  # noqa: F401

REGISTRY = """\
version: 1
experts:
  - {name: tiny, kind: llm, backend: transformers, model: "path:LLAMA"}
  - {name: vectors, kind: retriever, backend: sentence_transformers, model: "path:BERT",
     options: {matryoshka: true}}
  - {name: whole, kind: retriever, backend: sentence_transformers, model: "path:BERT"}
"""


@pytest.fixture(scope="module")
def client(tmp_path_factory, llama, bert):  # noqa: F811
    path = tmp_path_factory.mktemp("tiny") / "experts.yaml"
    path.write_text(REGISTRY.replace("LLAMA", str(llama)).replace("BERT", str(bert)))
    http = httpx.Client(trust_env=False, timeout=120)
    with (
        running(create_app(path)) as url,
        openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0, http_client=http) as one,
    ):
        yield one


def ask(text="Paris?", **fields):
    messages = [{"role": "user", "content": text}]
    return {"model": "tiny", "messages": messages, "max_tokens": 12, **fields}


def test_a_stream_of_several_answers_is_what_is_given_whole(client):
    fields = ask(n=2, seed=1, temperature=1.0, logprobs=True, top_logprobs=2)
    whole = client.chat.completions.create(**fields).choices
    texts, tokens = ["", ""], [[], []]
    for chunk in client.chat.completions.create(**fields, stream=True):
        (choice,) = chunk.choices
        texts[choice.index] += choice.delta.content or ""
        if choice.logprobs:
            tokens[choice.index] += [entry.token for entry in choice.logprobs.content]
    assert texts == [choice.message.content for choice in whole]
    assert tokens == [[entry.token for entry in choice.logprobs.content] for choice in whole]
    assert texts[0] != texts[1]


def test_a_json_schema_is_kept_to(client):
    schema = {
        "type": "object",
        "properties": {"answer": {"enum": ["yes", "no"]}},
        "required": ["answer"],
        "additionalProperties": False,
    }
    wanted = {"type": "json_schema", "json_schema": {"name": "reply", "schema": schema}}
    done = client.chat.completions.create(
        **ask(response_format=wanted, max_tokens=60, temperature=2.0, seed=2)
    )
    assert json.loads(done.choices[0].message.content)["answer"] in ("yes", "no")


def test_tools_and_formats_that_cannot_be_kept_to_are_refused(client):
    tools = [{"type": "function", "function": {"name": "f", "parameters": {}}}]
    odd = {"type": "json_schema", "json_schema": {"name": "x", "schema": {"not": {}}}}
    for fields in ({"tools": tools}, {"response_format": odd}):
        with pytest.raises(openai.BadRequestError) as raised:
            client.chat.completions.create(**ask(**fields))
        assert raised.value.code == "unsupported_parameter"


def test_the_best_of_several_is_the_likeliest(client):
    fields = {"model": "tiny", "prompt": "Paris?", "max_tokens": 6, "temperature": 1.5, "seed": 3}
    drawn = client.completions.create(**fields, n=4, logprobs=0).choices
    means = [math.fsum(c.logprobs.token_logprobs) / len(c.logprobs.tokens) for c in drawn]
    best = client.completions.create(**fields, best_of=4).choices
    assert [c.text for c in best] == [drawn[means.index(max(means))].text]


def test_a_prompt_of_tokens_is_the_text_that_they_stand_for(client, tokenizer):  # noqa: F811
    texts = ["the capital", "Paris?"]
    tokens = [tokenizer.encode(text) for text in texts]
    fields = {"model": "tiny", "max_tokens": 6, "echo": True}
    assert (
        client.completions.create(prompt=tokens, **fields).choices
        == client.completions.create(prompt=texts, **fields).choices
    )
    assert (
        client.completions.create(prompt=tokens[0], **fields)
        .choices[0]
        .text.startswith("the capital")
    )
    with pytest.raises(openai.BadRequestError, match="is no token id"):
        client.completions.create(prompt=[10**6], **fields)


def test_tokens_are_embedded_as_their_text_and_shortened_where_a_model_allows_it(client):
    text = client.embeddings.create(model="vectors", input="capital paris").data[0].embedding
    made = client.embeddings.create(model="vectors", input=[5, 9])
    assert made.usage.prompt_tokens == 2
    assert len(made.data[0].embedding) == len(text)
    short = client.embeddings.create(model="vectors", input="capital paris", dimensions=4)
    norm = math.sqrt(math.fsum(v * v for v in text[:4]))
    assert short.data[0].embedding == pytest.approx([v / norm for v in text[:4]], rel=1e-4)
    with pytest.raises(openai.BadRequestError, match="matryoshka"):
        client.embeddings.create(model="whole", input="capital", dimensions=4)
