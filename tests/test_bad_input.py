"""One table: what a user may get wrong, and the one clear error that each mistake gets.

Details are tested beside each module; here every mistake goes through the door that a user takes.
"""

import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from composer import Composer
from experts_registry import Registry
from experts_registry import errors as e
from experts_registry.sources import locate
from routers import RoutingDataset
from routers.baselines import BestOnAverage
from routers.testing import HashingEncoder, synthetic_outcomes

ECHO = "{name: a, kind: llm, backend: echo, model: echo"


def registry(tmp_path, expert, rest=""):
    path = tmp_path / "experts.yaml"
    path.write_text(f"version: 1\nexperts:\n  - {expert}\n{rest}")
    return path


BAD_FILES = {
    "empty": ("", r"experts.yaml:1: .*start with"),
    "a list": ("- a\n- b\n", r"experts.yaml:1: .*not a mapping"),
    "a tab": ("version: 1\nexperts:\n\t- a\n", r"experts.yaml:3: .*tab"),
    "an open bracket": ("version: 1\nexperts: [\n", r"experts.yaml:\d: .*not YAML"),
    "a duplicate key": ("version: 1\nversion: 1\n", r"experts.yaml:2: version: duplicate key"),
    "an unknown key": (f"version: 1\nexperts:\n  - {ECHO}, modle: x}}\n", r":3: .*mean 'model'"),
    "a wrong kind": (f"version: 1\nexperts:\n  - {ECHO.replace('llm', 'lm')}}}\n", r":3: .*'llm'"),
    "a negative price": (
        f"version: 1\nexperts:\n  - {ECHO}, price: {{prompt: -1}}}}\n",
        r":3: .*0",
    ),
    "a secret": (f"version: 1\nexperts:\n  - {ECHO}, options: {{api_key: x}}}}\n", "api_key_env"),
    "an unknown reference": (
        f"version: 1\nexperts:\n  - {ECHO}}}\ncompositions:\n  - {{name: c, experts: [b]}}\n",
        r":5: .*'b' is not one of a",
    ),
    "a python object": ("version: !!python/object/apply:os.getcwd []\n", r"experts.yaml:1: "),
    "a bomb": (
        "a: &a [x,x,x,x,x,x,x,x,x]\n"
        + "".join(
            f"{c}: &{c} [{','.join([f'*{b}'] * 9)}]\n"
            for b, c in zip("abcdefgh", "bcdefghi", strict=False)
        ),
        r"experts.yaml",
    ),
    "not text": (b"\xff\xfe\x00version", r"experts.yaml"),
}


@pytest.mark.parametrize(("text", "message"), BAD_FILES.values(), ids=BAD_FILES)
def test_a_bad_file(tmp_path, text, message):
    path = tmp_path / "experts.yaml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(e.RegistryError, match=message):
        Registry.load(path)


def test_a_missing_file(tmp_path):
    with pytest.raises(e.RegistryError, match=r"nowhere.yaml.*expert-composer init"):
        Registry.load(tmp_path / "nowhere.yaml")


MISSING_MODELS = {
    "a folder": ("path:nowhere", "nowhere"),
    "a package": ("package:no_such_package/x.gguf", "no_such_package"),
    "a file of a package": ("package:pydantic/maim.py", "mean 'main.py'|main.py"),
}


@pytest.mark.parametrize(("model", "message"), MISSING_MODELS.values(), ids=MISSING_MODELS)
def test_a_missing_model(tmp_path, model, message):
    expert = f'{{name: a, kind: llm, backend: transformers, model: "{model}"}}'
    spec = Registry.load(registry(tmp_path, expert)).expert("a")
    with pytest.raises(e.ModelSourceError, match=message):
        locate(spec)


@pytest.mark.parametrize("content", [b"GGUF", b"not a model at all", b""])
def test_a_wrong_gguf(tmp_path, monkeypatch, content):
    monkeypatch.setenv("EXPERT_COMPOSER_CACHE", str(tmp_path / "cache"))
    (tmp_path / "model.gguf").write_bytes(content)
    expert = "{name: a, kind: llm, backend: transformers, model: path:model.gguf}"
    with (
        Composer.load(registry(tmp_path, expert)) as composer,
        pytest.raises(e.ModelSourceError, match=r"model.gguf|GGUF"),
    ):
        composer.query("hello", model="a")


@contextmanager
def server(status, kind, body):
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            self.rfile.read(int(self.headers["content-length"]))
            self.send_response(status)
            self.send_header("content-type", kind)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_):
            pass

    http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=http.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{http.server_port}/v1"
    http.shutdown()
    http.server_close()
    thread.join()


def remote(tmp_path, url):
    options = f'{{base_url: "{url}"}}'
    return registry(
        tmp_path, f"{{name: a, kind: llm, backend: openai, model: m, options: {options}}}"
    )


def test_a_dead_endpoint(tmp_path):
    with (
        Composer.load(remote(tmp_path, "http://127.0.0.1:9/v1")) as composer,
        pytest.raises(e.ExpertUnavailableError, match=r"'a'.*127.0.0.1:9"),
    ):
        composer.query("hello", model="a")


@pytest.mark.parametrize(
    ("status", "kind", "body", "error"),
    [
        (200, "text/html", b"<html><body>Welcome</body></html>", e.ExpertReplyError),
        (200, "application/json", b'{"choices": [', e.ExpertReplyError),
        (200, "application/json", b'{"ok": true}', e.ExpertReplyError),
        (401, "application/json", b'{"error": {"message": "bad key"}}', e.ExpertRequestError),
        (503, "text/plain", b"busy", e.ExpertBusyError),
        (500, "text/plain", b"oops", e.ExpertUnavailableError),
    ],
)
def test_an_endpoint_that_lies(tmp_path, status, kind, body, error):
    with (
        server(status, kind, body) as url,
        Composer.load(remote(tmp_path, url)) as composer,
        pytest.raises(error, match="'a'"),
    ):
        composer.query("hello", model="a")


@pytest.mark.parametrize("query", ["", " \n\t", [], [{"role": "user", "content": ""}]])
def test_an_empty_query(tmp_path, query):
    with (
        Composer.load(registry(tmp_path, ECHO + "}")) as composer,
        pytest.raises(e.PromptError, match="empty"),
    ):
        composer.query(query)


@pytest.mark.parametrize("query", [[{"content": "x"}], [{"role": "user", "content": 3}]])
def test_a_broken_message(tmp_path, query):
    with (
        Composer.load(registry(tmp_path, ECHO + "}")) as composer,
        pytest.raises(e.PromptError, match=r"messages\[0\]: "),
    ):
        composer.query(query)


def test_a_megabyte_that_fits_no_expert(tmp_path):
    with (
        Composer.load(registry(tmp_path, ECHO + ", context_window: 4096}")) as composer,
        pytest.raises(e.ContextLengthError, match="context window of 4096 tokens"),
    ):
        composer.query("word " * 200_000)


@pytest.mark.parametrize(
    "query", ["word " * 200_000, "Где живут пингвины?", "ペンギンは? 🐧", "\x00"]
)
def test_an_odd_query_is_routed_all_the_same(query):
    router = BestOnAverage(encoder=HashingEncoder()).fit(data := synthetic_outcomes())
    assert router.route(query).primary in data.experts


@pytest.mark.parametrize("value", [float("nan"), 1.5, -0.1, float("inf")])
def test_a_quality_that_is_none(tmp_path, value):
    rows = {"query_id": ["q"], "query": ["x"], "expert": ["a"], "quality": [value]}
    table = pa.table({**rows, "category": ["c"], "cost_usd": [0.0], "active_params": [1.0]})
    pq.write_table(table, tmp_path / "outcomes.parquet")
    with pytest.raises(e.DataError, match=r"outcomes.parquet.*quality"):
        RoutingDataset.load(tmp_path / "outcomes.parquet")


@pytest.mark.parametrize("content", [b"", b"PAR1", b"not parquet"])
def test_outcomes_that_are_no_parquet(tmp_path, content):
    (tmp_path / "outcomes.parquet").write_bytes(content)
    with pytest.raises(e.DataError, match=r"outcomes.parquet"):
        RoutingDataset.load(tmp_path / "outcomes.parquet")


def test_an_expert_that_times_out(tmp_path):
    slow = ECHO + ", options: {delay: 60}, limits: {seconds: 0.1}}"
    with (
        Composer.load(registry(tmp_path, slow)) as composer,
        pytest.raises(e.ExpertTimeoutError, match=r"'a': no answer within 0.1 s; raise"),
    ):
        composer.query("hello", model="a")


@pytest.mark.parametrize(
    ("sampling", "message"),
    [
        ({"max_tokens": -1}, "max_tokens"),
        ({"n": 0}, "n: 0 is below 1"),
        ({"temperature": 9}, "temperature"),
        ({"top_p": 0}, "top_p"),
    ],
)
def test_a_wrong_option(tmp_path, sampling, message):
    with (
        Composer.load(registry(tmp_path, ECHO + "}")) as composer,
        pytest.raises(e.OptionError, match=message),
    ):
        composer.query("hello", **sampling)
