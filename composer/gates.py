"""The gates of one registry generation, each loaded when it is needed, and again once trained."""

import logging
import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from composer.stores.current import Current, file_mark
from experts_registry.registry import Registry
from experts_registry.retrieval_schema import RetrievalSpec
from experts_registry.types import Embedder

if TYPE_CHECKING:
    from routers.gating import Gate

__all__ = ["Gates"]

logger = logging.getLogger(__name__)


class Gates:
    """Loads gates; safe from any thread.

    Args:
        registry: the file that names them.
        encoder: what they read of questions.
    """

    def __init__(self, registry: Registry, encoder: Callable[[], Embedder]) -> None:
        self._registry, self._encoder = registry, encoder
        self._gates: dict[Path, Current[Gate | None]] = {}
        self._lock = threading.Lock()

    def of(self, spec: RetrievalSpec) -> "Gate | None":
        """Return the gate that decides there; None where none is trained yet.

        Raises:
            ArtefactError: it is damaged, or of another encoder.
        """
        if spec.gate is None:
            return None
        folder = self._registry.resolve(spec.gate)
        with self._lock:
            current = self._gates.setdefault(
                folder,
                Current(partial(self._load, folder), partial(file_mark, folder / "gate.json")),
            )
        return current.get()

    def _load(self, folder: Path) -> "Gate | None":
        if not (folder / "gate.json").exists():
            logger.warning(
                "%s holds no gate yet; passages are retrieved for every query; "
                "'expert-composer gate train' makes one",
                folder,
            )
            return None
        from routers.gating import Gate

        return Gate.load(folder, encoder=self._encoder())
