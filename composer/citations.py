"""Which passages an answer cites, and where: ``[1]``, ``[1, 2]`` or ``[1][2]`` in its text."""

import re
from dataclasses import dataclass

__all__ = ["Citation", "citations"]

_CITED = re.compile(r"\[ *([0-9]{1,4}(?: *[,;] *[0-9]{1,4})*) *\]")
_CODE = re.compile(r"```.*?(?:```|\Z)|`[^`\n]*`", re.DOTALL)  # an index of an array cites nothing


@dataclass(frozen=True, kw_only=True)
class Citation:
    """A place where an answer names a passage.

    Args:
        passage: its number, from 1 on, among the passages of the answer.
        start: of the bracket, in characters of the answer's text.
        end: behind the bracket.
    """

    passage: int
    start: int
    end: int


def citations(text: str, passages: int) -> tuple[Citation, ...]:
    """Return the citations of a text in order; numbers that name none of the passages are none.

    What stands in Markdown code is not read: brackets there are subscripts and lists.
    """
    if not passages or "[" not in text:
        return ()
    prose = _CODE.sub(lambda code: " " * len(code[0]), text)  # places stay as they are
    return tuple(
        Citation(passage=number, start=found.start(), end=found.end())
        for found in _CITED.finditer(prose)
        for number in dict.fromkeys(map(int, re.findall(r"[0-9]+", found[1])))
        if 1 <= number <= passages
    )
