import httpx
import pytest

from composer.http.app import create_app
from composer.key_store import KeyStore
from tests.composer.http.servers import running, until

FILE = """\
version: 1
experts:
  - {name: cheap, kind: llm, backend: echo, model: echo, price: {prompt: 1000, completion: 0}}
  - {name: words, kind: retriever, backend: hashing, model: hashing, options: {dimensions: 8}}
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("status")
    (folder / "experts.yaml").write_text(FILE)
    return folder


@pytest.fixture(scope="module")
def door(folder):
    with (
        running(create_app(folder / "experts.yaml")) as url,
        httpx.Client(base_url=url, timeout=20, trust_env=False) as client,
    ):
        yield client


def experts(door):
    return {each["name"]: each for each in door.get("/admin/status").json()["experts"]}


def test_the_status_tells_what_each_expert_did(door):
    messages = [{"role": "user", "content": "one two"}]
    door.post("/v1/chat/completions", json={"model": "cheap", "messages": messages})
    door.post("/v1/embeddings", json={"model": "words", "input": "one"})
    until(lambda: experts(door)["cheap"]["requests"] and experts(door)["words"]["requests"])
    status = door.get("/admin/status").json()
    cheap, words = status["experts"]
    assert (cheap["kind"], cheap["backend"], cheap["errors"]) == ("llm", "echo", 0)
    assert cheap["usd"] == pytest.approx(0.002)
    assert cheap["mean_ms"] >= 0
    assert (cheap["tier"], cheap["in_flight"], cheap["breaker"]) == ("host", 0, "closed")
    assert (words["kind"], words["requests"], words["usd"]) == ("retriever", 1, 0)
    assert words["tier"] is None
    assert (status["generation"], status["last_reload"]) == (1, None)
    assert (len(status["minutes"]), len(status["hours"])) == (60, 24)
    assert status["today"]["usd"] == pytest.approx(0.002)
    assert sum(minute["usd"] for minute in status["minutes"]) == pytest.approx(0.002)


def test_the_status_wants_an_admin_where_there_are_keys(tmp_path):
    (tmp_path / "experts.yaml").write_text(FILE)
    store = KeyStore(tmp_path / "keys.db")
    user, admin = store.create("user").token, store.create("boss", is_admin=True).token
    with running(create_app(tmp_path / "experts.yaml")) as url:

        def status(token=None):
            headers = {"authorization": f"Bearer {token}"} if token else {}
            address = f"{url}/admin/status"
            return httpx.get(address, headers=headers, timeout=20, trust_env=False).status_code

        assert [status(), status(user), status(admin)] == [401, 403, 200]
    store.close()


@pytest.mark.parametrize("path", ["/ui", "/ui/main.js", "/ui/base.css", "/ui/icon.svg"])
def test_the_page_allows_nothing_from_elsewhere(door, path):
    response = door.get(path)
    assert response.status_code == 200
    policy = dict(
        part.strip().split(" ", 1)
        for part in response.headers["content-security-policy"].split(";")
    )
    assert policy["default-src"] == policy["frame-ancestors"] == policy["base-uri"] == "'none'"
    assert policy["script-src"] == policy["style-src"] == policy["connect-src"] == "'self'"
    assert policy["require-trusted-types-for"] == "'script'"
    assert response.headers["x-content-type-options"] == "nosniff"
    assert response.headers["x-frame-options"] == "DENY"


def test_the_page_needs_no_key_and_holds_no_secret(tmp_path):
    (tmp_path / "experts.yaml").write_text(FILE)
    store = KeyStore(tmp_path / "keys.db")
    store.create("first")
    with running(create_app(tmp_path / "experts.yaml")) as url:
        response = httpx.get(f"{url}/ui", timeout=20, trust_env=False)
        assert response.status_code == 200
        assert "cheap" not in response.text
        assert httpx.get(f"{url}/v1/models", timeout=20, trust_env=False).status_code == 401
    store.close()


@pytest.mark.parametrize("path", ["/ui/../app.py", "/ui/%2e%2e/app.py", "/ui/no.js", "/ui/x/y"])
def test_other_files_are_not_served(door, path):
    response = door.get(path)
    assert response.status_code == 404
    assert response.json()["error"]["code"] == "unknown_url"


def test_the_folder_leads_to_the_page(door):
    assert door.get("/ui/", follow_redirects=True).url.path == "/ui"
