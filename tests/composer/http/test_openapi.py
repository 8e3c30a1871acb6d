"""The document describes what is served, and nothing else."""

import json

import httpx
import pytest
from jsonschema import Draft202012Validator
from starlette.routing import Route

from composer.http.app import create_app
from composer.http.errors import api_error
from composer.http.openapi.document import document, served
from composer.http.openapi.paths import OPERATIONS
from composer.key_store import KeyStore
from experts_registry.errors import KeyRefusedError, LimitError
from tests.composer.http.contract import operation_of
from tests.composer.http.servers import running
from tests.composer.http.test_errors import OURS

CHAT = "/v1/chat/completions"


@pytest.fixture(scope="module")
def contract(raw):
    return raw.get("/openapi.json").json()


def test_every_path_that_is_served_is_documented(registry_path):
    app = create_app(registry_path)
    while not hasattr(app, "routes"):
        app = app._app  # what is around the router is nobody's business here
    routes = app.routes
    assert all(isinstance(route, Route) for route in routes)
    found = document(routes)["paths"]
    documented = {(m.upper(), path) for path, methods in found.items() for m in methods}
    assert documented == set(served(routes))


def test_what_is_not_served_is_not_documented():
    found = document([Route("/v1/models", lambda _: None, methods=["GET"])])
    assert [*found["paths"]] == ["/v1/models"]
    assert "CreateChatCompletionRequest" not in found["components"]["schemas"]


def test_every_documented_path_is_served_and_has_no_other_method(raw, contract):
    for path, methods in contract["paths"].items():
        url = path.replace("{id}", "x")
        for method in ("GET", "POST", "PUT", "DELETE", "PATCH"):
            response = raw.request(method, url, json={} if method == "POST" else None)
            is_served = response.status_code != 405
            assert is_served == (method.lower() in methods), (method, path)
            assert "unknown_url" not in response.text


def test_every_schema_is_valid_json_schema(contract):
    for name, schema in contract["components"]["schemas"].items():
        Draft202012Validator.check_schema(schema)
        assert schema.get("description"), name


def test_operations_have_names_of_their_own():
    names = [operation.id for operation in OPERATIONS.values()]
    assert len(set(names)) == len(names)


def test_references_lead_somewhere(contract):
    text = json.dumps(contract)
    for kind, entries in contract["components"].items():
        for reference in text.split(f'"$ref": "#/components/{kind}/')[1:]:
            assert reference.partition('"')[0] in entries


@pytest.mark.parametrize("kind", OURS, ids=lambda kind: kind.__name__)
def test_every_error_of_ours_is_a_documented_status(contract, kind):
    arguments = {KeyRefusedError: (), LimitError: ("where: what", "tokens", 3.0)}
    error = kind(*arguments.get(kind, ("where: what",)))
    statuses = operation_of(contract, "POST", CHAT)["responses"]
    assert str(api_error(error).status) in statuses


def test_the_document_is_read_without_a_key(registry_path, tmp_path):
    path = tmp_path / "experts.yaml"
    path.write_text(registry_path.read_text())
    store = KeyStore(tmp_path / "keys.db")
    store.create("somebody")
    store.close()
    with running(create_app(path)) as url, httpx.Client(base_url=url, trust_env=False) as client:
        assert client.get("/openapi.json").json()["openapi"] == "3.1.0"
        assert client.get("/v1/models").status_code == 401
