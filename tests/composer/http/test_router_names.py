"""Routers as model names over HTTP: listed, asked, and within a key's models."""

import httpx
import pytest

from composer.http.app import create_app
from composer.key_store import KeyStore
from routers.pairwise import PairwiseRouter
from routers.testing import HashingEncoder, synthetic_outcomes
from tests.composer.http.servers import running

FILE = """\
version: 1
experts:
  - {name: expert-0, kind: llm, backend: echo, model: echo}
  - {name: expert-1, kind: llm, backend: echo, model: echo}
  - {name: words, kind: retriever, backend: hashing, model: hashing,
     options: {dimensions: 64, longest: 3}}
compositions:
  - {name: auto, experts: [expert-0, expert-1], router: routers/pairwise}
  - {name: later, router: routers/untrained}
"""
MESSAGES = [{"role": "user", "content": "hello"}]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("routers")
    data = synthetic_outcomes(5, n=100, experts=2, categories=2)
    router = PairwiseRouter(encoder=HashingEncoder(64)).fit(data)
    router.save(folder / "routers" / "pairwise")
    (folder / "experts.yaml").write_text(FILE)
    return folder


@pytest.fixture(scope="module")
def store(folder):
    store = KeyStore(folder / "keys.db")
    store.create("first")
    yield store
    store.close()


@pytest.fixture(scope="module")
def url(folder, store):
    with running(create_app(folder / "experts.yaml")) as url:
        yield url


@pytest.fixture
def door(url, store):
    clients = []

    def made(*models):
        headers = {"authorization": f"Bearer {store.create('x', models=models).token}"}
        clients.append(httpx.Client(base_url=url, headers=headers, timeout=20, trust_env=False))
        return clients[-1]

    yield made
    for client in clients:
        client.close()


@pytest.mark.parametrize(
    ("path", "fields"),
    [
        ("/v1/chat/completions", {"messages": MESSAGES}),
        ("/v1/chat/completions", {"messages": MESSAGES, "stream": True}),
        ("/v1/completions", {"prompt": "hello"}),
        ("/v1/responses", {"input": "hello"}),
    ],
)
def test_a_router_answers_by_its_name(door, path, fields):
    for model in ("router:pairwise@0.5", "router-pairwise-0.5"):
        response = door().post(path, json={"model": model, **fields})
        assert response.status_code == 200, response.text
        assert response.headers["x-composer-model"] == "router:pairwise@0.5"
        assert response.headers["x-composer-router"] == "pairwise"
        assert response.headers["x-composer-expert"] in ("expert-0", "expert-1")


def test_a_route_by_name_says_why(door):
    fields = {"model": "router:pairwise@0", "messages": MESSAGES}
    assert "probability" in door().post("/v1/route", json=fields).json()["reason"]


def test_a_wrong_threshold_is_the_clients_mistake(door):
    fields = {"model": "router:pairwise@7", "messages": MESSAGES}
    response = door().post("/v1/chat/completions", json=fields)
    assert (response.status_code, response.json()["error"]["code"]) == (400, "invalid_value")


@pytest.mark.parametrize(
    ("models", "asked", "status"),
    [
        (("auto", "expert-0", "expert-1"), "router:pairwise@0", 403),
        (("auto",), "router:pairwise", 403),
        (("auto",), "router-pairwise-0.5", 403),
        (("auto",), "router:nobody", 403),
        (("router:pairwise",), "router:pairwise", 200),
        (("router:pairwise",), "router:pairwise@0.7", 200),
        (("router:pairwise",), "router-pairwise-0.7", 200),
        (("router:pairwise",), "auto", 403),
        (("router:pairwise",), "expert-0", 403),
        (("router:pairwise@0.7",), "router:pairwise@0.70", 200),
        (("router:pairwise@0.7",), "router-pairwise-.7", 200),
        (("router:pairwise@0.7",), "router:pairwise@0.6", 403),
        (("router:pairwise@0.7",), "router:pairwise", 403),
    ],
)
def test_a_key_asks_routers_only_within_its_models(door, models, asked, status):
    client = door(*models)
    for path in ("/v1/chat/completions", "/v1/route"):
        response = client.post(path, json={"model": asked, "messages": MESSAGES})
        assert response.status_code == status, response.text
    assert client.get(f"/v1/models/{asked}").status_code == (200 if status == 200 else 404)


def test_routers_are_listed_to_those_who_may_ask(door):
    def listed(*models):
        return [model["id"] for model in door(*models).get("/v1/models").json()["data"]]

    assert listed() == ["auto", "later", "router:pairwise", "expert-0", "expert-1", "words"]
    assert listed("auto") == ["auto"]
    assert listed("router:pairwise@0.5") == ["router:pairwise@0.5"]
    told = door().get("/v1/models/router:pairwise@0.5").json()
    assert told == {
        "id": "router:pairwise@0.5", "object": "model", "created": 0,
        "owned_by": "expert-composer", "kind": "router",
    }  # fmt: skip
