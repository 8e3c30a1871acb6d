"""Turn batches of texts into pooled vectors, on weights that several experts may share."""

import threading
from collections.abc import Sequence
from typing import Any

import torch
from transformers import AutoModel, AutoTokenizer

from experts_registry.backends.encoder_files import EncoderFiles
from experts_registry.backends.local_models import DTYPES, bounded

__all__ = ["Encoder", "PackagedBase", "PackagedEncoder", "PlainBase", "PlainEncoder"]


class PlainBase:
    """The weights and the tokenizer of an encoder that runs on transformers alone."""

    def __init__(self, files: EncoderFiles) -> None:
        self.tokenizer: Any = AutoTokenizer.from_pretrained(files.path, **files.hub)
        model = AutoModel.from_pretrained(
            files.path, dtype=DTYPES[files.options.dtype], **files.hub
        )
        self.model: Any = model.to(files.device).eval()
        # A tokenizer keeps its padding and truncation as state: one thread at a time.
        self._lock = threading.Lock()

    def max_length(self, files: EncoderFiles) -> int | None:
        """Return how many tokens of a text are read."""
        return files.max_length(
            tokenizer=self.tokenizer.model_max_length,
            model=getattr(self.model.config, "max_position_embeddings", None),
        )

    def tokens(self, texts: Sequence[str], max_length: int | None) -> Any:
        """Return what the model is called with, on its device."""
        with self._lock:
            return self.tokenizer(
                texts,
                padding=True,
                truncation=max_length is not None,
                max_length=max_length,
                return_tensors="pt",
            ).to(self.model.device)


class PlainEncoder:
    """An encoder with mean or first-token pooling, as sentence_transformers computes it.

    Args:
        base: tokenizes, and holds the weights.
        model: runs them: the base's own, or one with an adapter or of fewer layers.
        pooling: ``mean`` or ``cls``.
        max_length: tokens of a text that are read.
    """

    def __init__(self, base: PlainBase, model: Any, pooling: str, max_length: int | None) -> None:
        self._base, self._model = base, model
        self._pooling, self._max_length = pooling, max_length

    @property
    def tokenizer(self) -> Any:
        """The base's."""
        return self._base.tokenizer

    def __call__(self, texts: list[str], prompt: str) -> torch.Tensor:
        """Return one row per text, (n, d)."""
        bounded_texts = [bounded(prompt + text, self._max_length) for text in texts]
        features = self._base.tokens(bounded_texts, self._max_length)
        states = self._model(**features).last_hidden_state  # (n, tokens, width)
        mask = features["attention_mask"]  # (n, tokens)
        if self._pooling == "cls":
            first: torch.Tensor = states[torch.arange(len(states)), mask.argmax(dim=1)]
            return first
        weight = mask.unsqueeze(-1).to(states.dtype)
        total = (states * weight).sum(dim=1, dtype=torch.float32)
        mean: torch.Tensor = total / weight.sum(dim=1, dtype=torch.float32).clamp(min=1e-9)
        return mean


class PackagedBase:
    """Whatever the sentence_transformers package can load."""

    def __init__(self, files: EncoderFiles) -> None:
        from sentence_transformers import SentenceTransformer

        self.model: Any = SentenceTransformer(
            files.path,
            device=str(files.device),
            model_kwargs={"dtype": DTYPES[files.options.dtype]},
            **files.hub,
        )
        self.own_length: int | None = self.model.max_seq_length
        self.lock = threading.Lock()


class PackagedEncoder:
    """Runs it; experts that share it may read texts of different length."""

    def __init__(self, base: PackagedBase, files: EncoderFiles) -> None:
        self._base = base
        self._max_length = files.max_length(tokenizer=base.own_length, model=None)

    @property
    def tokenizer(self) -> Any:
        """The model's."""
        return self._base.model.tokenizer

    def __call__(self, texts: list[str], prompt: str) -> torch.Tensor:
        """Return one row per text, (n, d)."""
        with self._base.lock:
            if self._max_length is not None:
                self._base.model.max_seq_length = self._max_length
            vectors: torch.Tensor = self._base.model.encode(
                [bounded(text, self._max_length) for text in texts],
                prompt=prompt or None,
                batch_size=max(1, len(texts)),
                convert_to_tensor=True,
                show_progress_bar=False,
            )
        return vectors


Encoder = PlainEncoder | PackagedEncoder
