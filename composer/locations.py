"""Where the databases of an expert file are."""

from typing import Literal

from experts_registry.registry import Registry

__all__ = ["database_location"]


def database_location(registry: Registry, what: Literal["feedback", "keys", "decisions"]) -> str:
    """Return a database URL, or the absolute path of an SQLite file.

    Each has a file of its own: SQLite lets one process write to a file at a time, and reserving
    a budget must wait neither for a batch of the decision log nor for its pruning. The log may
    also be thrown away, the keys must not.
    """
    where: str = getattr(registry.file, what) or f"{what}.db"
    return where if "://" in where else str(registry.resolve(where))
