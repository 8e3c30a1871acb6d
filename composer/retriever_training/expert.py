"""Train an expert retriever and, where it is better than its base, let it take part."""

from dataclasses import dataclass
from pathlib import Path

from composer.opened import Opened
from composer.replacing import alone
from composer.retriever_training.material import Material
from composer.retriever_training.registering import Newcomer
from composer.retriever_training.settings import Settings
from composer.retriever_training.training import FILES, Course, Trained
from composer.retriever_training.workshop import Workshop, disk

__all__ = ["Expert", "train_expert"]


@dataclass(frozen=True)
class Expert:
    """What came of a training.

    Args:
        trained: and how it was judged.
        folder: of its adapter, or None where it was refused.
    """

    trained: Trained
    folder: Path | None


def train_expert(
    newcomer: Newcomer,
    material: Material,
    settings: Settings,
    *,
    force: bool = False,
    quiet: bool = False,
) -> Expert:
    """Train a retriever; register it where held-out queries say that it is better than its base.

    After a kill the same call goes on, and ends as it would have. What was trained and refused is
    kept, too: with ``force``, the same call registers it at once.

    Args:
        newcomer: the retriever that is to be.
        material: what it learns, and is judged on.
        settings: how.
        force: register it even if it is not better.
        quiet: show no progress.

    Raises:
        ComposerError: something of it is wrong, the base cannot be trained, or the disk is full;
            nothing was registered.
    """
    newcomer.check()
    workshop = Workshop(newcomer.folder)
    with disk(newcomer.folder):
        newcomer.folder.parent.mkdir(parents=True, exist_ok=True)
    with alone(newcomer.folder):
        opened = Opened(newcomer.registry)
        try:
            base = opened.embedder(newcomer.base)
            course = Course(newcomer.base_spec, base, material, settings)
            trained = course.fit(workshop, quiet=quiet)
        finally:
            opened.close()
        if not (trained.judgment.is_better or force):
            return Expert(trained, None)
        # What the file names must be there before it is named.
        with workshop.published(FILES):
            newcomer.register(adapts=settings.side)
        workshop.remove()
    return Expert(trained, newcomer.folder)
