"""Hide the words of a prompt in what a server says of it."""

from collections.abc import Sequence

__all__ = ["without"]

_SPAN = 16  # characters in a row that are no accident
_READ = 20_000  # characters of either end of a text that are looked for
_HIDDEN = "***"


def without(said: str, texts: Sequence[str]) -> str:
    """Return ``said`` with every longer part of the texts replaced; spaces count as one."""
    for text in texts:
        text = " ".join(text.split())
        if len(text) > 2 * _READ:
            text = f"{text[:_READ]}\n{text[-_READ:]}"
        if text:
            said = _without(said, text, min(_SPAN, len(text)))
    return said


def _without(said: str, text: str, span: int) -> str:
    kept, at = [], 0
    while at < len(said):
        end = at + span
        if end > len(said) or said[at:end] not in text:
            kept.append(said[at])
            at += 1
            continue
        while end < len(said) and said[at : end + 1] in text:
            end += 1
        kept.append(_HIDDEN)
        at = end
    return "".join(kept)
