"""How many requests a server works on at once; more are turned away before they cost anything."""

from collections.abc import Iterator
from contextlib import contextmanager

from composer.http.errors import overloaded

__all__ = ["Crowd"]


class Crowd:
    """The requests that are being answered; of one event loop.

    Args:
        most: at once.
    """

    def __init__(self, most: int) -> None:
        self.most, self.present, self.turned_away = most, 0, 0

    @contextmanager
    def joined(self) -> Iterator[None]:
        """Be one of them.

        Raises:
            ApiError: there are too many; nothing of the request was read.
        """
        if self.present >= self.most:
            self.turned_away += 1
            raise overloaded(f"{self.present} requests are being answered already; come back later")
        self.present += 1
        try:
            yield
        finally:
            self.present -= 1
