"""Read the text of a PDF."""

import logging
import zlib
from pathlib import Path

from experts_registry.errors import DataError, PluginError

try:
    from pypdf import PdfReader
    from pypdf.errors import PyPdfError
except ImportError as error:
    raise PluginError(
        "passages: PDF files need pypdf; install it with pip install 'expert-composer[retrieval]'"
    ) from error

__all__ = ["pdf_text"]

# What pypdf lets through from files that are damaged in ways it did not foresee.
_DAMAGED = (
    PyPdfError,
    ArithmeticError,
    AssertionError,
    AttributeError,
    LookupError,
    NotImplementedError,
    OSError,
    RecursionError,
    TypeError,
    ValueError,
    zlib.error,
)


def pdf_text(path: Path) -> str:
    """Return the text of all pages, with an empty line between two.

    Raises:
        DataError: it is not a PDF, is damaged, or cannot be opened without a password.
    """
    logging.getLogger("pypdf").setLevel(logging.ERROR)  # it warns without naming the file
    try:
        with PdfReader(path) as reader:
            if reader.is_encrypted and not reader.decrypt(""):
                raise DataError(f"{path}: is encrypted; save it without a password")
            pages = [page.extract_text() for page in reader.pages]
    except _DAMAGED as error:
        what = str(error) or type(error).__name__
        raise DataError(
            f"{path}: cannot be read as a PDF ({what}); repair it, or take it out"
        ) from error
    text = "\n\n".join(page.strip() for page in pages if page.strip())
    # Broken fonts give characters that no file could hold.
    return text.replace("\0", " ").encode("utf-8", "replace").decode()
