"""What the files of an embedding model say of how it is run."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from transformers import AutoConfig
from transformers.utils.hub import cached_file

from experts_registry.backends.encoder_options import Options
from experts_registry.backends.local_models import hub_arguments, pick_device
from experts_registry.schema import ExpertSpec
from experts_registry.sources import locate
from experts_registry.types import Role

__all__ = ["EncoderFiles"]

_CONFIG = "sentence_bert_config.json"
_PLAIN_CONFIG: Mapping[str, tuple[Any, ...]] = {
    "do_lower_case": (False,),
    "transformer_task": ("feature-extraction",),
    "module_output_name": ("token_embeddings",),
    "modality_config": (
        {"text": {"method": "forward", "method_output_name": "last_hidden_state"}},
    ),
}


class EncoderFiles:
    """The model's files, and what they say where the options do not."""

    def __init__(self, spec: ExpertSpec, options: Options) -> None:
        self.path = locate(spec)
        self.device = pick_device(spec, options.device)
        self.options = options
        self.hub = hub_arguments(
            spec, revision=options.revision, trust_remote_code=options.trust_remote_code
        )

    def prompts(self) -> Mapping[Role, str]:
        """Return what is put before a text of each role."""
        config = self._read("config_sentence_transformers.json")
        known = config.get("prompts") or {}
        default = known.get(config.get("default_prompt_name"), "")
        passage = next((known[k] for k in ("document", "passage", "corpus") if k in known), default)
        own = self.options
        return {
            "query": known.get("query", default) if own.query_prompt is None else own.query_prompt,
            "passage": passage if own.passage_prompt is None else own.passage_prompt,
        }

    def pooling(self) -> str | None:
        """Return ``mean`` or ``cls`` for the usual kind of model, ``None`` for every other."""
        modules = self._read("modules.json")
        if not modules:
            return "mean" if self._is_bare_encoder() else None
        kinds = [module["type"].rpartition(".")[2] for module in modules]
        if kinds[:2] != ["Transformer", "Pooling"] or kinds[2:] not in ([], ["Normalize"]):
            return None
        config = self._read(_CONFIG)
        is_plain = all(config.get(key, ok[0]) in ok for key, ok in _PLAIN_CONFIG.items())
        known = {*_PLAIN_CONFIG, "max_seq_length"}
        if modules[0]["path"] or not config or not is_plain or config.keys() - known:
            return None
        if self._config().is_encoder_decoder:
            return None
        return _pooling_mode(self._read(f"{modules[1]['path']}/config.json"))

    def max_length(self, *, tokenizer: int | None, model: int | None) -> int | None:
        """Return how many tokens of a text are read.

        Args:
            tokenizer: its own limit, which counts where nothing else is stated.
            model: positions that there are; never exceeded.
        """
        own = self.options.max_length
        stated = self._read(_CONFIG).get("max_seq_length") if own is None else own
        # A tokenizer without a limit states an astronomic one.
        limits = [tokenizer if stated is None else stated, model]
        return min((n for n in limits if n is not None and n < 10**9), default=None)

    def _is_bare_encoder(self) -> bool:
        """Tell a text encoder that nobody made a sentence-transformers model."""
        config = self._config()
        names = getattr(config, "architectures", None) or [""]
        is_text = getattr(config, "vocab_size", None) and not config.is_encoder_decoder
        return bool(is_text) and names[0].endswith(("Model", "ForMaskedLM"))

    def _config(self) -> Any:
        return AutoConfig.from_pretrained(self.path, **self.hub)

    def _read(self, name: str) -> Any:
        """Return a JSON file's content, or an empty mapping where there is none."""
        revision = {"revision": self.hub["revision"]} if "revision" in self.hub else {}
        path = cached_file(self.path, name, _raise_exceptions_for_missing_entries=False, **revision)
        return {} if path is None else json.loads(Path(path).read_text(encoding="utf-8"))


def _pooling_mode(config: Mapping[str, Any]) -> str | None:
    # Before version 6 each mode had a flag of its own.
    flags = [key for key, value in config.items() if key.startswith("pooling_mode_") and value]
    legacy = {"pooling_mode_mean_tokens": "mean", "pooling_mode_cls_token": "cls"}
    mode = config.get("pooling_mode", legacy.get(flags[0]) if len(flags) == 1 else None)
    return mode if mode in ("mean", "cls") and config.get("include_prompt", True) else None
