"""Names that nobody else has, and nobody can guess."""

import os
from collections import deque

__all__ = ["new_id"]

_MANY = 128  # drawn at once: asking the system for each costs ten times as much
_ready: deque[str] = deque()
os.register_at_fork(after_in_child=_ready.clear)  # a child must not give out the same ones


def new_id() -> str:
    """Return 128 random bits as 32 hexadecimal digits; safe from any thread."""
    while True:
        try:
            return _ready.popleft()
        except IndexError:
            drawn = os.urandom(16 * _MANY).hex()
            _ready.extend(drawn[i : i + 32] for i in range(0, len(drawn), 32))
