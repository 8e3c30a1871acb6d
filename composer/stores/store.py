"""A built store, opened: its passages, and an index of them for each kind of vectors."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Self

from composer.stores.embedding import passage_digest
from composer.stores.generations import Generation, build_command, current_mark, damaged
from composer.stores.manifest import LEXICAL, Manifest
from composer.stores.passage_file import PassageFile
from experts_registry.errors import ArtefactError
from experts_registry.index import VectorIndex
from experts_registry.passages import Passage
from experts_registry.types import Embedder

if TYPE_CHECKING:
    from composer.stores.lexical import Lexical

__all__ = ["Store"]

_TRIES = 3  # a build may end between reading which generation is current and opening it


@dataclass(frozen=True, kw_only=True)
class Store:
    """One generation of a store, memory-mapped; immutable and safe from any thread.

    A later build does not change it: it goes on until nobody holds it.
    """

    name: str
    folder: Path
    generation: Path
    manifest: Manifest
    passages: PassageFile
    indexes: Mapping[str, VectorIndex]
    lexical: "Lexical | None"
    mark: str

    @classmethod
    def open(cls, folder: Path, *, name: str) -> Self:
        """Open the current generation; every file is compared with what was built.

        Raises:
            ArtefactError: it was never built, or a file is missing, cut off or changed.
        """
        for _ in range(_TRIES - 1):
            before = current_mark(folder)
            try:
                return cls._open(folder, name)
            except ArtefactError:
                if current_mark(folder) == before:
                    raise
        return cls._open(folder, name)

    @classmethod
    def _open(cls, folder: Path, name: str) -> Self:
        generation = Generation.current(folder, name=name)
        generation.check()
        manifest = generation.manifest
        try:
            return cls(
                name=name,
                folder=folder,
                generation=generation.folder,
                manifest=manifest,
                passages=PassageFile.open(generation.folder, store=name),
                indexes={
                    built.embedder: VectorIndex.open(
                        generation.folder / built.file, type=built.type
                    )
                    for built in manifest.indexes
                },
                lexical=_lexical(generation) if manifest.making.lexical else None,
                mark=generation.mark,
            )
        except ArtefactError as error:
            raise damaged(name, str(error)) from error

    @property
    def digest(self) -> str:
        """Identify what it holds and how it is searched."""
        return self.manifest.content

    def __len__(self) -> int:
        return len(self.passages)

    def passage(self, row: int) -> Passage:
        """Return a passage by its row, which is its place in every index."""
        return self.passages[row]

    def index(self, embedder: Embedder) -> VectorIndex:
        """Return the index of what this retriever embeds.

        Raises:
            ArtefactError: there is none: its vectors are of another encoder.
        """
        try:
            return self.indexes[passage_digest(embedder)]
        except KeyError:
            made = ", ".join(sorted({n for i in self.manifest.indexes for n in i.retrievers}))
            raise ArtefactError(
                f"store {self.name!r}: has no index of this retriever's vectors; it was built "
                f"with {made} as they were then; {build_command(self.name)}"
            ) from None

    def check(self) -> None:
        """Look whether its files still have their sizes, before they are searched.

        The end of a mapped file that was cut off since cannot be read: the attempt kills the
        process (SIGBUS). A file that is gone can: it lives on until it is closed.

        Raises:
            ArtefactError: one has another size.
        """
        for file, built in self.manifest.files.items():
            path = self.generation / file
            try:
                size = path.stat().st_size
            except OSError:
                continue
            if size != built.bytes:
                raise damaged(self.name, f"{path} was cut off or changed while it was open")

    def is_current(self) -> bool:
        """Tell whether no later build has taken its place."""
        return current_mark(self.folder) == self.mark


def _lexical(generation: Generation) -> "Lexical":
    from composer.stores.lexical import Lexical

    return Lexical.open(generation.folder / LEXICAL)
