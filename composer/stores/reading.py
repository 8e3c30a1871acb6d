"""Read the documents of a store, and decide which text an id stands for.

What cannot be read, and ids that two texts share, are collected and told together: a long source
is not read again for every mistake.
"""

import hashlib
import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path

from composer.stores.document import Document
from composer.stores.documents import file_documents, source_files
from experts_registry.errors import DataError

__all__ = ["Read", "Reading"]

_SHOWN = 20  # mistakes that are told at once


@dataclass(frozen=True)
class Read:
    """A document that was read: its line in the spool, where it came from, what it says."""

    row: int
    place: str
    digest: bytes


@dataclass
class Reading:
    """Documents in a file of JSON Lines, of which one per id counts.

    Args:
        spool: the file; lines of texts that were given up stay in it.
        wins: ids whose later text is the right one, though an earlier has them too.
        replace: so it is for every id.
        skip_bad: leave out files that cannot be read.
    """

    spool: Path
    wins: frozenset[str] = frozenset()
    replace: bool = False
    skip_bad: bool = False
    counts: dict[str, Read] = field(default_factory=dict)
    files: dict[str, Path] = field(default_factory=dict)
    skipped: Counter[str] = field(default_factory=Counter)
    replaced: set[str] = field(default_factory=set)
    bad: list[str] = field(default_factory=list)
    clashes: list[str] = field(default_factory=list)
    _rows: int = 0

    def source(self, path: Path, *, but: Path | None = None) -> dict[str, Read]:
        """Read a file, or the files of a folder except those below ``but``; return what it has."""
        found: dict[str, Read] = {}
        for file, name in source_files(path, self.skipped):
            if but is None or but not in file.absolute().parents:
                self.files[name] = file
                found |= self.file(file, name)
        return found

    def file(self, file: Path, name: str) -> dict[str, Read]:
        """Read a file, whole or not at all; return what it has."""
        try:
            found = list(self._spooled(file, name))
        except DataError as error:
            self.skipped["files that cannot be read"] += 1
            self.bad.append(str(error))
            return {}
        for one, read in found:
            self._count(one, read)
        return dict(found)

    def check(self) -> None:
        """Tell every mistake.

        Raises:
            DataError: there is one.
        """
        wrong = ([] if self.skip_bad else self.bad) + self.clashes
        if not wrong:
            return
        told = wrong[:_SHOWN]
        if len(wrong) > _SHOWN:
            told.append(f"and {len(wrong) - _SHOWN} more")
        if self.bad and not self.skip_bad:
            told.append("nothing was built: mend these files, or leave them out with --skip-bad")
        raise DataError("\n".join(told))

    def documents(self, chosen: dict[str, Read]) -> Iterator[Document]:
        """Yield documents in the order in which they were read."""
        rows = {read.row for read in chosen.values()}
        if not rows:
            return
        with self.spool.open("rb") as spool:
            for row, line in enumerate(spool):
                if row in rows:
                    yield Document(**json.loads(line))

    def _spooled(self, file: Path, name: str) -> Iterator[tuple[str, Read]]:
        with self.spool.open("ab") as spool:
            for number, document in enumerate(file_documents(file, name, self.skipped), start=1):
                place = name if document.id == name else f"{name}, document {number}"
                spool.write(json.dumps(asdict(document)).encode() + b"\n")
                yield document.id, Read(self._rows, place, _digest(document))
                self._rows += 1

    def _count(self, name: str, new: Read) -> None:
        old = self.counts.get(name)
        if old is None:
            self.counts[name] = new
        elif old.digest == new.digest:
            self.skipped["documents that were there already"] += 1
        elif self.replace or name in self.wins:
            self.replaced.add(name)
            self.counts[name] = new
        else:
            self.clashes.append(
                f"id {name!r}: {old.place} and {new.place} have other texts; give one another "
                "id, or let the later win with --replace"
            )


def _digest(document: Document) -> bytes:
    return hashlib.sha256(f"{document.title}\0{document.text}".encode()).digest()[:16]
