"""How many requests a server works on at once; more are turned away before they cost anything."""

from composer.http.errors import overloaded

__all__ = ["Crowd"]


class Crowd:
    """The requests that are being answered, each in a ``with`` block; of one event loop.

    To enter raises `ApiError` where there are too many; nothing of the request was read then.

    Args:
        most: at once.
    """

    def __init__(self, most: int) -> None:
        self.most, self.present, self.turned_away = most, 0, 0

    def __enter__(self) -> None:
        if self.present >= self.most:
            self.turned_away += 1
            raise overloaded(f"{self.present} requests are being answered already; come back later")
        self.present += 1

    def __exit__(self, *_: object) -> None:
        self.present -= 1
