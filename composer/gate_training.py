"""From outcomes with and without passages to a saved gate, judged on queries it had not seen."""

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from composer.gate_evaluation import evaluate_gate
from composer.gate_report import GateReport
from composer.stores.store import Store
from experts_registry.errors import ArtefactError, DataError
from experts_registry.registry import Registry
from experts_registry.types import Embedder
from routers.encoding import CachedEncoder
from routers.gates.data import GateData
from routers.gates.price import RetrievalPrice
from routers.gates.split import split_gate_data
from routers.gating import Gate

__all__ = ["TrainedGate", "evaluate_saved_gate", "store_texts", "train_gate"]

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class TrainedGate:
    """A fitted gate, how it did on held-out queries by expert, and where it was saved."""

    gate: Gate
    reports: Sequence[GateReport]
    path: Path


def train_gate(
    data: GateData,
    encoder: Embedder,
    out: Path,
    *,
    price: RetrievalPrice,
    texts: Mapping[str, Iterable[str]],
    test: float = 0.2,
    seed: int = 0,
    advance: Callable[[str], None] = lambda what: None,
) -> TrainedGate:
    """Fit on part of the outcomes, evaluate on the rest, save.

    Args:
        data: outcomes; their own split is kept where they carry one.
        encoder: embeds questions.
        out: folder for ``gate.json`` and ``gate.safetensors``.
        price: of retrieving.
        texts: of the passages by store, for how rare a question's words are there.
        test: share of the queries that is held out.
        seed: of the split and of the cross-validation.
        advance: called after each of two steps.

    Raises:
        DataError: there are too few outcomes, or the folder cannot be written.
    """
    try:
        out.mkdir(parents=True, exist_ok=True)  # before the work, not after it
    except OSError as error:
        raise DataError(
            f"{out}: cannot be written ({error.strerror}); choose another folder with --out"
        ) from error
    train, held = split_gate_data(data, test=test, seed=seed)
    cached = CachedEncoder(encoder)
    gate = Gate.fit(train, cached, price=price, texts=texts, seed=seed)
    advance("fit")
    reports = evaluate_gate(gate, train, held)
    advance("evaluation")
    return TrainedGate(gate, reports, gate.save(out))


def evaluate_saved_gate(folder: Path, data: GateData, encoder: Embedder) -> list[GateReport]:
    """Judge a saved gate on the queries that it was not trained on.

    Raises:
        ArtefactError: there is no gate, or one of another encoder.
        DataError: every query was trained on, or none, so that baselines cannot learn.
    """
    gate = Gate.load(folder, encoder=CachedEncoder(encoder))
    seen = np.isin(data.marks, gate.lineage["seen"])
    if seen.all():
        raise DataError(
            f"outcomes: {folder} was trained on every query; collect outcomes of other queries"
        )
    if not seen.any():
        raise DataError(
            f"outcomes: hold none of the queries that {folder} was trained on, from which the "
            "baselines learn; put both files into a folder and name that"
        )
    return evaluate_gate(gate, data.select(seen), data.select(~seen))


def store_texts(registry: Registry, names: Iterable[str]) -> dict[str, Iterable[str]]:
    """Return the texts of those stores that are built here."""
    found: dict[str, Iterable[str]] = {}
    for name in names:
        if name not in registry.stores:
            logger.warning("store %s: is not in %s; its words are not read", name, registry.path)
            continue
        try:
            store = Store.open(registry.store_folder(name), name=name)
        except ArtefactError as error:
            logger.warning("store %s: its words are not read (%s)", name, error)
            continue
        found[name] = _texts(store)
    return found


def _texts(store: Store) -> Iterator[str]:
    for row in range(len(store)):
        passage = store.passage(row)
        yield f"{passage.title} {passage.text}"
