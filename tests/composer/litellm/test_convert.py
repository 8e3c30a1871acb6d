import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from composer.checks import check_registry
from composer.cli.main import app
from composer.litellm.convert import import_litellm
from experts_registry.errors import RegistryError
from experts_registry.registry import Registry

HERE = Path(__file__).parent
BALANCED, PROVIDERS = HERE / "balanced.yaml", HERE / "providers.yaml"


def converted(tmp_path, source=BALANCED):
    return import_litellm(source, tmp_path / "experts.yaml")


def written(tmp_path, text):
    (tmp_path / "config.yaml").write_text(text)
    return converted(tmp_path, tmp_path / "config.yaml")


def run(*arguments):
    return CliRunner().invoke(app, ["import-litellm", *map(str, arguments)])


@pytest.mark.parametrize("source", [BALANCED, PROVIDERS])
def test_the_result_is_valid(tmp_path, source):
    out = tmp_path / "experts.yaml"
    assert run(source, "--out", out).exit_code == 0
    found = check_registry(Registry.load(out))
    assert [one.text for one in found if one.level == "error"] == []


def test_deployments_of_one_model_become_a_composition_with_its_fallbacks(tmp_path):
    registry = converted(tmp_path).registry
    assert list(registry.experts) == ["small-1", "small-2", "big-1"]
    assert list(registry.compositions) == ["small", "big", "gpt-4"]
    small, big, alias = registry.compositions.values()
    assert small.experts == ("small-1", "small-2")
    assert small.fallbacks.any == ("small-1", "small-2", "big-1")
    assert small.fallbacks.context_length == ("big-1",)
    assert big.fallbacks.content_policy == ("small-1", "small-2")
    assert "&id" not in converted(tmp_path).text  # nobody edits anchors by hand
    assert (alias.experts, alias.fallbacks) == (big.experts, big.fallbacks)


def test_a_deployment_keeps_what_the_expert_file_can_say(tmp_path):
    first, second, big = converted(tmp_path).registry.experts.values()
    assert first.model == "meta-llama/Llama-3.1-8B-Instruct"
    assert first.options == {"base_url": "http://10.0.0.1:8000/v1"}
    assert (first.limits.concurrency, first.limits.retries, first.limits.seconds) == (32, 3, 30)
    assert second.options == {"base_url": "http://10.0.0.2:8000/v1", "api_key_env": "SMALL_KEY"}
    limits = (second.limits.seconds, second.limits.first_token_seconds, second.limits.retries)
    assert limits == (20, 5, 0)
    assert (big.price.prompt, big.price.completion, big.context_window) == (2.5, 10, 128_000)
    assert big.options["api_key_env"] == "OPENAI_API_KEY"


def test_no_secret_is_copied_or_told(tmp_path):
    out = tmp_path / "experts.yaml"
    said = (
        run(BALANCED, "--out", out, "--json").stdout + run(BALANCED, "--out", out, "--force").stdout
    )
    assert "canary" in BALANCED.read_text()
    assert "canary" not in said + out.read_text()


def test_what_is_left_is_told_with_its_line(tmp_path):
    lines = BALANCED.read_text().splitlines()
    left = {one.key: one for one in converted(tmp_path).left}
    expected = {
        "model_list.0.litellm_params.rpm": "rpm:",
        "model_list.1.model_name": "model_name: small",
        "model_list.1.litellm_params.tpm": "tpm:",
        "model_list.0.litellm_params.api_key": "api_key: none",
        "model_list.2.litellm_params.api_key": "api_key: sk-",
        "router_settings.routing_strategy": "routing_strategy",
        "router_settings.allowed_fails": "allowed_fails",
        "router_settings.cooldown_time": "cooldown_time",
        "router_settings.model_group_alias": "model_group_alias",
        "router_settings.redis_password": "redis_password",
        "litellm_settings.drop_params": "drop_params",
        "litellm_settings.content_policy_fallbacks": "unknown",
        "general_settings.master_key": "master_key",
        "general_settings.database_url": "database_url",
    }
    assert left.keys() == expected.keys()
    for key, text in expected.items():
        assert text in lines[left[key].line - 1]
    assert "OPENAI_API_KEY" in left["model_list.2.litellm_params.api_key"].why


@pytest.mark.parametrize(
    ("name", "url", "key"),
    [
        ("groq-llama", "https://api.groq.com/openai/v1", "GROQ_API_KEY"),
        ("mistral-small", "https://api.mistral.ai/v1", "MY_MISTRAL"),
        ("deepseek", "https://api.deepseek.com/v1", "DEEPSEEK_API_KEY"),
        ("router/sonnet", "https://openrouter.ai/api/v1", "OPENROUTER_API_KEY"),
        ("fireworks", "https://api.fireworks.ai/inference/v1", "FIREWORKS_API_KEY"),
        ("grok", "https://api.x.ai/v1", "XAI_API_KEY"),
        ("together", "https://api.together.xyz/v1", "TOGETHERAI_API_KEY"),
        ("local", "http://localhost:11434/v1", None),
        ("azure-4o", "https://my-resource.openai.azure.com/openai/v1", "AZURE_API_KEY"),
        ("auto-1", "https://api.openai.com/v1", "OPENAI_API_KEY"),
    ],
)
def test_a_provider_becomes_an_address_and_the_variable_of_its_key(tmp_path, name, url, key):
    options = converted(tmp_path, PROVIDERS).registry.experts[name].options
    assert (options["base_url"], options.get("api_key_env")) == (url, key)


def test_the_model_keeps_its_own_slashes(tmp_path):
    experts = converted(tmp_path, PROVIDERS).registry.experts
    assert experts["router/sonnet"].model == "anthropic/claude-sonnet-4"
    assert experts["azure-4o"].model == "my-deployment"


def test_who_does_not_speak_the_api_is_left_out_and_told(tmp_path):
    imported = converted(tmp_path, PROVIDERS)
    entries = [one.why for one in imported.left if one.key.count(".") == 1]
    said = [
        ("azure-by-proxy", "no address of an Azure OpenAI resource"),
        ("claude", "provider 'anthropic'"),
        ("titan", "provider 'bedrock'"),
        ("everything", "wildcards"),
        ("embed", "embedding"),
        ("nameless", "names no provider"),
        ("vllm-anywhere", "api_base: is missing"),
        ("", "no name here"),
    ]
    assert len(entries) == len(said)
    for why, (name, what) in zip(entries, said, strict=True):
        assert name in why
        assert what in why
    assert not {name for name, _ in said} & imported.registry.experts.keys()


def test_numbered_names_avoid_those_of_others(tmp_path):
    two = "  - {model_name: a, litellm_params: {model: openai/gpt-4o}}\n" * 2
    other = "  - {model_name: a-1, litellm_params: {model: openai/gpt-4o}}\n"
    registry = written(tmp_path, f"model_list:\n{two}{other}").registry
    assert list(registry.experts) == ["a-2", "a-3", "a-1"]
    assert registry.compositions["a"].experts == ("a-2", "a-3")


def test_default_fallbacks_stand_behind_every_other_group(tmp_path):
    text = "model_list:\n" + "".join(
        f"  - {{model_name: {name}, litellm_params: {{model: openai/gpt-4o}}}}\n" for name in "ab"
    )
    registry = written(tmp_path, text + "litellm_settings: {default_fallbacks: [b]}\n").registry
    assert registry.compositions["a"].fallbacks.any == ("b",)
    assert list(registry.compositions) == ["a"]


def test_an_address_may_come_from_the_environment(tmp_path, monkeypatch):
    params = "{model: openai/x, api_base: os.environ/WHERE}"
    text = f"model_list:\n  - {{model_name: a, litellm_params: {params}}}\n"
    monkeypatch.setenv("WHERE", "http://127.0.0.1:9/v1")
    expert = written(tmp_path, text).registry.experts["a"]
    assert expert.options == {"base_url": "http://127.0.0.1:9/v1"}  # OpenAI's key is not its own
    monkeypatch.delenv("WHERE")
    with pytest.raises(RegistryError, match=r"config.yaml:2: model_list.0: a: api_base"):
        written(tmp_path, text)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("model_list: {}\n", "model_list: is missing"),
        ("experts: []\n", "model_list: is missing"),
        ("model_list: []\n", "nothing of it can be converted"),
        ("model_list: [1]\n", r"config.yaml:1: model_list.0: is a int"),
        ("model_list:\n- litellm_params: 3\n", r"config.yaml:2: model_list.0.litellm_params"),
        ("a: [\n", "is not YAML"),
    ],
)
def test_another_file_is_refused(tmp_path, text, message):
    with pytest.raises(RegistryError, match=message):
        written(tmp_path, text)


def test_odd_values_are_told_and_not_believed(tmp_path):
    text = """\
model_list:
  - model_name: a
    litellm_params:
      {model: openai/gpt-4o, timeout: soon, max_tokens: -1, num_retries: 99, api_key: 7}
router_settings: {fallbacks: {a: [b]}, model_group_alias: [x], num_retries: many}
"""
    imported = written(tmp_path, text)
    limits = imported.registry.experts["a"].limits
    assert (limits.seconds, limits.max_tokens, limits.retries) == (None, None, 10)
    assert {one.key.rpartition(".")[2] for one in imported.left} == {
        "timeout", "max_tokens", "api_key", "fallbacks", "model_group_alias", "num_retries",
    }  # fmt: skip


def test_a_file_that_exists_is_kept(tmp_path):
    out = tmp_path / "experts.yaml"
    out.write_text("mine")
    refused = run(BALANCED, "--out", out)
    assert refused.exit_code != 0
    assert isinstance(refused.exception, RegistryError)
    assert out.read_text() == "mine"
    assert run(BALANCED, "--out", out, "--force").exit_code == 0


def test_json_for_machines(tmp_path):
    said = json.loads(run(BALANCED, "--out", tmp_path / "experts.yaml", "--json").stdout)
    assert said["experts"] == ["small-1", "small-2", "big-1"]
    assert said["left"][0].keys() == {"line", "key", "why"}
