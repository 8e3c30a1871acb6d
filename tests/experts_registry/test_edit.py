import stat

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from experts_registry import Registry, RegistryError
from experts_registry.edit import add_expert, remove_expert, set_enabled
from experts_registry.errors import UnknownNameError

TEXT = """\
# Our experts.
version: 1
encoder:   'mini'        # quotes and spaces stay

experts:
    # the encoder
    - name: mini
      kind: retriever
      backend: echo
      model: "mini"

    # cheap
    - name: small      # fast
      kind: llm
      backend: echo
      model: small
      options: { a: 1,   b: [1,2] }
      tags:
        note: |
          two
          lines

    # dear
    - {name: big, kind: llm, backend: echo, model: big}   # the best
    # after the last one

compositions:
  - name: auto
    experts: [ small, big ]
    baseline: big
  - name: list
    experts:
      # first
      - small   # why
      # second
      - big
"""

NEW = {
    "name": "new",
    "kind": "llm",
    "backend": "echo",
    "model": "no",
    "price": {"prompt": 1, "completion": 2.5},
    "tags": {"pi": "1e-3", "yes": "no"},
}


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "experts.yaml"
    path.write_text(TEXT)
    return path


def test_an_added_expert_follows_the_last_one_and_all_else_stays(file):
    registry = add_expert(file, NEW)
    assert list(registry.experts) == ["mini", "small", "big", "new"]
    assert registry.expert("new").tags == {"pi": "1e-3", "yes": "no"}
    before, after = TEXT.splitlines(), file.read_text().splitlines()
    at = before.index("    - {name: big, kind: llm, backend: echo, model: big}   # the best") + 1
    assert after[:at] == before[:at]
    assert after[at : at + 2] == ["    - name: new", "      kind: llm"]
    assert "      price: {prompt: 1, completion: 2.5}" in after
    assert after[-len(before[at:]) :] == before[at:]


def test_a_removed_expert_leaves_all_comments(file):
    file.write_text(TEXT[: TEXT.index("compositions:")])
    registry = remove_expert(file, "small")
    assert list(registry.experts) == ["mini", "big"]
    start, end = TEXT.index("    - name: small"), TEXT.index("\n    # dear")
    assert file.read_text() == TEXT[:start] + TEXT[end : TEXT.index("compositions:")]


def test_an_expert_in_use_is_kept_and_its_uses_are_named(file):
    with pytest.raises(RegistryError, match=r"by compositions.auto.experts, compositions.list.exp"):
        remove_expert(file, "small")
    with pytest.raises(RegistryError, match=r"'mini' is needed by encoder; .*--force"):
        remove_expert(file, "mini")
    assert file.read_text() == TEXT


def test_an_expert_in_lists_can_be_disabled_and_the_encoder_cannot(file):
    registry = set_enabled(file, "big", False)
    assert "big" in registry.composition("auto").experts
    assert "big" not in registry.experts
    before = file.read_text()
    with pytest.raises(RegistryError, match=r"encoder: expert 'mini' is disabled"):
        set_enabled(file, "mini", False)
    assert file.read_text() == before


def test_force_also_drops_the_uses(file):
    registry = remove_expert(file, "big", force=True)
    assert registry.composition("auto").experts == ("small",)
    assert registry.composition("auto").baseline is None
    assert registry.composition("list").experts == ("small",)
    text = file.read_text()
    assert "    experts: [ small ]\n    baseline: null\n" in text
    assert text.endswith("      # first\n      - small   # why\n      # second\n")


def test_force_leaves_no_composition_without_experts(file):
    remove_expert(file, "big", force=True)
    text = file.read_text()
    with pytest.raises(RegistryError, match=r"compositions.auto.experts would be left without"):
        remove_expert(file, "small", force=True)
    assert file.read_text() == text


def test_disabling_and_enabling_change_one_line(file):
    file.write_text(TEXT[: TEXT.index("compositions:")])
    before = file.read_text()
    assert "small" not in set_enabled(file, "small", False).experts
    assert file.read_text() == before.replace("# fast\n", "# fast\n      enabled: false\n")
    assert "small" in set_enabled(file, "small", True).experts
    assert file.read_text() == before.replace("# fast\n", "# fast\n      enabled: true\n")
    set_enabled(file, "big", False)
    assert "- {name: big, enabled: false, kind: llm, backend: echo, model: big}   #" in (
        file.read_text()
    )


def test_setting_what_is_already_set_leaves_the_file_alone(file):
    inode = file.stat().st_ino
    set_enabled(file, "small", True)
    assert file.stat().st_ino == inode


def test_a_bad_expert_is_refused_as_a_whole(file):
    with pytest.raises(RegistryError, match=r"experts.3.kind: Input should be"):
        add_expert(file, {**NEW, "kind": "lm"})
    with pytest.raises(RegistryError, match=r"'small' is there twice"):
        add_expert(file, {**NEW, "name": "small"})
    with pytest.raises(UnknownNameError, match=r"did you mean 'small'"):
        remove_expert(file, "smal")
    assert file.read_text() == TEXT
    assert [p.name for p in file.parent.iterdir() if p.suffix != ".lock"] == ["experts.yaml"]


@pytest.mark.parametrize(
    "start",
    [
        "version: 1",
        "version: 1\n# end\n",
        "version: 1\nexperts: []\n",
        "version: 1\nexperts: []   # none yet\ncompositions: []\n",
        "version: 1\nexperts:\n- name: a\n  kind: llm\n  backend: echo\n  model: x",
        "version: 1\nexperts: [{name: a, kind: llm, backend: echo, model: x}]\n",
        '{"version": 1, "experts": [{"name":"a", "kind":"llm", "backend":"echo", "model":"x"}]}',
        '{"version": 1, "experts": []}',
        "version: 1\r\nexperts:\r\n  -  name: a\r\n     kind: llm\r\n     backend: echo\r\n"
        "     model: é\r\n",
        "\N{BYTE ORDER MARK}version: 1\nexperts: []\n",
    ],
)
def test_adding_then_removing_works_in_every_layout(tmp_path, start):
    path = tmp_path / "experts.yaml"
    path.write_bytes(start.encode())
    names = list(Registry.load(path).experts)
    assert list(add_expert(path, NEW).experts) == [*names, "new"]
    assert set_enabled(path, "new", False).file.experts[-1].enabled is False
    assert list(remove_expert(path, "new").experts) == names
    for name in names:
        assert list(remove_expert(path, name).experts) == []
    content = path.read_bytes()
    assert content.startswith(b"\xef\xbb\xbf") == start.startswith("\N{BYTE ORDER MARK}")
    assert content.count(b"\n") == content.count(b"\r\n") or b"\r" not in content


def test_the_file_mode_and_a_link_survive(tmp_path):
    (tmp_path / "real").mkdir()
    real = tmp_path / "real" / "e.yaml"
    real.write_text(TEXT)
    real.chmod(0o640)
    link = tmp_path / "experts.yaml"
    link.symlink_to(real)
    add_expert(link, NEW)
    assert link.is_symlink()
    assert stat.S_IMODE(real.stat().st_mode) == 0o640
    assert "name: new" in real.read_text()


def test_an_edit_that_aliases_would_mislead_is_refused(tmp_path):
    path = tmp_path / "experts.yaml"
    text = (
        "version: 1\nexperts:\n  - &a {name: a, kind: llm, backend: echo, model: x}\n"
        "  - {<<: *a, name: b}\n"
    )
    path.write_text(text)
    with pytest.raises(RegistryError, match=r"experts.yaml"):
        remove_expert(path, "a")
    with pytest.raises(RegistryError, match=r"edit it by hand"):
        set_enabled(path, "a", False)
    assert path.read_text() == text


def test_a_missing_file_is_a_registry_error(tmp_path):
    with pytest.raises(RegistryError, match="does not exist"):
        add_expert(tmp_path / "experts.yaml", NEW)


PLAIN = st.dictionaries(
    st.text(st.characters(categories=["L"]), min_size=1, max_size=8).filter(
        lambda key: key.lower() not in {"token", "secret", "password", "passwd", "bearer", "apikey"}
    ),
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=30),
    max_size=4,
)


@given(options=PLAIN)
@example(options={"a": "\x85", "b": "x\u2028y", "c": ["é\u2029"]})
def test_what_is_written_is_what_is_read(options, tmp_path_factory):
    path = tmp_path_factory.mktemp("edit") / "experts.yaml"
    path.write_text(TEXT)
    try:
        registry = add_expert(path, {**NEW, "options": options})
    except RegistryError:  # Text that only looks like a secret or a path is not the point here.
        assert path.read_text() == TEXT
    else:
        assert registry.expert("new").options == options


STORES = """
stores:
  - name: papers
    passages: docs
    retrievers: [mini]   # one so far
  - name: notes
    passages: docs
    retrievers:
      # the general one
      - mini   # quick
    # the end
"""
RETRIEVER = {"name": "2024", "kind": "retriever", "backend": "echo", "model": "new"}


def test_a_retriever_joins_the_stores_that_are_named(file):
    file.write_text(TEXT + STORES)
    registry = add_expert(file, RETRIEVER, stores=["papers", "notes"])
    assert [store.retrievers for store in registry.file.stores] == [("mini", "2024")] * 2
    text = file.read_text()
    assert "    retrievers: [mini, '2024']   # one so far\n" in text
    assert "      - mini   # quick\n      - '2024'\n    # the end\n" in text


def test_an_unknown_store_or_an_alias_changes_nothing(file):
    file.write_text(TEXT + STORES)
    with pytest.raises(UnknownNameError, match="did you mean 'papers'"):
        add_expert(file, RETRIEVER, stores=["paper"])
    assert file.read_text() == TEXT + STORES
    aliased = STORES.replace("[mini]", "&a [mini]").replace(
        "\n      # the general one\n      - mini   # quick", " *a"
    )
    file.write_text(TEXT + aliased)
    with pytest.raises(RegistryError, match=r"stores.papers.retrievers: is an alias"):
        add_expert(file, RETRIEVER, stores=["papers"])
    assert file.read_text() == TEXT + aliased
