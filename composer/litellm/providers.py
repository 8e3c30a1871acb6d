"""LiteLLM's providers that speak OpenAI's chat API: where each is, and which variable has its key.

Addresses and variables are those of the providers' and LiteLLM's documentation, November 2026.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import urlsplit

__all__ = ["PROVIDERS", "Provider", "provider_of"]


@dataclass(frozen=True, kw_only=True)
class Provider:
    """A server that speaks OpenAI's API.

    Args:
        url: its address; empty where every user has one of their own.
        key_env: the variable that LiteLLM reads its key from; empty where it needs none.
        suffix: what LiteLLM's ``api_base`` lacks of the address of the API.
    """

    url: str = ""
    key_env: str = ""
    suffix: str = ""

    def address(self, api_base: str) -> str:
        """Return the address of the API; an empty text where the file has to give it."""
        if not api_base:
            return self.url
        base = api_base.rstrip("/")
        return base if base.endswith(self.suffix) else base + self.suffix


_OWN = Provider()
_AZURE_HOSTS = (".openai.azure.com", ".cognitiveservices.azure.com", ".services.ai.azure.com")

PROVIDERS: Mapping[str, Provider] = {
    "azure": Provider(key_env="AZURE_API_KEY", suffix="/openai/v1"),
    "cerebras": Provider(url="https://api.cerebras.ai/v1", key_env="CEREBRAS_API_KEY"),
    "custom_openai": _OWN,
    "deepinfra": Provider(url="https://api.deepinfra.com/v1/openai", key_env="DEEPINFRA_API_KEY"),
    "deepseek": Provider(url="https://api.deepseek.com/v1", key_env="DEEPSEEK_API_KEY"),
    "fireworks_ai": Provider(
        url="https://api.fireworks.ai/inference/v1", key_env="FIREWORKS_API_KEY"
    ),
    "gemini": Provider(
        url="https://generativelanguage.googleapis.com/v1beta/openai", key_env="GEMINI_API_KEY"
    ),
    "groq": Provider(url="https://api.groq.com/openai/v1", key_env="GROQ_API_KEY"),
    "hosted_vllm": _OWN,
    "litellm_proxy": _OWN,
    "llamafile": Provider(url="http://127.0.0.1:8080/v1"),
    "lm_studio": Provider(url="http://127.0.0.1:1234/v1"),
    "mistral": Provider(url="https://api.mistral.ai/v1", key_env="MISTRAL_API_KEY"),
    "nvidia_nim": Provider(url="https://integrate.api.nvidia.com/v1", key_env="NVIDIA_NIM_API_KEY"),
    "ollama": Provider(url="http://127.0.0.1:11434/v1", suffix="/v1"),
    "ollama_chat": Provider(url="http://127.0.0.1:11434/v1", suffix="/v1"),
    "openai": Provider(url="https://api.openai.com/v1", key_env="OPENAI_API_KEY"),
    "openai_like": _OWN,
    "openrouter": Provider(url="https://openrouter.ai/api/v1", key_env="OPENROUTER_API_KEY"),
    "perplexity": Provider(url="https://api.perplexity.ai", key_env="PERPLEXITYAI_API_KEY"),
    "sambanova": Provider(url="https://api.sambanova.ai/v1", key_env="SAMBANOVA_API_KEY"),
    "together_ai": Provider(url="https://api.together.xyz/v1", key_env="TOGETHERAI_API_KEY"),
    "xai": Provider(url="https://api.x.ai/v1", key_env="XAI_API_KEY"),
}
# LiteLLM knows who serves these without being told.
_OPENAIS = ("gpt-", "chatgpt-", "o1", "o3", "o4", "ft:gpt-")


def provider_of(model: str, named: str, api_base: str) -> tuple[str, str]:
    """Return the provider's name and what it calls the model.

    Args:
        model: as LiteLLM writes it, ``provider/model``.
        named: LiteLLM's ``custom_llm_provider``.
        api_base: the address in the file, if it has one.

    Raises:
        ValueError: nobody here that speaks OpenAI's API; the message says why.
    """
    prefix, slash, rest = model.partition("/")
    if named:
        provider, served = named, rest if slash and prefix == named else model
    elif slash:
        provider, served = prefix, rest
    elif model.startswith(_OPENAIS):
        provider, served = "openai", model
    else:
        raise ValueError("names no provider; write provider/model")
    if provider not in PROVIDERS:
        raise ValueError(
            f"provider {provider!r} does not speak OpenAI's API, as far as is known here; "
            "if it does, write openai/ and its api_base"
        )
    host = urlsplit(api_base).hostname or ""
    if provider == "azure" and not host.endswith(_AZURE_HOSTS):
        raise ValueError("azure: api_base is no address of an Azure OpenAI resource")
    return provider, served
