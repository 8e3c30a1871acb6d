"""Cut documents into passages at the places where a reader would pause."""

import re
from collections.abc import Iterable, Iterator

from composer.stores.document import Document
from composer.stores.scripts import UNSPACED
from experts_registry.passages import Passage
from experts_registry.retrieval_schema import ChunkSpec

__all__ = ["passages"]

_STOPS = "\u3001-\u3003\u3008-\u3011\uff01\uff0c\uff0e\uff1a\uff1b\uff1f"
# Two characters of those scripts are about a word. A run of 32 is one too, however long it goes
# on: base64 or a table without spaces must not become a passage of a megabyte.
_WORD = re.compile(rf"[{UNSPACED}]{{1,2}}[{_STOPS}]*|[^\s{UNSPACED}]{{1,32}}")
_PARAGRAPH = re.compile(r"(?:\r\n|\r|\n)[^\S\r\n]*(?:\r\n|\r|\n)|\f")
_HEADING = re.compile(r"#{1,6}[ \t]")
_SENTENCE = re.compile(
    r"[.!?\u2026][\"')\]\u201d\u2019]*$|[\u3002\uff01\uff1f\uff0e][\u300d\u300f]*$"
)
_INSIDE, _SPACE, _LINE, _END, _BLANK, _SECTION = range(6)  # how good a place to cut is

Span = tuple[int, int]


def passages(documents: Iterable[Document], chunk: ChunkSpec) -> Iterator[Passage]:
    """Yield the passages of documents, in order.

    A passage is ``document.text[start:end]``, without white space around it. One that is its
    whole document has its id; the others have ``id#1``, ``id#2`` and so on.
    """
    for document in documents:
        spans = list(_spans(document.text, chunk))
        for number, (start, end) in enumerate(spans, start=1):
            yield Passage(
                id=document.id if len(spans) == 1 else f"{document.id}#{number}",
                text=document.text[start:end],
                title=document.title,
                source=document.source,
                start=start,
                end=end,
            )


def _spans(text: str, chunk: ChunkSpec) -> Iterator[Span]:
    words = [match.span() for match in _WORD.finditer(text)]
    overlap = min(chunk.overlap, chunk.words // 2)  # each passage must go on from the last
    first = 0
    while first < len(words):
        last = _end(text, words, first, chunk.words)
        yield words[first][0], words[last - 1][1]
        if last == len(words):
            return
        first = _next(text, words, last, overlap)


def _end(text: str, words: list[Span], first: int, most: int) -> int:
    """Return the word behind a passage: the best place in its second half, the later the better."""
    if first + most >= len(words):
        return len(words)
    places = range(first + most, first + most // 2, -1)
    return max(places, key=lambda i: _pause(text, words, i))


def _next(text: str, words: list[Span], last: int, overlap: int) -> int:
    """Return the first word of the passage that follows one that ends before ``last``."""
    if not overlap or _pause(text, words, last) == _SECTION:
        return last
    return max(range(last - overlap, last), key=lambda i: _pause(text, words, i))


def _pause(text: str, words: list[Span], i: int) -> int:
    """Rate the place before word ``i``."""
    before, start = words[i - 1], words[i][0]
    gap = text[before[1] : start]
    if ("\n" in gap or "\r" in gap) and _HEADING.match(text, start):
        return _SECTION
    if _PARAGRAPH.search(gap):
        return _BLANK
    if _SENTENCE.search(text[before[0] : before[1]]) and (gap or text[before[1] - 1] > "\u2fff"):
        return _END
    if "\n" in gap or "\r" in gap:
        return _LINE
    return _SPACE if gap else _INSIDE
