"""Read documents from JSON Lines: BEIR's corpora, and anything with an id and a text.

One object a line; other keys are left alone::

    {"_id": "4983", "title": "Microstructural development ...", "text": "Alterations of ..."}
"""

import gzip
import hashlib
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, cast

from composer.json_lines import json_object
from composer.stores.decoding import decoded_lines
from composer.stores.document import Document
from experts_registry.errors import DataError

__all__ = ["json_documents"]

_IDS = ("id", "_id", "doc_id")
_SHOWN = 10  # wrong lines of a file that are told at once
_HINT = 'write one JSON object a line, {"id": ..., "text": ...}'


def json_documents(path: Path, skipped: Counter[str]) -> Iterator[Document]:
    """Yield the documents of a ``.jsonl`` or ``.jsonl.gz`` file, one line in memory at a time.

    Raises:
        DataError: the file cannot be read, or lines are wrong; names file and lines, at the end.
    """
    wrong: list[str] = []
    with _opened(path) as file:
        for number, line in decoded_lines(file, path):
            try:
                document = _document(json_object(line.encode(), _HINT))
            except DataError as error:
                wrong.append(f"{path}:{number}: {error}")
                if len(wrong) == _SHOWN:
                    break
                continue
            if document.text.strip():
                yield document
            else:
                skipped["JSON lines with an empty text"] += 1
    if wrong:
        raise DataError("\n".join(wrong))


@contextmanager
def _opened(path: Path) -> Iterator[BinaryIO]:
    try:
        with cast(BinaryIO, gzip.open(path)) if path.suffix == ".gz" else path.open("rb") as file:
            yield file
    except (OSError, EOFError) as error:  # EOFError: a gzip file that was cut off
        what = getattr(error, "strerror", None) or error
        raise DataError(f"{path}: cannot be read ({what}); name a whole JSONL file") from error


def _document(row: Mapping[str, Any]) -> Document:
    if "text" not in row:
        raise DataError(f"has no 'text'; {_HINT}")
    text, title = _text(row, "text"), _text(row, "title")
    name = _id(row) or hashlib.sha256(f"{title}\n{text}".encode()).hexdigest()[:16]
    return Document(id=name, text=text, title=title, source=name)


def _text(row: Mapping[str, Any], key: str) -> str:
    value = row.get(key)
    if value is None:
        return ""
    if not isinstance(value, str):
        raise DataError(f"{key}: is a {type(value).__name__}; use a text")
    if "\0" in value:
        raise DataError(f"{key}: has a NUL character; leave it out")
    return value


def _id(row: Mapping[str, Any]) -> str:
    """Return the id that a line gives; none gets one by its content."""
    key = next((key for key in _IDS if row.get(key) is not None), None)
    if key is None:
        return ""
    value = row[key]
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    if not _text(row, key).strip():
        raise DataError(f"{key}: is empty; give each line its own, or leave it out")
    return _text(row, key)
