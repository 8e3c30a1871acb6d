"""What a built store says of itself: of what it was made, and every file it is made of."""

import hashlib
import json
from pathlib import Path
from typing import Literal, Self

from pydantic import Field, ValidationError

from composer.stores.disk import file_digest
from composer.stores.passage_file import PASSAGES
from experts_registry.errors import ArtefactError
from experts_registry.frozen import Frozen
from experts_registry.retrieval_schema import ChunkSpec, IndexSpec, StoreSpec

__all__ = [
    "LEXICAL",
    "MANIFEST",
    "BuiltFile",
    "BuiltIndex",
    "Edits",
    "Making",
    "Manifest",
    "SourceFile",
]

MANIFEST, LEXICAL = "manifest.json", "lexical"


class BuiltFile(Frozen):
    """A file of a generation."""

    bytes: int
    sha256: str

    @classmethod
    def of(cls, path: Path) -> Self:
        """Describe a file."""
        return cls(bytes=path.stat().st_size, sha256=file_digest(path))


class BuiltIndex(Frozen):
    """An index, and whose vectors it holds."""

    embedder: str = Field(description="Digest of how passages were embedded.")
    retrievers: tuple[str, ...] = Field(description="Who embeds so, by the names of that day.")
    type: Literal["flat", "hnsw", "ivf", "pq"]
    dimensions: int
    file: str


class SourceFile(Frozen):
    """A file that documents were read from."""

    bytes: int
    modified: int = Field(description="Nanoseconds since 1970.")
    sha256: str

    @classmethod
    def of(cls, path: Path) -> Self:
        """Describe a file."""
        status = path.stat()
        return cls(bytes=status.st_size, modified=status.st_mtime_ns, sha256=file_digest(path))

    def is_changed(self, path: Path) -> bool:
        """Tell whether a file says something else by now; one that looks the same is not read."""
        status = path.stat()
        if (status.st_size, status.st_mtime_ns) == (self.bytes, self.modified):
            return False
        return status.st_size != self.bytes or file_digest(path) != self.sha256


class Edits(Frozen):
    """What was changed by hand since the source: it is kept by every build."""

    removed: tuple[str, ...] = ()
    replaced: tuple[str, ...] = Field((), description="Added documents that win over the source's.")
    added: int = 0


class Making(Frozen):
    """The settings that decide what a generation holds."""

    chunk: ChunkSpec
    index: IndexSpec
    lexical: bool

    @classmethod
    def of(cls, spec: StoreSpec) -> Self:
        """Return those of a store."""
        return cls(chunk=spec.chunk, index=spec.index, lexical=spec.lexical)


class Manifest(Frozen):
    """One generation of a store."""

    format: Literal[1] = 1
    name: str
    made: str = Field(description="ISO 8601, UTC.")
    documents: int
    passages: int
    making: Making
    edits: Edits = Edits()
    indexes: tuple[BuiltIndex, ...]
    source: dict[str, SourceFile]
    skipped: dict[str, int] = Field({}, description="What of the source was left out, and why.")
    files: dict[str, BuiltFile]

    @classmethod
    def read(cls, folder: Path, *, sha256: str) -> Self:
        """Read the manifest of a generation.

        Raises:
            ArtefactError: it is not the one that was written.
        """
        path = folder / MANIFEST
        try:
            text = path.read_bytes()
        except OSError as error:
            raise ArtefactError(f"{path}: cannot be read ({error.strerror})") from error
        if hashlib.sha256(text).hexdigest() != sha256:
            raise ArtefactError(f"{path}: is not what was built")
        try:
            return cls.model_validate_json(text)
        except ValidationError as error:
            what = error.errors()[0]["msg"]
            raise ArtefactError(f"{path}: is of another version of this program ({what})") from None

    @property
    def content(self) -> str:
        """Identify what is found by which vectors: passages, retrievers, kinds of search."""
        about = [self.files[PASSAGES].sha256, sorted(i.embedder for i in self.indexes)]
        text = json.dumps([*about, self.making.index.digest, self.making.lexical])
        return hashlib.sha256(text.encode()).hexdigest()
