import json

import pytest
from typer.testing import CliRunner

from composer.cli.main import app
from experts_registry.errors import ComposerError
from tests.composer.stores.made import YAML, Site

TEXTS = {"tea": "pour water over the leaves", "oil": "change the oil of the engine"}


@pytest.fixture
def site(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    made = Site(tmp_path)
    made.jsonl(TEXTS)
    return made


def run(*arguments, code=0):
    done = CliRunner().invoke(app, arguments)
    if isinstance(done.exception, ComposerError):
        raise done.exception
    assert done.exit_code == code, done.output
    return done.stdout


def test_a_store_is_built_added_to_removed_from_and_told_of(site, tmp_path):
    assert "2 passages of 2 documents, embedded 2 by words" in run("store", "build", "guides")
    (tmp_path / "extra.md").write_text("bake it")
    assert "embedded 1 by words" in run("store", "add", "guides", "extra.md")
    run("store", "remove", "guides", "tea")
    told = run("store", "info", "guides")
    assert "2 of 2 documents" in told
    assert "1 documents added, 1 ids removed" in told
    assert told.rstrip().endswith("current")
    site.file("more.txt", "one more")
    assert "stale: its source has other files by now: 1 new" in run("store", "info", "guides")


def test_json_is_for_machines(site):
    built = json.loads(run("store", "build", "guides", "--json"))
    assert (built["passages"], built["embedded"], built["changed"]) == (2, {"words": 2}, True)
    again = json.loads(run("store", "build", "guides", "--json"))
    assert (again["digest"], again["changed"]) == (built["digest"], False)
    told = json.loads(run("store", "info", "guides", "--json"))
    assert (told["digest"], told["current"], told["error"]) == (built["digest"], True, None)


def test_a_store_that_is_not_built_is_told_with_a_code(site):
    assert "not built yet" in run("store", "info", "guides", code=1)


def test_bad_files_are_left_out_where_that_is_asked_for(site):
    site.file("fake.pdf", b"not a pdf")
    with pytest.raises(ComposerError, match=r"fake\.pdf"):
        run("store", "build", "guides")
    told = json.loads(run("store", "build", "guides", "--skip-bad", "--json"))
    assert "fake.pdf" in told["bad"][0]


def test_an_unknown_store_is_told_with_the_nearest(site):
    with pytest.raises(ComposerError, match="did you mean 'guides'"):
        run("store", "build", "guide")


def test_validate_tells_how_stores_stand(site):
    site.write(
        YAML.replace("encoder:", "  - {name: cheap, kind: llm, backend: echo, model: x}\nencoder:")
    )
    assert notes() == ["store 'guides': is not built yet; run 'expert-composer store build guides'"]
    run("store", "build", "guides")
    assert notes() == []
    site.file("more.txt", "one more")
    (note,) = notes()
    assert note.startswith("store 'guides': its source has other files by now: 1 new; run")


def notes():
    found = json.loads(run("validate", "--json"))
    return [finding["text"] for finding in found["findings"] if finding["level"] == "note"]
