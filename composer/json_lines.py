"""Read JSON Lines, plain or gzipped, with mistakes named by their line."""

import gzip
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from experts_registry.errors import DataError

__all__ = ["json_object", "numbered_lines"]


def numbered_lines(path: Path, instead: str) -> Iterator[tuple[int, bytes]]:
    """Yield the lines that are not blank, with their numbers.

    Args:
        path: a file; one that ends in ``.gz`` is unpacked.
        instead: what the reader should do where it cannot be read.

    Raises:
        DataError: it cannot be read.
    """
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
            for number, line in enumerate(file, start=1):
                if line.strip():
                    yield number, line
    except (OSError, EOFError) as error:  # EOFError: a gzip file that was cut off
        what = getattr(error, "strerror", None) or error
        raise DataError(f"{path}: cannot be read ({what}); {instead}") from error


def json_object(line: bytes, instead: str) -> dict[str, Any]:
    """Return the object of one line.

    Raises:
        DataError: the line is no object, not UTF-8, or names a key twice.
    """
    try:
        row = json.loads(
            line.decode("utf-8-sig"), object_pairs_hook=_unique, parse_constant=_refuse
        )
        json.dumps(row, ensure_ascii=False).encode()  # no file could hold half a character
    except UnicodeDecodeError:
        raise DataError("is not UTF-8; save the file as UTF-8") from None
    except RecursionError:
        raise DataError(f"is nested too deeply; {instead}") from None
    except json.JSONDecodeError as error:
        raise DataError(f"is not JSON ({error.msg}, column {error.colno}); {instead}") from None
    except UnicodeEncodeError:
        raise DataError("holds half a surrogate pair; write whole characters") from None
    if not isinstance(row, dict):
        raise DataError(f"is a JSON {type(row).__name__}, not an object; {instead}")
    return row


def _unique(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    row = dict(pairs)
    if len(row) < len(pairs):
        keys = [key for key, _ in pairs]
        twice = next(key for key in keys if keys.count(key) > 1)
        raise DataError(f"{twice}: duplicate key; keep one")
    return row


def _refuse(constant: str) -> Any:
    raise DataError(f"holds {constant}, which is not JSON; write a number")
