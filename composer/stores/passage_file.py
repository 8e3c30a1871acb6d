"""The passages of a store on disk: lines of JSON, and where each begins; both memory-mapped."""

import json
import mmap
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from experts_registry.errors import ArtefactError
from experts_registry.passages import Passage

__all__ = ["PASSAGES", "STARTS", "PassageFile"]

PASSAGES, STARTS = "passages.jsonl", "starts.npy"
_KEPT = ("id", "text", "title", "source", "start", "end")


class PassageFile:
    """Passages by row; safe from any thread.

    Args:
        lines: JSON Lines.
        starts: where each line begins, and where the last one ends, (n + 1,).
        store: the name that passages carry.
    """

    def __init__(
        self, lines: mmap.mmap | bytes, starts: NDArray[np.int64], *, store: str = ""
    ) -> None:
        self._lines, self._starts, self._store = lines, starts, store

    @classmethod
    def write(cls, folder: Path, passages: Iterable[Passage]) -> None:
        """Write passages into a folder, one in memory at a time."""
        starts = [0]
        with (folder / PASSAGES).open("wb") as file:
            for passage in passages:
                line = json.dumps(_plain(passage), ensure_ascii=False).encode() + b"\n"
                file.write(line)
                starts.append(starts[-1] + len(line))
        np.save(folder / STARTS, np.array(starts, dtype=np.int64))

    @classmethod
    def open(cls, folder: Path, *, store: str = "") -> Self:
        """Map the passages of a folder.

        Raises:
            ArtefactError: they are damaged.
        """
        try:
            starts = np.load(folder / STARTS, mmap_mode="r")
            with (folder / PASSAGES).open("rb") as file:
                size = file.seek(0, 2)
                # An empty file cannot be mapped.
                lines = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) if size else b""
        except (OSError, ValueError) as error:
            raise ArtefactError(f"{folder}: its passages cannot be read ({error})") from error
        if starts.ndim != 1 or not len(starts) or starts[-1] != size:
            raise ArtefactError(f"{folder}: its passages are cut off")
        return cls(lines, starts, store=store)

    def __len__(self) -> int:
        return len(self._starts) - 1

    def __getitem__(self, row: int) -> Passage:
        if not 0 <= row < len(self):
            raise IndexError(row)
        line = self._lines[int(self._starts[row]) : int(self._starts[row + 1])]
        return Passage(**json.loads(line), store=self._store)

    @property
    def sizes(self) -> NDArray[np.int64]:
        """The bytes of each line, (n,)."""
        return np.diff(self._starts)


def _plain(passage: Passage) -> dict[str, Any]:
    values = asdict(passage)
    return {key: values[key] for key in _KEPT if values[key] not in ("", 0)} | {
        "id": passage.id,
        "text": passage.text,
    }
