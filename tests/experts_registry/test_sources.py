import errno
import hashlib
import sys
from pathlib import Path

import pytest

from experts_registry import ExpertSpec
from experts_registry.errors import ModelSourceError
from experts_registry.sources import cache_dir, disk_full, find, locate, source_digest


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("EXPERT_COMPOSER_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def model(tmp_path):
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    (folder / "model.safetensors").write_bytes(b"weights" * 200_000)
    return folder


@pytest.fixture
def installed(tmp_path, monkeypatch):
    """Make a folder from which packages can be imported."""
    folder = tmp_path / "site"
    folder.mkdir()
    monkeypatch.syspath_prepend(str(folder))
    return folder


def spec(model, **keys):
    keys = {"name": "it", "kind": "llm", "backend": "transformers", "model": model, **keys}
    return ExpertSpec.model_validate(keys)


def sha(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_a_hub_name_passes_through():
    assert locate(spec("Qwen/Qwen2.5-0.5B")) == "Qwen/Qwen2.5-0.5B"


def test_a_folder_is_itself(model):
    assert locate(spec(f"path:{model}")) == str(model)


def test_a_folder_around_one_model_is_that_model(model):
    assert locate(spec(f"path:{model.parent}")) == str(model)
    other = model.parent / "other"
    other.mkdir()
    (other / "modules.json").write_text("[]")
    with pytest.raises(ModelSourceError, match=r"holds model, other; name the file or folder"):
        locate(spec(f"path:{model.parent}"))


def test_a_package_is_found_without_importing_it(installed):
    (installed / "shipped_model" / "model").mkdir(parents=True)
    (installed / "shipped_model" / "__init__.py").write_text("raise SystemExit('imported')")
    (installed / "shipped_model" / "model" / "config.json").write_text("{}")
    inside = installed / "shipped_model" / "model"
    assert locate(spec("package:shipped_model")) == str(inside)
    assert locate(spec("package:shipped_model/model")) == str(inside)
    assert find("package:shipped_model.model/config.json") == inside / "config.json"
    assert "shipped_model" not in sys.modules


def test_a_package_without_init_is_found(installed):
    (installed / "bare_data").mkdir()
    (installed / "bare_data" / "config.json").write_text("{}")
    assert locate(spec("package:bare_data")) == str(installed / "bare_data")


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("package:no_such_package/x", r"no package 'no_such_package' is installed here"),
        ("package:no_such.inner", r"no package 'no_such.inner' is installed"),
        ("package:errno/x", r"no package 'errno'"),
        ("package:.json", r"no package '.json'"),
        ("package:json/decodr.py", r"did you mean 'decoder.py'"),
        ("package:", r"is not a local model; use path:"),
        ("path:", r"is not a local model; use path:"),
    ],
)
def test_a_source_that_is_not_there_says_what_is(source, message):
    with pytest.raises(ModelSourceError, match=message):
        locate(spec(source))


def test_a_missing_file_offers_the_nearest(model):
    with pytest.raises(
        ModelSourceError, match=r"holds config.json, model.safetensors; did you mean"
    ):
        locate(spec(f"path:{model}/model.safetensor"))
    with pytest.raises(ModelSourceError, match=rf"{model.parent} holds .*did you mean 'model'"):
        locate(spec(f"path:{model.parent}/modle"))
    with pytest.raises(ModelSourceError, match=r"does not exist"):
        locate(spec("path:/no/such/folder/at/all"))


def test_an_empty_folder_is_no_model(tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(ModelSourceError, match=r"it has no config.json, .*holds none"):
        locate(spec(f"path:{tmp_path}/empty"))


def test_a_weights_file_alone_is_no_model(model):
    with pytest.raises(ModelSourceError, match=r"not a GGUF file: .* or a folder with config.json"):
        locate(spec(f"path:{model}/model.safetensors"))


def test_the_digest_of_a_folder_is_checked_on_its_weights(model):
    right = sha(model / "model.safetensors")
    assert locate(spec(f"path:{model}", sha256=right)) == str(model)
    with pytest.raises(ModelSourceError, match=rf"model.safetensors is {right[:12]}.* says 000000"):
        locate(spec(f"path:{model}", sha256="0" * 64))
    (model / "second.safetensors").write_bytes(b"x")
    with pytest.raises(ModelSourceError, match=r"sha256 needs a single file, .* holds 2"):
        locate(spec(f"path:{model}", sha256=right))


def test_a_digest_cannot_be_checked_on_the_hub():
    with pytest.raises(ModelSourceError, match=r"sha256 needs a local file.*options.revision"):
        locate(spec("org/name", sha256="0" * 64))


def test_parts_are_local_files(model):
    with pytest.raises(ModelSourceError, match=r"path: or package: before each"):
        locate(spec(["a", "b"]))
    with pytest.raises(ModelSourceError, match=r"'b': is not a local model"):
        locate(spec([f"path:{model}/config.json", "b"]))
    with pytest.raises(ModelSourceError, match=r"is a folder; only files can be joined"):
        locate(spec([f"path:{model}/config.json", f"path:{model}"]))


def test_a_large_file_is_hashed_once(model, cache):
    weights = model / "model.safetensors"
    locate(spec(f"path:{model}", sha256=sha(weights)))
    (note,) = (cache / "digests").iterdir()
    note.write_text("f" * 64)  # Seen only by one who reads the note instead of the file.
    assert locate(spec(f"path:{model}", sha256="f" * 64)) == str(model)
    weights.write_bytes(weights.read_bytes() + b"changed")
    with pytest.raises(ModelSourceError, match="damaged or another version"):
        locate(spec(f"path:{model}", sha256="f" * 64))


def test_a_cache_that_cannot_be_written_costs_only_time(model, cache):
    cache.write_text("a file is in the way")
    right = sha(model / "model.safetensors")
    assert locate(spec(f"path:{model}", sha256=right)) == str(model)


def test_the_source_digest_follows_the_content(model, tmp_path):
    before = source_digest(spec(f"path:{model}"))
    assert source_digest(spec(f"path:{model.parent}")) == before
    (model / "README.md").write_text("words")
    assert source_digest(spec(f"path:{model}")) == before
    copy = tmp_path / "elsewhere"
    copy.mkdir()
    for file in model.iterdir():
        (copy / file.name).write_bytes(file.read_bytes())
    assert source_digest(spec(f"path:{copy}")) == before
    (model / "tokenizer.json").write_text("{}")
    assert source_digest(spec(f"path:{model}")) != before


def test_the_source_digest_of_a_hub_name_follows_its_revision():
    name = source_digest(spec("org/name"))
    assert name == source_digest(spec("org/name", options={"revision": "main"}))
    assert name != source_digest(spec("org/name", options={"revision": "v1"}))
    assert name != source_digest(spec("org/other"))


def test_the_source_digest_of_a_file_is_its_sha256(model):
    weights = model / "model.safetensors"
    assert source_digest(spec(f"path:{weights}")) == sha(weights)


def test_the_cache_is_where_the_user_says(tmp_path, monkeypatch):
    assert cache_dir() == tmp_path / "cache"
    monkeypatch.delenv("EXPERT_COMPOSER_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache_dir() == tmp_path / "xdg" / "expert-composer"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert cache_dir() == Path.home() / ".cache" / "expert-composer"


def test_a_full_disk_is_recognised_from_either_library():
    assert disk_full(OSError(errno.ENOSPC, "No space left on device"))
    assert disk_full(ValueError("I/O error: No space left on device (os error 28)"))
    assert not disk_full(OSError(errno.ENOENT, "No such file"))
