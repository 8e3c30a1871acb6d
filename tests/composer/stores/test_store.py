import json
import shutil
import threading

import pytest

from composer.opened import Opened
from composer.stores.manifest import MANIFEST
from experts_registry.errors import ArtefactError
from experts_registry.registry import Registry
from tests.composer.stores.made import EMBEDDED, YAML, Site

TEXTS = {"tea": "pour water over the leaves", "oil": "change the oil of the engine"}
AGAIN = "run 'expert-composer store build guides'"


@pytest.fixture
def site(tmp_path):
    made = Site(tmp_path, YAML.replace("[words]", "[words], lexical: true"))
    made.jsonl(TEXTS)
    made.build()
    return made


def generation(site):
    return (
        site.folder
        / "generations"
        / json.loads((site.folder / "current").read_text())["generation"]
    )


def files(site):
    return sorted(path for path in generation(site).rglob("*") if path.is_file())


def test_no_file_that_is_cut_off_changed_or_missing_is_served(site, tmp_path):
    assert len(files(site)) > 7
    for file in files(site):
        whole = file.read_bytes()
        broken = [whole[:-1], whole[: len(whole) // 2] + b"?" + whole[len(whole) // 2 + 1 :], None]
        for content in broken:
            if content == whole:
                continue
            file.unlink() if content is None else file.write_bytes(content)
            with pytest.raises(ArtefactError, match=AGAIN):
                site.open()
            assert AGAIN in (site.standing().error or "")
        file.write_bytes(whole)
    assert len(site.open()) == len(TEXTS)


def test_a_build_mends_what_is_damaged_without_embedding_again(site):
    names = [file.relative_to(generation(site)) for file in files(site) if file.name != MANIFEST]
    for name in names:
        (generation(site) / name).write_bytes(b"damaged")
        built = site.build()
        assert built.is_new
        assert EMBEDDED == []
        assert site.found("engine") == ["oil"]


def test_what_was_edited_by_hand_is_not_lost_unseen(site, tmp_path):
    extra = tmp_path / "extra.md"
    extra.write_text("bake it")
    site.build(add=[extra])
    (generation(site) / "added.jsonl").write_text("")
    with pytest.raises(ArtefactError, match=r"by hand cannot be read.*--fresh"):
        site.build()
    assert site.build(fresh=True).manifest.passages == len(TEXTS)


def test_what_was_edited_by_hand_is_kept_where_the_pointer_is_lost(site, tmp_path):
    extra = tmp_path / "extra.md"
    extra.write_text("bake it")
    site.build(add=[extra])
    site.build(remove=["oil"])
    (site.folder / "current").unlink()
    assert "is not built yet" in site.standing().error
    built = site.build()
    assert built.is_new
    assert EMBEDDED == []
    assert site.standing().is_current
    ids = {site.open().passage(row).id for row in range(len(site.open()))}
    assert ids == {"tea", "extra.md"}


@pytest.mark.parametrize(
    "content", ["", "{", '{"generation": "x"}', '{"generation": "9", "manifest": ""}']
)
def test_a_damaged_pointer_is_no_store(site, content):
    (site.folder / "current").write_text(content)
    with pytest.raises(ArtefactError, match=AGAIN):
        site.open()


def test_vectors_of_another_encoder_are_never_searched(site):
    site.write(YAML.replace("[words]", "[small], lexical: true"))
    small = Opened(Registry.load(site.path)).embedder("small")
    with pytest.raises(ArtefactError, match="has no index of this retriever's vectors"):
        site.open().index(small)
    assert "has no index yet" in site.standing().changes[0]
    assert "has no index yet" in site.standing().error


def test_an_encoder_that_changed_under_its_name_is_noticed(site):
    yaml = YAML.replace(
        'made:Counting", model: x}', 'made:Counting", model: x, options: {dimensions: 64}}'
    )
    site.write(yaml.replace("[words]", "[words], lexical: true"))
    assert "embeds otherwise" in site.standing().changes[0]
    site.build()
    assert site.standing().is_current


def test_a_store_that_no_enabled_retriever_can_search_is_not_current(site):
    text = YAML.replace("[words]", "[words, small], lexical: true")
    site.write(text)
    found = site.standing()
    assert found.changes == ("retriever 'small' has no index yet",)
    assert found.error is None  # words searches it
    site.write(text.replace("model: x}", "model: x, enabled: false}").replace("encoder: words", ""))
    assert "has no index yet" in site.standing().error
    disabled = text.replace("model: x", "model: x, enabled: false").replace("encoder: words", "")
    site.write(disabled)
    found = site.standing()
    assert "none of its retrievers is enabled; enable 'words'" in found.error
    assert not found.is_current


def test_an_older_generation_that_is_gone_from_disk_is_still_served_to_its_holder(site):
    store = site.open()
    site.jsonl({"new": "something else"})
    site.build()
    assert not (store.folder / "generations" / "000001").exists()
    embedder = Opened(Registry.load(site.path)).embedder("words")
    rows, scores = store.index(embedder).search(embedder.embed(["engine"], role="query"), 5)
    assert [store.passage(row).id for row in rows[0] if row >= 0] == ["oil", "tea"]
    assert scores[0, 0] > scores[0, 1]
    assert store.lexical.search("leaves", 1)[0].tolist() == [0]


def test_a_store_can_be_opened_while_it_is_rebuilt(site):
    stop, failures = threading.Event(), []

    def read():
        while not stop.is_set():
            try:
                assert len(site.open()) in (2, 3)
            except (ArtefactError, AssertionError, OSError) as error:
                failures.append(error)

    reader = threading.Thread(target=read)
    reader.start()
    for i in range(12):
        site.jsonl({**TEXTS, "more": f"number {i}"})
        site.build()
    stop.set()
    reader.join()
    assert failures == []


def test_a_store_can_be_moved(site, tmp_path):
    shutil.move(site.folder, tmp_path / "elsewhere")
    site.folder = tmp_path / "elsewhere"
    assert len(site.open()) == len(TEXTS)


def test_what_changed_since_the_build_is_told(site):
    assert site.standing().is_current
    (site.docs / "texts.jsonl").touch()
    assert site.standing().is_current  # the same text, later
    site.jsonl({**TEXTS, "oil": "another"})
    site.file("new.txt", "a text")
    assert site.standing().changes == ("its source has other files by now: 1 new, 1 changed",)
    (site.docs / "texts.jsonl").unlink()
    assert site.standing().changes == ("its source has other files by now: 1 new, 1 gone",)
    site.write(YAML.replace("[words]", "[words], chunk: {words: 100}"))
    changed = site.standing().changes
    assert [c.split()[0] for c in changed] == ["'chunk'", "'lexical'", "its"]


def test_where_the_source_is_gone_the_store_goes_on(site):
    shutil.rmtree(site.docs)
    assert "cannot be read" in site.standing().changes[0]
    assert len(site.open()) == len(TEXTS)
