"""Read the documents of a store: JSON Lines, text, Markdown and PDF, one file or a folder."""

import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from composer.stores.decoding import decoded
from composer.stores.document import Document
from composer.stores.json_documents import json_documents
from experts_registry.errors import DataError

__all__ = ["Document", "documents", "file_documents", "source_files"]

_JSON = (".jsonl", ".jsonl.gz")
_MARKDOWN = (".md", ".markdown")
_TEXT = (".txt", ".text")
_READ = (*_JSON, *_MARKDOWN, *_TEXT, ".pdf")
_HEADING = re.compile(r"^ {0,3}#{1,6}[ \t]+(.*?)[ \t]*#*[ \t]*\r?$", re.MULTILINE)


def documents(path: Path, *, skipped: Counter[str] | None = None) -> Iterator[Document]:
    """Yield the documents of a file or of all files in a folder, in a stable order.

    Args:
        path: a file, or a folder that is read with all that are in it; hidden ones are left out.
        skipped: counts what was left out, by the reason.

    Raises:
        DataError: something cannot be read; names the file, and the line or byte.
    """
    skipped = Counter() if skipped is None else skipped
    for file, name in source_files(path, skipped):
        yield from file_documents(file, name, skipped)


def source_files(
    path: Path, skipped: Counter[str], *, but: Path | None = None
) -> Iterator[tuple[Path, str]]:
    """Yield each file that is read, and its name in the store, in a stable order.

    Args:
        path: a file or a folder.
        skipped: counts what is left out, by the reason.
        but: a folder that is left out: the store's own, where it lies among its documents.

    Raises:
        DataError: there is none, or one that is named is of a kind that is not read.
    """
    if path.is_dir():
        yield from _in_folder(path, skipped, but)
    elif not path.exists():
        raise DataError(f"{path}: is not there; name a JSONL file or a folder of documents")
    elif not path.name.lower().endswith(_READ):
        raise DataError(f"{path}: cannot be read; use one of {', '.join(_READ)}, or a folder")
    else:
        yield path, _written(path.name)


def _in_folder(folder: Path, skipped: Counter[str], but: Path | None) -> Iterator[tuple[Path, str]]:
    for file in sorted(folder.rglob("*"), key=lambda f: f.relative_to(folder).parts):
        if but is not None and but in file.absolute().parents:
            continue
        if not file.is_file() or any(p.startswith(".") for p in file.relative_to(folder).parts):
            continue
        if not file.name.lower().endswith(_READ):
            skipped["files of a type that is not read"] += 1
        elif _is_beside_corpus(file):
            skipped["files of queries beside a corpus"] += 1
        else:
            yield file, _written(file.relative_to(folder).as_posix())


def _written(name: str) -> str:
    """Return a name as text that can be written: bytes that are not UTF-8 as escapes."""
    return name.encode("utf-8", "backslashreplace").decode()


def _is_beside_corpus(file: Path) -> bool:
    """Whether it holds the queries of a collection in BEIR's layout."""
    is_queries = file.name in ("queries.jsonl", "queries.jsonl.gz")
    return is_queries and any(file.with_name(f"corpus{end}").exists() for end in _JSON)


def file_documents(file: Path, name: str, skipped: Counter[str]) -> Iterator[Document]:
    """Yield the documents of one file, which is called ``name`` in the store.

    Raises:
        DataError: it cannot be read; names the file, and the line or byte.
    """
    kind = file.name.lower()
    if kind.endswith(_JSON):
        yield from json_documents(file, skipped)
        return
    text = _pdf_text(file) if kind.endswith(".pdf") else decoded(_bytes(file), file)
    if not text.strip():
        skipped["PDF files without text" if kind.endswith(".pdf") else "empty files"] += 1
        return
    found = _HEADING.search(text) if kind.endswith(_MARKDOWN) else None
    yield Document(id=name, text=text, title=found[1] if found else "", source=name)


def _bytes(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError as error:
        raise DataError(f"{file}: cannot be read ({error.strerror})") from error


def _pdf_text(file: Path) -> str:
    try:
        from composer.stores.pdf import pdf_text
    except ModuleNotFoundError as error:
        raise DataError(
            f"{file}: reading PDF needs pypdf; pip install 'expert-composer[retrieval]'"
        ) from error
    return pdf_text(file)
