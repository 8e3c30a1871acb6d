import json
import subprocess
import sys

import numpy as np
import pytest
from filelock import FileLock

from experts_registry.errors import ArtefactError, DataError
from tests.composer.stores.made import EMBEDDED, YAML, Site

TEXTS = {"tea": "pour water over the leaves", "oil": "change the oil of the engine"}


@pytest.fixture
def site(tmp_path):
    made = Site(tmp_path)
    made.jsonl(TEXTS)
    return made


def texts():
    return sorted(text for _, text in EMBEDDED)


def test_passages_are_found_with_where_they_came_from(site):
    site.file("long.md", "# Engines\n\n" + "An engine needs a spark. " * 200)
    built = site.build()
    assert built.manifest.documents == 3
    assert site.found("leaves and water") == ["tea"]
    store = site.open()
    passages = [store.passage(row) for row in range(len(store))]
    cut = [p for p in passages if p.source == "long.md"]
    assert len(cut) > 3
    assert {p.title for p in cut} == {"Engines"}
    whole = (site.docs / "long.md").read_text()
    assert all(whole[p.start : p.end] == p.text and p.store == "guides" for p in cut)


def test_retrievers_that_embed_alike_share_an_index(site):
    alike = (
        '{name: twin, kind: retriever, backend: "tests.composer.stores.made:Counting", model: y}'
    )
    site.write(
        YAML.replace("encoder:", f"  - {alike}\nencoder:").replace(
            "[words]", "[words, twin, small]"
        )
    )
    built = site.build()
    assert [i.retrievers for i in built.manifest.indexes] == [("words", "twin"), ("small",)]
    assert len(EMBEDDED) == 2 * len(TEXTS)
    assert site.found("engine oil", "twin") == site.found("engine oil", "small") == ["oil"]


def test_a_build_of_the_same_changes_nothing(site):
    first, store = site.build(), site.open()
    again = site.build()
    assert (first.is_new, again.is_new, EMBEDDED) == (True, False, [])
    assert store.is_current()


def test_after_an_edit_only_new_texts_are_embedded(site):
    site.build()
    before = site.open()
    site.jsonl({**TEXTS, "oil": "change the oil of the car", "new": "a third"})
    built = site.build()
    assert texts() == ["a third", "change the oil of the car"]
    assert built.embedded == {"words": 2}
    assert site.found("a third") == ["new"]
    # Who has the old one open goes on with it, and can see that it is the old one.
    assert [before.passage(row).text for row in range(len(before))] == list(TEXTS.values())
    assert not before.is_current()
    assert before.digest != site.open().digest


def test_a_second_retriever_costs_only_its_own_vectors(site):
    site.build()
    site.write(YAML.replace("[words]", "[words, small]"))
    site.build()
    assert {dimensions for dimensions, _ in EMBEDDED} == {32}
    assert site.found("engine", "small") == ["oil"]


def test_texts_that_are_gone_are_forgotten_once_they_are_most(site):
    site.jsonl({str(i): f"number {i}" for i in range(1500)})
    site.build()
    (file,) = (site.folder / "vectors").iterdir()
    size = file.stat().st_size
    site.jsonl({"1": "number 1", "new": "unheard of"})
    site.build()
    assert file.stat().st_size < size / 100
    assert site.found("unheard of") == ["new"]
    site.build()
    assert EMBEDDED == []


def test_added_documents_stay_through_builds_without_their_files(site, tmp_path):
    site.build()
    extra = tmp_path / "extra.md"
    extra.write_text("# Bread\n\nbake it for an hour")
    site.build(add=[extra])
    assert len(EMBEDDED) == 1
    extra.unlink()
    site.jsonl({**TEXTS, "more": "one more"})
    site.build()
    assert texts() == ["one more"]
    assert site.ids() == ["tea", "oil", "more", "extra.md"]
    assert site.found("bake for an hour") == ["extra.md"]
    site.build(fresh=True)
    assert site.ids() == ["tea", "oil", "more"]


def test_removed_documents_stay_removed_until_they_are_added_again(site, tmp_path):
    site.build()
    site.build(remove=["tea"])
    assert site.ids() == ["oil"]
    site.jsonl({**TEXTS, "more": "one more"})
    site.build()
    assert site.ids() == ["oil", "more"]
    back = tmp_path / "back.jsonl"
    back.write_text(json.dumps({"id": "tea", "text": "tea is made otherwise now"}))
    site.build(add=[back])
    site.build()
    assert sorted(site.ids()) == ["more", "oil", "tea"]
    assert site.found("tea otherwise now") == ["tea"]


def test_one_passage_of_a_document_can_be_removed(site):
    site.file("long.txt", "An engine needs a spark. " * 100)
    site.build()
    cut = [name for name in site.ids() if name.startswith("long.txt#")]
    site.build(remove=[cut[0]])
    site.build()
    assert [name for name in site.ids() if name.startswith("long.txt#")] == cut[1:]


def test_what_was_added_can_be_removed(site, tmp_path):
    site.build()
    extra = tmp_path / "extra.md"
    extra.write_text("bake it")
    site.build(add=[extra])
    site.build(remove=["extra.md"])
    assert site.ids() == list(TEXTS)
    assert site.open().manifest.edits.added == 0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"remove": ["te"]}, "id 'te': no document or passage of the store has it; did you mean"),
        ({"remove": ["tea", "oil"]}, "nothing would be left"),
    ],
)
def test_what_cannot_be_removed_is_told(site, change, message):
    site.build()
    with pytest.raises(DataError, match=message):
        site.build(**change)
    assert site.ids() == list(TEXTS)


def test_one_id_with_one_text_is_one_document(site):
    site.jsonl({"tea": TEXTS["tea"]}, "twin.jsonl")
    built = site.build()
    assert site.ids() == list(TEXTS)
    assert built.manifest.skipped == {"documents that were there already": 1}


def test_one_id_with_two_texts_is_an_error_that_names_both_places(site):
    site.jsonl({"tea": "another tea"}, "twin.jsonl")
    both = r"'tea': \S+docs/texts.jsonl, document 1 and \S+docs/twin.jsonl, document 1 have other"
    with pytest.raises(DataError, match=both):
        site.build()
    site.build(replace=True)
    assert site.found("another tea") == ["tea"]
    assert len(site.ids()) == len(TEXTS)


def test_a_replacement_of_the_source_lasts(site, tmp_path):
    site.build()
    other = tmp_path / "other.jsonl"
    other.write_text(json.dumps({"id": "tea", "text": "another tea"}))
    with pytest.raises(DataError, match=r"'tea': .*have other texts"):
        site.build(add=[other])
    site.build(add=[other], replace=True)
    site.build()
    assert site.found("another tea") == ["tea"]
    assert sorted(site.ids()) == sorted(TEXTS)


def test_files_that_cannot_be_read_are_told_together_before_anything_is_embedded(site):
    site.file("latin.txt", "café".encode("latin-1") + b"\xff\xfe\x9d\x00\x81")
    site.file("fake.pdf", b"not a pdf")
    with pytest.raises(DataError) as error:
        site.build()
    assert "latin.txt" in str(error.value)
    assert "fake.pdf" in str(error.value)
    assert EMBEDDED == []
    built = site.build(skip_bad=True)
    assert len(built.bad) == 2
    assert built.manifest.skipped == {"files that cannot be read": 2}
    assert site.ids() == list(TEXTS)


def test_a_store_without_texts_is_an_error(tmp_path):
    site = Site(tmp_path)
    site.file("blank.txt", "  \n")
    with pytest.raises(DataError, match=r"no text to retrieve \(1 empty files\)"):
        site.build()
    with pytest.raises(ArtefactError, match="not built yet; run 'expert-composer store build"):
        site.open()


def test_a_passage_of_a_megabyte_is_cut_and_found(site):
    site.jsonl({"big": "needle " + "lorem ipsum dolor " * 60_000, "blob": "x" * 1_000_000})
    site.build()
    assert site.found("needle lorem") == ["big#1"]


def test_a_store_beside_its_own_documents_does_not_read_itself(site):
    site.write(YAML.replace("passages: docs", "passages: docs, folder: docs/store"))
    site.folder = site.docs / "store"
    site.build()
    assert not site.build().is_new
    assert site.ids() == list(TEXTS)


def test_the_second_builder_is_told(site):
    site.folder.mkdir(parents=True)
    with (
        FileLock(site.folder / "build.lock"),
        pytest.raises(DataError, match="another build of it is running"),
    ):
        site.build()


def test_a_folder_that_cannot_be_written_is_an_error(site):
    site.folder.parent.write_text("a file")
    with pytest.raises(DataError, match="cannot be written"):
        site.build()


def test_a_full_disk_is_an_error_and_what_is_served_stays(site):
    site.build()
    site.jsonl({str(i): f"number {i}" for i in range(400)})
    code = (
        "import resource, sys\nfrom pathlib import Path\n"
        "from tests.composer.stores.made import Site\n"
        "from experts_registry.errors import DataError\n"
        "site = Site.__new__(Site); site.path = Path(sys.argv[1])\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, resource.RLIM_INFINITY))\n"
        "try: site.build()\n"
        "except DataError as error: print(error)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, site.path], capture_output=True, text=True, check=True
    )
    assert "cannot be written (File too large); make room" in done.stdout
    assert site.ids() == list(TEXTS)
    site.build()
    assert 0 < len(EMBEDDED) < 400  # finished batches were kept


def test_words_are_indexed_and_taken_over(site):
    site.write(YAML.replace("retrievers: [words]", "retrievers: [words], lexical: true"))
    site.build()
    rows, _ = site.open().lexical.search("leaves", 5)
    assert rows.tolist() == [0]
    site.write(YAML.replace("[words]", "[words, small], lexical: true"))
    site.build()
    rows, _ = site.open().lexical.search("engine", 5)
    assert rows.tolist() == [1]


def test_vectors_that_are_no_unit_rows_are_refused(site, monkeypatch):
    monkeypatch.setattr(
        "tests.composer.stores.made.Counting.embed",
        lambda self, texts, *, role: np.full((len(texts), 8), np.nan, dtype=np.float32),
    )
    with pytest.raises(Exception, match="not finite and of length 1"):
        site.build()
