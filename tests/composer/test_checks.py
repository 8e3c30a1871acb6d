import json

import pytest

from composer.checks import check_registry
from experts_registry.registry import Registry

FILE = """\
version: 1
experts:
  - name: legal
    kind: retriever
    backend: sentence_transformers
    model: path:encoder
    options:
      adapter: path:adapters/legal
"""


@pytest.fixture
def file(tmp_path):
    (tmp_path / "encoder").mkdir()
    (tmp_path / "encoder/config.json").write_text("{}")
    path = tmp_path / "experts.yaml"
    path.write_text(FILE)
    return path


def errors(file):
    found = check_registry(Registry.load(file))
    return [finding.text for finding in found if finding.level == "error"]


def test_a_missing_adapter_is_found_with_its_line(file):
    (error,) = errors(file)
    assert error.startswith(f"{file}:8: expert 'legal': options.adapter: ")
    assert "does not exist" in error


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (None, "is no LoRA adapter"),
        ({"peft_type": "IA3"}, "is of PEFT type 'IA3'"),
        ({"peft_type": "LORA", "use_dora": True}, "LoRA with use_dora"),
        ({"peft_type": "LORA"}, "has no adapter_model.safetensors"),
    ],
)
def test_what_is_no_adapter_is_found_with_its_line(file, config, message):
    folder = file.parent / "adapters/legal"
    folder.mkdir(parents=True)
    if config is not None:
        (folder / "adapter_config.json").write_text(json.dumps(config))
    (error,) = errors(file)
    assert error.startswith(f"{file}:8: expert 'legal': options.adapter: ")
    assert message in error


def test_pilots_that_are_not_there_are_noted(file):
    one = "{name: guides, passages: docs, retrievers: [legal], router: routers/pilot}"
    file.write_text(f"{FILE}stores:\n- {one}\n")
    notes = [each.text for each in check_registry(Registry.load(file)) if each.level == "note"]
    assert any("router routers/pilot does not exist yet" in note for note in notes)
    (file.parent / "routers/pilot").mkdir(parents=True)
    (file.parent / "routers/pilot/router.json").write_text("{}")
    notes = [each.text for each in check_registry(Registry.load(file))]
    assert not any("does not exist yet" in note for note in notes)


def test_a_good_adapter_is_no_finding(file):
    folder = file.parent / "adapters/legal"
    folder.mkdir(parents=True)
    (folder / "adapter_config.json").write_text('{"peft_type": "LORA"}')
    (folder / "adapter_model.safetensors").touch()
    assert errors(file) == []
