import json

import pytest

from composer.retriever_training.expert import train_expert
from composer.retriever_training.material import of_pairs
from composer.retriever_training.registering import Newcomer
from experts_registry.errors import (
    DataError,
    ModelSourceError,
    RegistryError,
    UnknownNameError,
)
from experts_registry.registry import Registry
from tests.composer.retriever_training.conftest import QUICK, subject_pairs, write_pairs
from tests.composer.test_cli import run

pytest.importorskip("peft", reason="needs expert-composer[lora]")
ONE_STEP = QUICK.model_copy(update={"steps": 1})


def newcomer(path, **changes):
    values = {"name": "bio", "base": "general", "folder": path.parent / "retrievers/bio", **changes}
    return Newcomer(registry=Registry.load(path), **values)


def test_a_better_retriever_is_registered_beside_its_base(registry_path, tmp_path):
    before = registry_path.read_text()
    pairs = write_pairs(tmp_path / "pairs.jsonl", subject_pairs())
    settings = ("learning_rate=0.01", "steps=40", "evaluate_every=10", "patience=9")
    done = run(
        *("retrievers", "train", "bio", "--base", "general", "--pairs", pairs, "--threads", 1),
        *("--domain", "biology", "--store", "papers", "--json"),
        *(part for setting in settings for part in ("--set", setting)),
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr + done.stdout
    folder = tmp_path / "retrievers/bio"
    names = {"adapter_config.json", "adapter_model.safetensors", "training.json"}
    assert {path.name for path in folder.iterdir()} == names
    assert json.loads((folder / "training.json").read_text()) == json.loads(done.stdout)["training"]
    file = Registry.load(registry_path)
    assert file.experts["bio"].domains == ("biology",)
    assert file.experts["bio"].options == {"adapter": f"path:{folder}", "adapts": "query"}
    assert file.experts["bio"].model == file.experts["general"].model
    assert file.store("papers").retrievers == ("general", "bio")
    text = registry_path.read_text()
    assert "path:retrievers/bio" in text
    assert text.replace("[general, bio]", "[general]").startswith(before[: before.index("stores")])
    assert "# the general one" in text
    assert "[general, bio]  # more to come" in text
    assert not (tmp_path / "retrievers/.bio.training").exists()


def test_one_that_is_not_better_is_refused_and_kept_for_force(registry_path, tmp_path):
    before = registry_path.read_text()
    pairs = write_pairs(tmp_path / "pairs.jsonl", subject_pairs(shuffled=True))
    command = ("retrievers", "train", "bio", "--base", "general", "--pairs", pairs, "--quiet")
    command += ("--set", "steps=2", "--set", "evaluate_every=1", "--seed", 1)
    refused = run(*command, cwd=tmp_path)
    assert refused.returncode == 1
    assert "not registered" in refused.stderr
    assert registry_path.read_text() == before
    assert not (tmp_path / "retrievers/bio").exists()
    forced = run(*command, "--force", cwd=tmp_path)
    assert forced.returncode == 0, forced.stderr
    assert "bio" in Registry.load(registry_path).retrievers


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"base": "generel"}, UnknownNameError, "did you mean 'general'"),
        ({"base": "words"}, ModelSourceError, "has no weights to train"),
        ({"name": "words"}, RegistryError, "'words' is there already"),
        ({"stores": ["paper"]}, UnknownNameError, "did you mean 'papers'"),
        ({"name": "a/../../b"}, RegistryError, "leave out '..'"),
    ],
)
def test_what_cannot_be_is_said_before_the_training(registry_path, changes, error, message):
    with pytest.raises(error, match=message):
        newcomer(registry_path, **changes).check()


def test_a_folder_that_is_there_is_not_touched(registry_path):
    one = newcomer(registry_path)
    one.folder.mkdir(parents=True)
    with pytest.raises(DataError, match="is there already"):
        one.check()


def test_an_edit_that_is_refused_leaves_no_retriever(registry_path):
    one = newcomer(registry_path)
    material = of_pairs(subject_pairs(40))
    registry_path.write_text("version: 1\nexperts: nonsense\n")
    with pytest.raises(RegistryError):
        train_expert(one, material, ONE_STEP, force=True, quiet=True)
    assert not one.folder.exists()
    assert registry_path.read_text() == "version: 1\nexperts: nonsense\n"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "either --pairs or --judged"),
        (("--pairs", "empty.jsonl"), "holds no pair"),
        (("--pairs", "none.jsonl"), "none.jsonl: cannot be read"),
        (("--pairs", "one.jsonl"), "1 different queries are too few"),
        (("--pairs", "one.jsonl", "--set", "step=3"), "did you mean 'steps'"),
        (("--pairs", "one.jsonl", "--set", "steps=0"), "steps: 0"),
        (("--judged", "nowhere"), "holds no queries.jsonl"),
    ],
)
def test_bad_input_ends_in_one_line(registry_path, tmp_path, arguments, message):
    (tmp_path / "empty.jsonl").write_text("")
    write_pairs(tmp_path / "one.jsonl", [("q", "p")])
    done = run("retrievers", "train", "bio", "--base", "general", *arguments, cwd=tmp_path)
    assert done.returncode != 0
    assert message in " ".join(done.stderr.replace("│", " ").split())
    assert "Traceback" not in done.stderr
