"""Passages over HTTP: /v1/retrieve, the key ``retrieval``, and keys that may not read a store."""

import json
from contextlib import closing

import httpx
import openai
import pytest

from composer.estimates import most_read
from composer.http.app import create_app
from composer.key_store import KeyStore
from experts_registry.registry import Registry
from experts_registry.types import Prompt
from tests.composer.http.servers import running
from tests.composer.libraries import FACTS, REGISTRY, library
from tests.composer.test_retrieval_real import build, write

CANTEEN = "When does the canteen open?"
MORE = (
    "  - {name: never, experts: [echo], retrieval: {store: handbook, when: never}}\n"
    "  - {name: cramped, experts: [tiny], retrieval: {store: handbook, when: always}}\n"
)
UNBUILT = (
    "  - {name: unbuilt, passages: handbook.jsonl, retrievers: [words]}\n"
    "  - {name: retired, passages: handbook.jsonl, retrievers: [off]}\n"
)
MORE_EXPERTS = (
    "  - {name: off, kind: retriever, backend: hashing, model: hashing, enabled: false}\n"
    "  - {name: tiny, kind: llm, backend: echo, model: echo, context_window: 300}\n"
)


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    folder = tmp_path_factory.mktemp("retrieve")
    text = REGISTRY.replace("EXPERTS", MORE_EXPERTS).replace("COMPOSITIONS", MORE)
    file = folder / "experts.yaml"
    file.write_text(text.replace("compositions:", UNBUILT + "compositions:"))
    for name, texts in FACTS.items():
        write(folder, name, texts)
    build(Registry.load(file), *FACTS)
    return file


@pytest.fixture(scope="module")
def url(path):
    with running(create_app(path)) as url:
        yield url


def chat(raw, **fields):
    body = {"model": "grounded", "messages": [{"role": "user", "content": CANTEEN}], **fields}
    return raw.post("/v1/chat/completions", json=body)


def test_passages_come_with_their_places_and_who_found_them(raw):
    done = raw.post("/v1/retrieve", json={"query": CANTEEN, "store": "handbook", "k": 2})
    told = done.json()
    first, second = told["data"]
    assert first["text"] == FACTS["handbook"][1]
    assert (first["object"], first["index"], second["index"]) == ("passage", 1, 2)
    assert (first["store"], first["retrievers"]) == ("handbook", ["words"])
    assert first["end"] - first["start"] == len(first["text"])
    assert first["score"] > second["score"]
    assert told["store"] == "handbook"
    assert told["decision"]["experts"] == ["words"]
    assert done.headers["x-composer-expert"] == "words"


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        ({}, 400, "missing_required_parameter"),
        ({"query": " "}, 400, "invalid_value"),
        ({"query": CANTEEN}, 400, "missing_required_parameter"),  # of several stores
        ({"query": CANTEEN, "store": "handbok"}, 404, "store_not_found"),
        ({"query": CANTEEN, "store": "handbook", "k": 0}, 400, "integer_below_min_value"),
        ({"query": CANTEEN, "store": "handbook", "k": 101}, 400, "integer_above_max_value"),
        ({"query": CANTEEN, "store": "handbook", "retriever": "wrds"}, 404, "model_not_found"),
        ({"query": CANTEEN, "store": "unbuilt"}, 503, "overloaded"),
        ({"query": CANTEEN, "store": "retired"}, 503, "overloaded"),
    ],
)
def test_what_cannot_be_retrieved_is_told(raw, path, body, status, code):
    done = raw.post("/v1/retrieve", json=body)
    assert (done.status_code, done.json()["error"]["code"]) == (status, code)
    assert str(path.parent) not in done.text


def test_an_answer_tells_its_passages_and_where_it_cites_them(raw):
    done = chat(raw)
    told = done.json()["retrieval"]
    assert told["store"] == done.headers["x-composer-retrieval"] == "handbook"
    assert [p["index"] for p in told["passages"]] == [1, 2]
    text = done.json()["choices"][0]["message"]["content"]  # an echo: marks and all
    assert {c["passage"] for c in told["citations"]} == {1, 2}
    for cited in told["citations"]:
        assert text[cited["start"] : cited["end"]] == f"[{cited['passage']}]"


@pytest.mark.parametrize(
    ("model", "retrieval", "store"),
    [
        ("grounded", "never", "none"),
        ("never", None, "none"),
        ("never", "always", "handbook"),
        ("either", {"store": "manual"}, "manual"),
        ("either", {"mode": "always", "store": ["manual"]}, "manual"),
        ("plain", "never", None),
        ("cramped", None, "none"),  # no passage fits its window
    ],
)
def test_a_request_says_whether_and_from_where(raw, model, retrieval, store):
    done = chat(raw, model=model, retrieval=retrieval)
    assert done.status_code == 200, done.text
    assert done.headers.get("x-composer-retrieval") == store


@pytest.mark.parametrize(
    ("retrieval", "status"),
    [
        ("maybe", 400),
        (3, 400),
        ({"mode": "maybe"}, 400),
        ({"moed": "never"}, 400),
        ({"store": 3}, 400),
        ({"store": []}, 400),
        ({"store": "no"}, 404),
    ],
)
def test_a_wrong_wish_is_refused(raw, retrieval, status):
    done = chat(raw, retrieval=retrieval)
    assert done.status_code == status
    assert done.json()["error"]["param"].startswith("retrieval")


def test_passages_are_wanted_of_a_model_without_a_store(raw):
    assert chat(raw, model="plain", retrieval="always").status_code == 400


def test_a_stream_ends_with_its_passages(client):
    stream = client.chat.completions.create(
        model="grounded",
        messages=[{"role": "user", "content": CANTEEN}],
        stream=True,
        extra_body={"retrieval": "always"},
    )
    told = [chunk.retrieval for chunk in stream if getattr(chunk, "retrieval", None)]
    assert len(told) == 1
    assert told[0]["passages"][0]["text"] == FACTS["handbook"][1]


def test_responses_tell_passages_too(client):
    done = client.responses.create(model="grounded", input=CANTEEN)
    assert done.retrieval["store"] == "handbook"


def test_routing_says_what_would_be_retrieved(raw):
    body = {"model": "grounded", "messages": [{"role": "user", "content": CANTEEN}]}
    told = raw.post("/v1/route", json=body).json()["retrieval"]
    assert (told["store"], told["stage"]) == ("handbook", "file")
    assert told["found"][0]["id"] == "handbook-1"


def test_a_key_reads_its_stores_alone(path, tmp_path):
    text = path.read_text() + f"keys: {tmp_path / 'keys.db'}\ndecisions: {tmp_path / 'log.db'}\n"
    file = path.with_name("keyed.yaml")
    file.write_text(text)
    with closing(KeyStore(tmp_path / "keys.db")) as keys:
        token = keys.create("m", stores=["manual"]).token
    auth = {"authorization": f"Bearer {token}"}
    with (
        running(create_app(file)) as url,
        httpx.Client(base_url=url, headers=auth, timeout=20, trust_env=False) as raw,
    ):
        only = raw.post("/v1/retrieve", json={"query": CANTEEN})
        assert only.json()["store"] == "manual"  # the only one that it may read
        for store in ("handbook", "nowhere"):  # whether it exists is nobody's business
            refused = raw.post("/v1/retrieve", json={"query": CANTEEN, "store": store})
            assert (refused.status_code, refused.json()["error"]["code"]) == (
                403,
                "permission_denied",
            )
            refused = chat(raw, retrieval={"store": store})
            assert refused.status_code == 403
        assert FACTS["handbook"][1] not in chat(raw).text
        assert chat(raw, model="either").headers["x-composer-retrieval"] == "manual"


def test_a_draft_that_a_gate_may_ask_for_is_set_aside_too(path, tmp_path):
    gated = "  - {name: gated, experts: [echo], retrieval: {store: handbook, k: 2, gate: gate}}\n"
    file = path.with_name("gated.yaml")
    file.write_text(f"{path.read_text()}{gated}keys: {tmp_path / 'keys.db'}\n")
    with library() as composer:
        without = most_read(Prompt.of(CANTEEN)) + 5 + composer.most_passages("grounded")
    with closing(KeyStore(tmp_path / "keys.db")) as keys:
        tokens = {model: keys.create(model, tpm=without).token for model in ("grounded", "gated")}
    with running(create_app(file)) as url, httpx.Client(base_url=url, trust_env=False) as raw:
        status = {}
        for model, token in tokens.items():
            raw.headers["authorization"] = f"Bearer {token}"
            status[model] = chat(raw, model=model, max_tokens=5).status_code
    assert status == {"grounded": 200, "gated": 429}


def test_openai_clients_read_passages(client):
    with pytest.raises(openai.NotFoundError):
        client.post("/retrieve", body={"query": CANTEEN, "store": "no"}, cast_to=object)
    done = client.post(
        "/retrieve", body={"query": CANTEEN, "store": "handbook"}, cast_to=httpx.Response
    )
    assert json.loads(done.text)["object"] == "list"
