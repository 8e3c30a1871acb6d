"""Embed texts with a sentence-transformers model, in this process.

Most such models are an encoder, mean or first-token pooling, and a normalisation. Those run here
on transformers alone, with the same vectors: importing sentence_transformers takes seconds.
"""

import hashlib
import json
import threading
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from pydantic import BaseModel, Field
from transformers import AutoConfig, AutoModel, AutoTokenizer
from transformers.utils.hub import cached_file

from experts_registry.backends.local_models import (
    DTYPES,
    bounded,
    computing,
    encodable,
    hub_arguments,
    loading,
    pick_device,
)
from experts_registry.backends.options import check_offers, closed, parse_options
from experts_registry.backends.tokens import text_of
from experts_registry.errors import ExpertReplyError, OffersError
from experts_registry.schema import ExpertSpec
from experts_registry.sources import locate, source_digest
from experts_registry.types import FloatArray, Role

__all__ = ["Options", "SentenceTransformersEmbedder"]

_CONFIG = "sentence_bert_config.json"
_PLAIN_CONFIG: Mapping[str, tuple[Any, ...]] = {
    "do_lower_case": (False,),
    "transformer_task": ("feature-extraction",),
    "module_output_name": ("token_embeddings",),
    "modality_config": (
        {"text": {"method": "forward", "method_output_name": "last_hidden_state"}},
    ),
}


class Options(BaseModel, extra="forbid", frozen=True):
    """What ``options:`` may hold for this backend."""

    query_prompt: str | None = Field(
        None, description="Put before every query; by default what the model says."
    )
    passage_prompt: str | None = Field(
        None, description="Put before every passage; by default what the model says."
    )
    max_length: int | None = Field(
        None, ge=1, description="Tokens of a text that are read; by default what the model says."
    )
    batch_size: int = Field(32, ge=1, le=4096, description="Texts that are embedded together.")
    device: str = Field("auto", description="auto (the GPU if there is one), cpu, cuda, cuda:1.")
    dtype: Literal["float32", "bfloat16", "float16"] = Field(
        "float32", description="Of the weights; the vectors are float32."
    )
    revision: str | None = Field(None, description="Branch, tag or commit of a hub model.")
    trust_remote_code: bool = Field(False, description="Run Python code that comes with the model.")
    matryoshka: bool = Field(
        False,
        description="The model was trained to be shortened: requests may ask for the first few "
        "dimensions.",
    )


class SentenceTransformersEmbedder:
    """An embedding model in this process, loaded at the first call."""

    offers: tuple[str, ...] = ("embeddings",)

    def __init__(self, spec: ExpertSpec) -> None:
        self.spec = spec
        self.options = parse_options(Options, spec)
        check_offers(spec, self.offers)
        self._lock = threading.Lock()
        self._encode: _Plain | _Packaged | None = None
        self._prompts: Mapping[Role, str] = {}
        self._closed = False

    @cached_property
    def digest(self) -> str:
        """Identify the vectors: the model, and the options that change them."""
        options = self.options
        changes = [options.query_prompt, options.passage_prompt, options.max_length, options.dtype]
        text = json.dumps([source_digest(self.spec), *changes])
        return hashlib.sha256(text.encode()).hexdigest()

    def load(self) -> None:
        """Load the model now instead of at the first call."""
        self._ready()

    def embed(self, texts: Sequence[str], *, role: Role) -> FloatArray:
        """Return one L2-normalised float32 row per text, (n, d)."""
        if not texts:
            return self.embed([""], role=role)[:0]
        encode, prompt, size = self._ready(), self._prompts[role], self.options.batch_size
        # Texts of similar length together: short ones are not padded to the longest of all.
        order = sorted(range(len(texts)), key=lambda i: -len(texts[i]))
        batches = [order[start : start + size] for start in range(0, len(order), size)]
        with computing(self.spec):
            vectors = torch.cat(
                [encode([encodable(texts[i]) for i in rows], prompt) for rows in batches]
            )
            unit = torch.nn.functional.normalize(vectors.float(), dim=-1).cpu().numpy()
        x = np.empty_like(unit)
        x[order] = unit
        if not np.isfinite(x).all():
            raise ExpertReplyError(
                f"expert {self.spec.name!r}: the model computed NaN; use options.dtype float32"
            )
        return x

    def shortened(self, x: FloatArray, dimensions: int) -> FloatArray:
        """Return rows of the first dimensions, of unit length.

        Raises:
            OffersError: the model was not trained for that.
        """
        if not self.options.matryoshka:
            raise OffersError(
                f"dimensions: {self.spec.name!r} has {x.shape[1]}, and says too little in "
                f"{dimensions}; leave it out, or set options.matryoshka if its model was "
                "trained so",
                "dimensions",
            )
        first = x[:, :dimensions]
        unit: FloatArray = first / np.linalg.norm(first, axis=1, keepdims=True).clip(1e-12)
        return unit

    def detokenize(self, tokens: Sequence[int]) -> str:
        """Return the text that these tokens of the model's stand for.

        Raises:
            OptionError: one of them is not the model's.
        """
        return text_of(f"expert {self.spec.name!r}", self._ready().tokenizer, tokens)

    def close(self) -> None:
        """Free the model."""
        with self._lock:
            self._closed, self._encode = True, None

    def _ready(self) -> "_Plain | _Packaged":
        with self._lock:
            if self._closed:
                raise closed(self.spec)
            if self._encode is None:
                with loading(self.spec):
                    source = _Source(self.spec, self.options)
                    self._prompts = source.prompts()
                    plain = source.pooling()
                    self._encode = _Packaged(source) if plain is None else _Plain(source, plain)
            return self._encode


class _Source:
    """The model's files, and what they say."""

    def __init__(self, spec: ExpertSpec, options: Options) -> None:
        self.path = locate(spec)
        self.device = pick_device(spec, options.device)
        self.options = options
        self.hub = hub_arguments(
            spec, revision=options.revision, trust_remote_code=options.trust_remote_code
        )

    def read(self, name: str) -> Any:
        """Return a JSON file's content, or an empty mapping where there is none."""
        revision = {"revision": self.hub["revision"]} if "revision" in self.hub else {}
        path = cached_file(self.path, name, _raise_exceptions_for_missing_entries=False, **revision)
        return {} if path is None else json.loads(Path(path).read_text(encoding="utf-8"))

    def prompts(self) -> Mapping[Role, str]:
        """Return what is put before a text of each role."""
        config = self.read("config_sentence_transformers.json")
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
        modules = self.read("modules.json")
        kinds = [module["type"].rpartition(".")[2] for module in modules]
        if kinds[:2] != ["Transformer", "Pooling"] or kinds[2:] not in ([], ["Normalize"]):
            return None
        config = self.read(_CONFIG)
        is_plain = all(config.get(key, ok[0]) in ok for key, ok in _PLAIN_CONFIG.items())
        known = {*_PLAIN_CONFIG, "max_seq_length"}
        if modules[0]["path"] or not config or not is_plain or config.keys() - known:
            return None
        if AutoConfig.from_pretrained(self.path, **self.hub).is_encoder_decoder:
            return None
        return _pooling_mode(self.read(f"{modules[1]['path']}/config.json"))

    def max_length(self, *, tokenizer: int | None, model: int | None) -> int | None:
        """Return how many tokens of a text are read.

        Args:
            tokenizer: its own limit, which counts where nothing else is stated.
            model: positions that there are; never exceeded.
        """
        own = self.options.max_length
        stated = self.read(_CONFIG).get("max_seq_length") if own is None else own
        # A tokenizer without a limit states an astronomic one.
        limits = [tokenizer if stated is None else stated, model]
        return min((n for n in limits if n is not None and n < 10**9), default=None)


def _pooling_mode(config: Mapping[str, Any]) -> str | None:
    # Before version 6 each mode had a flag of its own.
    flags = [key for key, value in config.items() if key.startswith("pooling_mode_") and value]
    legacy = {"pooling_mode_mean_tokens": "mean", "pooling_mode_cls_token": "cls"}
    mode = config.get("pooling_mode", legacy.get(flags[0]) if len(flags) == 1 else None)
    return mode if mode in ("mean", "cls") and config.get("include_prompt", True) else None


class _Plain:
    """An encoder with mean or first-token pooling, as sentence_transformers computes it."""

    def __init__(self, source: _Source, pooling: str) -> None:
        self._pooling = pooling
        self.tokenizer: Any = AutoTokenizer.from_pretrained(source.path, **source.hub)
        model = AutoModel.from_pretrained(
            source.path, dtype=DTYPES[source.options.dtype], **source.hub
        )
        self._model: Any = model.to(source.device).eval()
        config = self._model.config
        self._max_length = source.max_length(
            tokenizer=self.tokenizer.model_max_length,
            model=getattr(config, "max_position_embeddings", None),
        )
        # A tokenizer keeps its padding and truncation as state: one thread at a time.
        self._lock = threading.Lock()

    def __call__(self, texts: list[str], prompt: str) -> torch.Tensor:
        with self._lock:
            features = self.tokenizer(
                [bounded(prompt + text, self._max_length) for text in texts],
                padding=True,
                truncation=self._max_length is not None,
                max_length=self._max_length,
                return_tensors="pt",
            ).to(self._model.device)
        states = self._model(**features).last_hidden_state  # (n, tokens, width)
        mask = features["attention_mask"]  # (n, tokens)
        if self._pooling == "cls":
            first: torch.Tensor = states[torch.arange(len(states)), mask.argmax(dim=1)]
            return first
        weight = mask.unsqueeze(-1).to(states.dtype)
        total = (states * weight).sum(dim=1, dtype=torch.float32)
        mean: torch.Tensor = total / weight.sum(dim=1, dtype=torch.float32).clamp(min=1e-9)
        return mean


class _Packaged:
    """Whatever the sentence_transformers package can load."""

    def __init__(self, source: _Source) -> None:
        from sentence_transformers import SentenceTransformer

        self._model: Any = SentenceTransformer(
            source.path,
            device=str(source.device),
            model_kwargs={"dtype": DTYPES[source.options.dtype]},
            **source.hub,
        )
        self.tokenizer: Any = self._model.tokenizer
        self._max_length = source.max_length(tokenizer=self._model.max_seq_length, model=None)
        if self._max_length is not None:
            self._model.max_seq_length = self._max_length
        self._lock = threading.Lock()

    def __call__(self, texts: list[str], prompt: str) -> torch.Tensor:
        with self._lock:
            vectors: torch.Tensor = self._model.encode(
                [bounded(text, self._max_length) for text in texts],
                prompt=prompt or None,
                batch_size=max(1, len(texts)),
                convert_to_tensor=True,
                show_progress_bar=False,
            )
        return vectors
