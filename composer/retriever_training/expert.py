"""Train an expert retriever and, where it is better than its base, let it take part."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from composer.opened import Opened
from composer.replacing import alone
from composer.retriever_training.material import Material
from composer.retriever_training.pilots import adopted_by
from composer.retriever_training.registering import Newcomer
from composer.retriever_training.settings import Settings
from composer.retriever_training.training import FILES, Course, Trained
from composer.retriever_training.workshop import Workshop, disk
from experts_registry.registry import Registry

__all__ = ["Expert", "train_expert"]


@dataclass(frozen=True)
class Expert:
    """What came of a training.

    Args:
        trained: and how it was judged.
        folder: of its adapter, or None where it was refused.
        routers: folders of the pilot routers that know it now.
    """

    trained: Trained
    folder: Path | None
    routers: tuple[Path, ...] = ()


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
        trained = _trained(newcomer, material, settings, workshop, quiet)
        if not (trained.judgment.is_better or force):
            return Expert(trained, None)
        # What the file names must be there before it is named.
        with workshop.published(FILES):
            registry = newcomer.register(adapts=settings.side)
        workshop.remove()
    with _opened(registry) as opened:
        routers = adopted_by(registry, opened, newcomer.name, material, trained)
    return Expert(trained, newcomer.folder, tuple(routers))


def _trained(
    newcomer: Newcomer, material: Material, settings: Settings, workshop: Workshop, quiet: bool
) -> Trained:
    with _opened(newcomer.registry) as opened:
        base = opened.embedder(newcomer.base)
        course = Course(newcomer.base_spec, base, material, settings)
        return course.fit(workshop, quiet=quiet)


@contextmanager
def _opened(registry: Registry) -> Iterator[Opened]:
    opened = Opened(registry)
    try:
        yield opened
    finally:
        opened.close()
