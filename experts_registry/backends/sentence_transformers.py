"""Embed texts with a sentence-transformers model, in this process.

Most such models are an encoder, mean or first-token pooling, and a normalisation. Those run here
on transformers alone, with the same vectors: importing sentence_transformers takes seconds. All
experts of one model share its weights, also those with a LoRA adapter or of fewer layers.
"""

import hashlib
import json
import threading
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

import numpy as np
import torch

from experts_registry.backends.encoder_files import EncoderFiles
from experts_registry.backends.encoder_options import Options
from experts_registry.backends.encoders import (
    Encoder,
    PackagedBase,
    PackagedEncoder,
    PlainBase,
    PlainEncoder,
)
from experts_registry.backends.local_models import computing, encodable, loading
from experts_registry.backends.lora import LoraAdapter
from experts_registry.backends.options import check_offers, closed, parse_options
from experts_registry.backends.shared_weights import lowest_layers, shared
from experts_registry.backends.tokens import text_of
from experts_registry.errors import ExpertReplyError, OffersError, RegistryError
from experts_registry.schema import ExpertSpec
from experts_registry.sources import source_digest
from experts_registry.types import FloatArray, Role

__all__ = ["Options", "SentenceTransformersEmbedder"]


class SentenceTransformersEmbedder:
    """An embedding model in this process, loaded at the first call."""

    offers: tuple[str, ...] = ("embeddings",)

    def __init__(self, spec: ExpertSpec) -> None:
        self.spec = spec
        self.options = parse_options(Options, spec)
        check_offers(spec, self.offers)
        adapter = self.options.adapter
        self._adapter = None if adapter is None else LoraAdapter.find(spec, adapter)
        self._lock = threading.Lock()
        self._encoders: Mapping[Role, Encoder] | None = None
        self._prompts: Mapping[Role, str] = {}
        self._closed = False

    @cached_property
    def digest(self) -> str:
        """Identify the vectors: the model, and the options that change them."""
        return self._digest(self.options.query_prompt, adapter=self._adapter)

    @cached_property
    def passage_digest(self) -> str:
        """Identify the vectors of passages: experts that differ in queries only share it."""
        both = self.options.adapts == "both"
        return self._digest(None, adapter=self._adapter if both else None)

    def _digest(self, query_prompt: str | None, *, adapter: LoraAdapter | None) -> str:
        options = self.options
        said: list[Any] = [source_digest(self.spec), query_prompt, options.passage_prompt]
        said += [options.max_length, options.dtype]
        if adapter is not None:
            said.append({"adapter": adapter.digest, "adapts": options.adapts})
        if options.layers is not None:
            said.append({"layers": options.layers})
        return hashlib.sha256(json.dumps(said).encode()).hexdigest()

    def load(self) -> None:
        """Load the model now instead of at the first call."""
        self._ready()

    def embed(self, texts: Sequence[str], *, role: Role) -> FloatArray:
        """Return one L2-normalised float32 row per text, (n, d)."""
        if not texts:
            return self.embed([""], role=role)[:0]
        encode, prompt, size = self._ready()[role], self._prompts[role], self.options.batch_size
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
        return text_of(f"expert {self.spec.name!r}", self._ready()["query"].tokenizer, tokens)

    def close(self) -> None:
        """Drop the model; it is freed when no other expert uses it."""
        with self._lock:
            self._closed, self._encoders = True, None

    def _ready(self) -> Mapping[Role, Encoder]:
        with self._lock:
            if self._closed:
                raise closed(self.spec)
            if self._encoders is None:
                with loading(self.spec):
                    files = EncoderFiles(self.spec, self.options)
                    self._prompts = files.prompts()
                    pooling = files.pooling()
                    self._encoders = (
                        self._packaged(files) if pooling is None else self._plain(files, pooling)
                    )
            return self._encoders

    def _packaged(self, files: EncoderFiles) -> Mapping[Role, Encoder]:
        for option in ("adapter", "layers"):
            if getattr(self.options, option) is not None:
                raise RegistryError(
                    f"expert {self.spec.name!r}: options.{option}: {self.spec.model!r} is more "
                    "than an encoder with mean or first-token pooling, and runs as a whole in the "
                    "sentence_transformers package; remove the option, or use another model"
                )
        base = shared(("packaged", *self._key(files)), lambda: PackagedBase(files))
        encoder = PackagedEncoder(base, files)
        return {"query": encoder, "passage": encoder}

    def _plain(self, files: EncoderFiles, pooling: str) -> Mapping[Role, Encoder]:
        base = shared(("plain", *self._key(files)), lambda: PlainBase(files))
        length = base.max_length(files)

        def encoder(model: Any) -> Encoder:
            return PlainEncoder(base, self._lowest(model), pooling, length)

        passage = query = encoder(base.model)
        if self._adapter is not None:
            query = encoder(self._adapter.on(base.model, files.path))
            passage = query if self.options.adapts == "both" else passage
        return {"query": query, "passage": passage}

    def _lowest(self, model: Any) -> Any:
        if (n := self.options.layers) is None:
            return model
        try:
            return lowest_layers(model, n)
        except ValueError as error:
            raise RegistryError(
                f"expert {self.spec.name!r}: options.layers: {n}: {error}"
            ) from None

    def _key(self, files: EncoderFiles) -> tuple[Any, ...]:
        """Tell the bases of this process apart."""
        device = (files.device.type, files.device.index or 0)
        return (source_digest(self.spec), self.options.dtype, device, *sorted(files.hub.items()))
