"""Make the passages of a store: what its source holds, and was added, without what was removed.

Every build computes them anew from these three, so that their order and history do not matter.
"""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from composer.stores.chunking import passages
from composer.stores.document import Document
from composer.stores.manifest import Edits
from composer.stores.passage_file import PassageFile
from composer.stores.reading import Read, Reading
from experts_registry.errors import DataError, nearest
from experts_registry.passages import Passage
from experts_registry.retrieval_schema import ChunkSpec

__all__ = ["ADDED", "Change", "Gathered", "gather"]

ADDED = "added.jsonl"
_COMPARED = 10_000  # ids that a wrong one is compared with


@dataclass(frozen=True, kw_only=True)
class Change:
    """What a build does besides reading the source again.

    Args:
        add: files or folders of documents.
        remove: ids of documents or passages.
        replace: where two texts have one id, the later wins.
        skip_bad: files that cannot be read are left out.
        fresh: forget what was added and removed before.
    """

    add: Sequence[Path] = ()
    remove: Sequence[str] = ()
    replace: bool = False
    skip_bad: bool = False
    fresh: bool = False


@dataclass(frozen=True, kw_only=True)
class Gathered:
    """What the passages of a store were made of.

    Args:
        documents: how many there are.
        edits: what was changed by hand, this time included.
        files: that were read, by their names in the store.
        skipped: what was left out, counted by the reason.
        bad: why files were left out.
    """

    documents: int
    edits: Edits
    files: Mapping[str, Path]
    skipped: Mapping[str, int]
    bad: Sequence[str]


def gather(
    source: Path, chunk: ChunkSpec, change: Change, edits: Edits, *, added: Path | None, into: Path
) -> Gathered:
    """Write passages and added documents into a folder.

    Args:
        source: a file, or a folder of which files below ``into``'s parent are left out.
        chunk: how documents are cut.
        change: what is asked for.
        edits: by hand, so far.
        added: the documents that were added so far.
        into: the folder.

    Raises:
        DataError: something cannot be read, two texts have one id, an id is unknown, or nothing
            is left.
    """
    spool = into / "documents.partial"
    spool.touch()
    reading = Reading(
        spool,
        wins=frozenset((*edits.replaced, *edits.removed)),
        replace=change.replace,
        skip_bad=change.skip_bad,
    )
    sourced = reading.source(source, but=into.absolute().parent)
    sources = dict(reading.files)
    by_hand = {} if added is None else reading.file(added, "what was added")
    new: dict[str, Read] = {}
    for path in change.add:
        new |= reading.source(path)
    reading.check()
    removed = _removed(edits, change, sourced, new)
    left = {n: r for n, r in reading.counts.items() if n not in {*removed, *change.remove}}
    cutting = _Cutting(frozenset((*removed, *change.remove)))
    PassageFile.write(into, cutting.passages(passages(reading.documents(left), chunk)))
    _require_known(change.remove, {*reading.counts, *cutting.left_out}, cutting.ids)
    if not cutting.ids:
        raise DataError(f"{source}: {_nothing(reading, change)}")
    kept = {
        name: read
        for name, read in {**by_hand, **new}.items()
        if name in left and left[name].digest == read.digest
    }
    _write_documents(into / ADDED, reading.documents(kept))
    spool.unlink()
    replaced = tuple(sorted({*edits.replaced, *reading.replaced} & kept.keys()))
    return Gathered(
        documents=len(left),
        edits=Edits(removed=tuple(sorted(removed)), replaced=replaced, added=len(kept)),
        files=sources,
        skipped=dict(reading.skipped),
        bad=tuple(reading.bad),
    )


def _removed(
    edits: Edits, change: Change, sourced: Mapping[str, Read], new: Mapping[str, Read]
) -> set[str]:
    """Return the ids that stay removed: of what was only added none is kept in mind."""
    back = {name for name in edits.removed if name in new or name.rpartition("#")[0] in new}
    gone = {name for name in change.remove if name in sourced or "#" in name}
    return ({*edits.removed} - back) | gone


class _Cutting:
    """Passages on their way to the file: without those that were removed, each id once."""

    def __init__(self, removed: frozenset[str]) -> None:
        self._removed = removed
        self.ids: set[str] = set()
        self.left_out: set[str] = set()

    def passages(self, cut: Iterable[Passage]) -> Iterator[Passage]:
        for passage in cut:
            if passage.id in self._removed:
                self.left_out.add(passage.id)
                continue
            if passage.id in self.ids:
                raise DataError(
                    f"id {passage.id!r}: is a passage of {passage.source!r} and one of another "
                    "document; give that document another id"
                )
            self.ids.add(passage.id)
            yield passage


def _require_known(asked: Sequence[str], known: set[str], ids: set[str]) -> None:
    for name in asked:
        if name not in known:
            close = nearest(name, islice(known | ids, _COMPARED))
            raise DataError(f"id {name!r}: no document or passage of the store has it{close}")


def _nothing(reading: Reading, change: Change) -> str:
    if change.remove:
        return "without these nothing would be left to retrieve; keep a document"
    why = ", ".join(f"{count} {what}" for what, count in sorted(reading.skipped.items()))
    return f"has no text to retrieve ({why or 'it is empty'}); put a document there"


def _write_documents(path: Path, documents: Iterable[Document]) -> None:
    with path.open("w", encoding="utf-8") as file:
        for d in documents:
            row = {"id": d.id, "title": d.title, "text": d.text}
            file.write(json.dumps(row, ensure_ascii=False) + "\n")
