"""Turn the bytes of a file into text: UTF-8, or what its byte order mark says."""

import codecs
from collections.abc import Iterator
from io import TextIOWrapper
from pathlib import Path
from typing import BinaryIO

from experts_registry.errors import DataError

__all__ = ["decoded", "decoded_lines"]

# Longer marks first: that of UTF-32 begins with that of UTF-16.
_MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_CONVERT = "convert it, for example: iconv -f latin1 -t utf-8"


def decoded(data: bytes, path: Path) -> str:
    """Return the text of a whole file, without its byte order mark.

    Raises:
        DataError: it is in another encoding, or is not text.
    """
    encoding = _encoding(data)
    try:
        text = data.decode(encoding)
    except UnicodeDecodeError as error:
        raise _undecodable(str(path), encoding, error.start) from None
    if (zero := text.find("\0")) >= 0:
        raise DataError(
            f"{path}: has a NUL character at {zero}; save it as UTF-8 text, or leave it out"
        )
    return text


def decoded_lines(file: BinaryIO, path: Path) -> Iterator[tuple[int, str]]:
    """Yield the lines that are not blank, with their numbers from 1.

    Raises:
        DataError: a line is in another encoding; names file, line and byte.
    """
    first = file.readline()
    encoding = _encoding(first)
    if encoding in ("utf-16", "utf-32"):  # their newlines are not the byte of one
        file.seek(0)
        yield from _wide_lines(file, path, encoding)
        return
    offset, number, line = 0, 1, first
    while line:
        try:
            text = line.decode(encoding if number == 1 else "utf-8")
        except UnicodeDecodeError as error:
            raise _undecodable(f"{path}:{number}", "utf-8", offset + error.start) from None
        if text.strip():
            yield number, text
        offset += len(line)
        number, line = number + 1, file.readline()


def _wide_lines(file: BinaryIO, path: Path, encoding: str) -> Iterator[tuple[int, str]]:
    number, text = 0, TextIOWrapper(file, encoding, newline="\n")
    try:
        for number, line in enumerate(text, start=1):
            if line.strip():
                yield number, line
    except UnicodeError as error:
        raise DataError(
            f"{path}:{number + 1}: is not {encoding.upper()}, as its byte order mark says "
            f"({error}); save it as UTF-8"
        ) from None
    finally:
        text.detach()  # the file is closed by who opened it


def _encoding(head: bytes) -> str:
    return next((name for mark, name in _MARKS if head.startswith(mark)), "utf-8")


def _undecodable(where: str, encoding: str, offset: int) -> DataError:
    name = encoding.removesuffix("-sig").upper()
    return DataError(f"{where}: is not {name} at byte {offset}; {_CONVERT}")
