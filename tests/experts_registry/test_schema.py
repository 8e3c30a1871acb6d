import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from pydantic import ValidationError

from experts_registry.registry import Registry, registry_schema
from experts_registry.schema import Composition, ExpertSpec, Price, Select

ROOT = Path(__file__).parents[2]
SPEC = {"name": "a", "kind": "llm", "backend": "echo", "model": "x"}


def test_the_schema_is_json_and_describes_every_key():
    schema = json.loads(json.dumps(registry_schema()))
    assert schema["$schema"].startswith("https://json-schema.org/")
    assert schema["title"] == "expert-composer registry"
    for model in [schema, *schema["$defs"].values()]:
        for key, described in model["properties"].items():
            assert described.get("description"), f"{model['title']}.{key} has no description"


def test_the_schema_forbids_what_the_models_forbid():
    schema = registry_schema()
    assert schema["additionalProperties"] is False
    assert schema["$defs"]["ExpertSpec"]["additionalProperties"] is False
    assert schema["$defs"]["InlineRouter"]["additionalProperties"] is True


def test_specs_are_frozen_and_known_by_their_content():
    spec = ExpertSpec.model_validate(SPEC)
    with pytest.raises(ValidationError, match="frozen"):
        spec.name = "b"
    assert spec.digest == ExpertSpec.model_validate(dict(reversed(SPEC.items()))).digest
    assert spec.digest != ExpertSpec.model_validate({**SPEC, "model": "y"}).digest


def test_a_price_is_per_million_tokens():
    assert Price(prompt=2.5, completion=10).cost(1_000_000, 100_000) == pytest.approx(3.5)


def test_sources_are_the_parts_in_order():
    assert ExpertSpec.model_validate(SPEC).sources == ("x",)
    assert ExpertSpec.model_validate({**SPEC, "model": ["a", "b"]}).sources == ("a", "b")


def test_a_composition_needs_only_a_name():
    assert Composition(name="auto").experts == ()


def test_the_page_of_keys_and_messages_is_current():
    check = [sys.executable, ROOT / "scripts" / "registry_docs", "--check"]
    done = subprocess.run(check, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_the_example_of_the_page_loads():
    page = (ROOT / "docs" / "registry.md").read_text()
    example = re.search(r"```yaml\n(version.*?)```", page, re.DOTALL)[1]
    assert list(Registry.parse(example, path="experts.yaml").compositions) == ["auto"]


def test_an_unquoted_null_names_the_policy():
    assert Select.model_validate({"policy": None}).policy == "null"
