"""Say how a store stands: built or not, whole or not, and what changed since it was built."""

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from composer.stores.documents import source_files
from composer.stores.embedding import passage_digest
from composer.stores.generations import Generation, build_command
from composer.stores.manifest import Making, Manifest
from experts_registry.errors import ArtefactError, ComposerError, DataError
from experts_registry.registry import Registry
from experts_registry.types import Embedder

__all__ = ["StoreStanding", "standing"]


@dataclass(frozen=True, kw_only=True)
class StoreStanding:
    """What is known of a store without searching it.

    Args:
        name: of the store.
        folder: where it lies.
        manifest: of what is served; None where nothing is, or it is damaged.
        error: why it cannot be searched.
        changes: what a build would change.
        bytes: of what is served.
        kept_bytes: of vectors that are kept for the next build.
    """

    name: str
    folder: Path
    manifest: Manifest | None
    error: str | None
    changes: tuple[str, ...]
    bytes: int = 0
    kept_bytes: int = 0

    @property
    def is_current(self) -> bool:
        """Whether it can be searched and a build would change nothing."""
        return self.error is None and not self.changes


def standing(
    registry: Registry, name: str, embedder: Callable[[str], Embedder], *, whole: bool = True
) -> StoreStanding:
    """Look at a store.

    Args:
        registry: the expert file.
        name: of the store.
        embedder: opens a retriever.
        whole: read every file and compare it with what was built.
    """
    folder = registry.store_folder(name)
    try:
        generation = Generation.current(folder, name=name)
        if whole:
            generation.check()
    except ArtefactError as error:
        return StoreStanding(name=name, folder=folder, manifest=None, error=str(error), changes=())
    manifest = generation.manifest
    unable = tuple(_retrievers(registry, name, manifest, embedder))
    return StoreStanding(
        name=name,
        folder=folder,
        manifest=manifest,
        error=_unsearchable(registry, name, unable),
        changes=(
            *_settings(registry, name, manifest),
            *unable,
            *_source(registry, name, manifest),
        ),
        bytes=sum(file.bytes for file in manifest.files.values()),
        kept_bytes=sum(p.stat().st_size for p in (folder / "vectors").glob("*.vectors")),
    )


def _settings(registry: Registry, name: str, manifest: Manifest) -> Iterator[str]:
    now, then = Making.of(registry.store(name)), manifest.making
    for key in Making.model_fields:
        if getattr(now, key) != getattr(then, key):
            yield f"'{key}' is another than it was built with"


def _retrievers(
    registry: Registry, name: str, manifest: Manifest, embedder: Callable[[str], Embedder]
) -> Iterator[str]:
    built = {index.embedder: index.retrievers for index in manifest.indexes}
    known = {retriever for retrievers in built.values() for retriever in retrievers}
    for retriever in registry.store(name).retrievers:
        if retriever not in registry.retrievers:  # disabled
            continue
        try:
            digest = passage_digest(embedder(retriever))
        except ComposerError as error:
            yield f"retriever {retriever!r} cannot be opened ({error})"
            continue
        if digest not in built and retriever in known:
            yield f"retriever {retriever!r} embeds otherwise than when it was built"
        elif digest not in built:
            yield f"retriever {retriever!r} has no index yet"


def _unsearchable(registry: Registry, name: str, unable: tuple[str, ...]) -> str | None:
    """Say why nobody can search a store that is whole; None where somebody can."""
    named = registry.store(name).retrievers
    enabled = [retriever for retriever in named if retriever in registry.retrievers]
    if not enabled:
        return f"store {name!r}: none of its retrievers is enabled; enable {named[0]!r}"
    if len(unable) == len(enabled):
        return f"store {name!r}: {'; '.join(unable)}; {build_command(name)}"
    return None


def _source(registry: Registry, name: str, manifest: Manifest) -> Iterator[str]:
    source, folder = registry.resolve(registry.store(name).passages), registry.store_folder(name)
    try:
        now = {n: f for f, n in source_files(source, Counter(), but=folder)}
        changed = [
            n for n, f in now.items() if n in manifest.source and manifest.source[n].is_changed(f)
        ]
    except (DataError, OSError) as error:
        yield f"its source cannot be read ({error})"
        return
    counts = {
        "new": len(now.keys() - manifest.source.keys()),
        "changed": len(changed),
        "gone": len(manifest.source.keys() - now.keys()),
    }
    told = ", ".join(f"{count} {what}" for what, count in counts.items() if count)
    if told:
        yield f"its source has other files by now: {told}"
