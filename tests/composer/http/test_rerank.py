import sys

import httpx
import numpy as np
import pytest

from composer.http.app import create_app
from composer.key_store import KeyStore
from experts_registry.backends.hashing import HashingEmbedder
from experts_registry.schema import ExpertSpec
from tests.composer.http.servers import running

QUERY = "the weather in Oslo"
DOCUMENTS = ["bread and butter", "weather in Oslo today", "Oslo", "the weather"]


def cosines():
    spec = ExpertSpec(
        name="w", kind="retriever", backend="hashing", model="h", options={"dimensions": 16}
    )
    embedder = HashingEmbedder(spec)
    x = embedder.embed(DOCUMENTS, role="passage")
    return x @ embedder.embed([QUERY], role="query")[0]


def post(raw, path="/v1/rerank", **fields):
    return raw.post(path, json={"model": "words", "query": QUERY, "documents": DOCUMENTS, **fields})


@pytest.mark.parametrize("path", ["/v1/rerank", "/v2/rerank"])
def test_documents_are_ordered_by_their_cosine_with_the_query(raw, path):
    response = post(raw, path)
    done = response.json()
    expected = cosines()
    assert [result["index"] for result in done["results"]] == np.argsort(-expected).tolist()
    for result in done["results"]:
        assert set(result) == {"index", "relevance_score"}
        assert result["relevance_score"] == pytest.approx(expected[result["index"]], abs=1e-6)
    assert done["id"].startswith("rerank-")
    assert done["model"] == response.headers["x-composer-expert"] == "words"
    tokens = done["usage"]["total_tokens"]
    assert tokens == done["usage"]["prompt_tokens"] == done["meta"]["tokens"]["input_tokens"] > 0
    assert done["meta"]["billed_units"] == {"search_units": 1}


def test_the_best_come_with_their_documents_where_asked(raw):
    documents = [DOCUMENTS[0], {"text": DOCUMENTS[1], "id": 7}, {"text": DOCUMENTS[2]}]
    done = post(raw, documents=documents, top_n=2, return_documents=True).json()["results"]
    assert len(done) == 2
    given = [{"text": DOCUMENTS[0]}, *documents[1:]]
    assert [result["document"] for result in done] == [given[result["index"]] for result in done]
    assert len(post(raw, top_n=100).json()["results"]) == 4


def test_equal_documents_keep_their_order(raw):
    done = post(raw, documents=["same", "same", "same"]).json()["results"]
    assert [result["index"] for result in done] == [0, 1, 2]


def test_what_lies_behind_the_first_tokens_of_a_document_is_not_read(raw):
    fields = {"documents": ["bread" + " " * 15 + QUERY, "bread"], "max_tokens_per_doc": 5}
    first, second = post(raw, **fields).json()["results"]
    assert first["relevance_score"] == pytest.approx(second["relevance_score"])


@pytest.mark.parametrize(
    ("fields", "status", "code", "param"),
    [
        ({"model": "wrods"}, 404, "model_not_found", None),
        ({"model": "cheap"}, 404, "model_not_found", None),
        ({"model": None}, 400, "missing_required_parameter", "model"),
        ({"query": None}, 400, "missing_required_parameter", "query"),
        ({"query": " "}, 400, "invalid_value", "query"),
        ({"query": ["x"]}, 400, "invalid_type", "query"),
        ({"documents": None}, 400, "missing_required_parameter", "documents"),
        ({"documents": []}, 400, "empty_array", "documents"),
        ({"documents": ["x"] * 1001}, 400, "array_above_max_length", "documents"),
        ({"documents": ["x", 5]}, 400, "invalid_type", "documents[1]"),
        ({"documents": [{"title": "x"}]}, 400, "invalid_type", "documents[0]"),
        ({"documents": ["x", ""]}, 400, "invalid_value", "documents[1]"),
        ({"top_n": 0}, 400, "integer_below_min_value", "top_n"),
        ({"max_tokens_per_doc": "9"}, 400, "invalid_type", "max_tokens_per_doc"),
        ({"rank_fields": ["title"]}, 400, "unsupported_parameter", "rank_fields"),
    ],
)
def test_what_cannot_be_ordered_is_refused(raw, fields, status, code, param):
    response = post(raw, **fields)
    error = response.json()["error"]
    assert (response.status_code, error["code"], error["param"]) == (status, code, param)


def test_a_key_reranks_within_its_models_and_its_rate(registry_path, tmp_path):
    (tmp_path / "experts.yaml").write_text(registry_path.read_text())
    store = KeyStore(tmp_path / "keys.db")
    tokens = [store.create("x", models=[m], rpm=1).token for m in ("cheap", "words")]
    with (
        running(create_app(tmp_path / "experts.yaml")) as url,
        httpx.Client(base_url=url, timeout=20, trust_env=False) as client,
    ):
        found = []
        for token in ("none", tokens[0], tokens[1], tokens[1]):
            client.headers["authorization"] = f"Bearer {token}"
            found.append(post(client).status_code)
    store.close()
    assert found == [401, 403, 200, 429]


def test_a_reranker_scores_the_documents_itself(tmp_path):
    (tmp_path / "longest.py").write_text(
        "import numpy as np\n"
        "class Longest:\n"
        "    offers = ()\n"
        "    def __init__(self, spec): self.spec = spec\n"
        "    def relevance(self, query, texts): return np.array([float(len(t)) for t in texts])\n"
        "    def close(self): (self.spec.tags and open(self.spec.tags['closed'], 'w').close())\n"
    )
    closed = tmp_path / "closed"
    (tmp_path / "experts.yaml").write_text(
        "version: 1\n"
        "experts:\n"
        "  - {name: long, kind: reranker, backend: 'longest:Longest', model: none,\n"
        f"     tags: {{closed: {closed}}}}}\n"
        "  - {name: words, kind: retriever, backend: hashing, model: hashing}\n"
    )
    sys.path.insert(0, str(tmp_path))
    try:
        with (
            running(create_app(tmp_path / "experts.yaml")) as url,
            httpx.Client(base_url=url, timeout=20, trust_env=False) as client,
        ):
            done = post(client, model="long", documents=["a", "ccc", "bb"]).json()["results"]
            listed = [model["id"] for model in client.get("/v1/models").json()["data"]]
            body = {"model": "long", "messages": [{"role": "user", "content": "x"}]}
            chat = client.post("/v1/chat/completions", json=body)
            embedded = client.post("/v1/embeddings", json={"model": "long", "input": "x"})
    finally:
        sys.path.remove(str(tmp_path))
    assert [(r["index"], r["relevance_score"]) for r in done] == [(1, 3), (2, 2), (0, 1)]
    assert listed == ["auto", "long", "words"]
    assert "is a reranker; ask an LLM" in chat.json()["error"]["message"]
    assert (chat.status_code, embedded.status_code) == (404, 404)
    assert closed.exists()
