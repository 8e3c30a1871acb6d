"""Build a store: read, cut, embed what was never embedded, index, and take the old one's place.

A kill costs at most the batch in flight: vectors are kept as they come, and what is served
changes only when everything else is on disk.
"""

import hashlib
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from composer.stores.disk import file_digest, writing
from composer.stores.embedding import BATCH, Embedding, embed_missing, missing, passage_digest
from composer.stores.gathering import ADDED, Change, Gathered, gather
from composer.stores.generations import Generation, building, current_mark, holding, publish
from composer.stores.indexed_text import indexed_text
from composer.stores.manifest import (
    LEXICAL,
    BuiltFile,
    BuiltIndex,
    Edits,
    Making,
    Manifest,
    SourceFile,
)
from composer.stores.passage_file import PASSAGES, PassageFile
from composer.stores.vectors import Vectors, text_key
from experts_registry.errors import ArtefactError
from experts_registry.index import SLICE, VectorIndex
from experts_registry.passages import Passage
from experts_registry.retrieval_schema import StoreSpec
from experts_registry.types import Embedder

__all__ = ["Built", "Retriever", "Steps", "build"]

# Shows steps: how many there are, and what they are; as `composer.progress.steps`.
Steps = Callable[[int, str], AbstractContextManager[Callable[[str], None]]]


@dataclass(frozen=True)
class Retriever:
    """A retriever of a store: who it is, and how it embeds many passages."""

    name: str
    embedder: Embedder
    embedding: Embedding


@dataclass(frozen=True, kw_only=True)
class Built:
    """What a build did.

    Args:
        manifest: of the generation that is current now.
        is_new: whether it is another than before.
        embedded: texts that were embedded, by retriever.
        bad: why files were left out.
        seconds: how long it took.
    """

    manifest: Manifest
    is_new: bool
    embedded: Mapping[str, int]
    bad: Sequence[str]
    seconds: float


def build(
    spec: StoreSpec,
    source: Path,
    folder: Path,
    retrievers: Sequence[Retriever],
    *,
    change: Change = Change(),  # noqa: B008 - it is frozen
    steps: Steps,
) -> Built:
    """Build the next generation of a store, unless it would be the current one again.

    Args:
        spec: of the store.
        source: its documents.
        folder: where it lies.
        retrievers: whose vectors it indexes; those that embed passages alike share an index.
        change: what is asked for besides.
        steps: shows how far it is.

    Raises:
        DataError: the source or the disk; what it says must be mended.
        ComposerError: a retriever cannot embed.
    """
    began = time.monotonic()
    with holding(folder, name=spec.name), building(folder) as into:
        old = None if change.fresh else _old(folder, spec.name)
        run = _Build(spec, folder, into, old, steps)
        gathered = run.gather(source, change)
        indexes = [run.index(group) for group in _alike(retrievers)]
        if spec.lexical:
            run.lexical()
        manifest = run.manifest(gathered, indexes)
        is_new = old is None or not old.mark or not _is_same(old, manifest)
        if is_new:
            manifest = publish(folder, into, manifest).manifest
    return Built(
        manifest=manifest,
        is_new=is_new,
        embedded=run.embedded,
        bad=gathered.bad,
        seconds=time.monotonic() - began,
    )


class _Build:
    """A generation on its way.

    Args:
        spec: of the store.
        folder: where it lies.
        into: where the generation is written.
        old: the current one, whose files are taken over where they would be the same.
        steps: shows how far it is.
    """

    def __init__(
        self, spec: StoreSpec, folder: Path, into: Path, old: Generation | None, steps: Steps
    ) -> None:
        self.spec, self.folder, self.into, self.old, self.steps = spec, folder, into, old, steps
        self.embedded: dict[str, int] = {}

    def gather(self, source: Path, change: Change) -> Gathered:
        """Write the passages."""
        edits = self.old.manifest.edits if self.old else Edits()
        added = self.old.folder / ADDED if self.old and edits.added else None
        with writing(self.into):
            gathered = gather(source, self.spec.chunk, change, edits, added=added, into=self.into)
        self.passages = PassageFile.open(self.into)
        self.is_as_before = self.old is not None and self.old.manifest.files[
            PASSAGES
        ].sha256 == file_digest(self.into / PASSAGES)
        return gathered

    def index(self, retrievers: Sequence[Retriever]) -> BuiltIndex:
        """Write the index of retrievers that embed passages alike; embed what is new to them."""
        digest = passage_digest(retrievers[0].embedder)
        name = hashlib.sha256(digest.encode()).hexdigest()[:32]  # of a plug-in it may be any text
        names = tuple(retriever.name for retriever in retrievers)
        self.embedded.update(dict.fromkeys(names, 0))
        before = self._before(digest)
        if before is not None and self._take_over(before.file):
            return before.model_copy(update={"retrievers": names})
        vectors_file = self.folder / "vectors" / f"{name}.vectors"
        with Vectors.opened(vectors_file) as vectors:
            keys = [text_key(indexed_text(passage)) for passage in _all(self.passages)]
            self._embed(vectors, keys, retrievers)
            index = self._indexed(vectors, keys, names[0])
            vectors.forget_all_but(keys)
        with writing(self.into):
            index.save(self.into / f"{name}.faiss")
        return BuiltIndex(
            embedder=digest,
            retrievers=names,
            type=index.type,
            dimensions=index.dimensions,
            file=f"{name}.faiss",
        )

    def lexical(self) -> None:
        """Write the index of words, or take over the one of the same passages."""
        if (old := self.old) is not None and self.is_as_before:
            files = [file for file in old.manifest.files if file.startswith(f"{LEXICAL}/")]
            if files and all(map(old.is_whole, files)):  # before a link can be written through
                for file in files:
                    self._take_over(file)
                return
        from composer.stores.lexical import Lexical

        with writing(self.into), self.steps(1, f"{self.spec.name}: words") as advance:
            Lexical.build(map(indexed_text, _all(self.passages)), self.into / LEXICAL)
            advance("indexed")

    def manifest(self, gathered: Gathered, indexes: Sequence[BuiltIndex]) -> Manifest:
        """Describe what was written."""
        files = {
            p.relative_to(self.into).as_posix(): p for p in self.into.rglob("*") if p.is_file()
        }
        return Manifest(
            name=self.spec.name,
            made=datetime.now(UTC).isoformat(timespec="seconds"),
            documents=gathered.documents,
            passages=len(self.passages),
            making=Making.of(self.spec),
            edits=gathered.edits,
            indexes=tuple(indexes),
            source={name: SourceFile.of(file) for name, file in gathered.files.items()},
            skipped=dict(gathered.skipped),
            files={name: BuiltFile.of(file) for name, file in files.items()},
        )

    def _embed(
        self, vectors: Vectors, keys: Sequence[bytes], retrievers: Sequence[Retriever]
    ) -> None:
        first = retrievers[0]
        batches = missing(vectors, keys, self.passages)
        what = f"{self.spec.name}: {first.name} embeds, batches of {BATCH}"
        with self.steps(len(batches), what) as advance:
            embed_missing(
                vectors, batches, keys, self.passages, embedding=first.embedding, on_batch=advance
            )
        self.embedded[first.name] = sum(map(len, batches))

    def _indexed(self, vectors: Vectors, keys: Sequence[bytes], name: str) -> VectorIndex:
        slices = -(-len(keys) // SLICE)
        with self.steps(slices, f"{self.spec.name}: index of {name}") as advance:
            return VectorIndex.build(
                vectors.of(keys), self.spec.index, on_added=lambda rows: advance(f"{rows} more")
            )

    def _before(self, digest: str) -> BuiltIndex | None:
        """Return the index of these vectors in the current generation, if it holds the same."""
        if self.old is None or not self.is_as_before:
            return None
        if self.old.manifest.making.index != self.spec.index:
            return None
        return next((i for i in self.old.manifest.indexes if i.embedder == digest), None)

    def _take_over(self, file: str) -> bool:
        """Take a file of the current generation, if it is whole."""
        if self.old is None or not self.old.is_whole(file):
            return False
        with writing(self.into):
            (self.into / file).parent.mkdir(exist_ok=True)
            try:
                (self.into / file).hardlink_to(self.old.folder / file)
            except OSError:  # a file system without links
                shutil.copyfile(self.old.folder / file, self.into / file)
        return True


def _alike(retrievers: Sequence[Retriever]) -> list[list[Retriever]]:
    """Group retrievers that embed passages alike."""
    groups: dict[str, list[Retriever]] = {}
    for retriever in retrievers:
        groups.setdefault(passage_digest(retriever.embedder), []).append(retriever)
    return list(groups.values())


def _all(passages: PassageFile) -> Iterator[Passage]:
    return (passages[row] for row in range(len(passages)))


def _old(folder: Path, name: str) -> Generation | None:
    """Return the current generation, the last where none is, or None before the first.

    Raises:
        ArtefactError: what was added to it by hand is lost.
    """
    lost = "what was added and removed by hand cannot be read; build without it: --fresh"
    try:
        if current_mark(folder) is None:
            old = Generation.without_pointer(folder)
        else:
            old = Generation.current(folder, name=name)
    except ArtefactError as error:
        raise ArtefactError(f"{str(error).partition(';')[0]}; {lost}") from error
    if old is not None and old.manifest.edits.added and not old.is_whole(ADDED):
        raise ArtefactError(f"store {name!r}: {old.folder / ADDED} is damaged; {lost}")
    return old


def _is_same(old: Generation, manifest: Manifest) -> bool:
    """Tell whether a build would put the same in place of the current generation."""
    told = old.manifest.model_copy(update={"made": manifest.made})
    return told == manifest and all(map(old.is_whole, old.manifest.files))
