"""Which composer serves: the newest edition of the expert file, while older ones finish."""

import asyncio
import logging
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from composer.checks import check_registry
from composer.sdk import Composer
from experts_registry.errors import ComposerError, PluginError, RegistryError
from experts_registry.registry import Registry
from experts_registry.watch import watch

__all__ = ["Editions"]

logger = logging.getLogger(__name__)


@dataclass
class _Edition:
    composer: Composer
    users: int = 0
    is_retired: bool = False


@dataclass
class Editions:
    """Lends the current composer to requests; a replaced one is closed after its last request.

    Args:
        composer: the first.
        workers: whether the composers of edited files run experts on Ray.
    """

    composer: Composer
    workers: bool = False
    last_reload: dict[str, Any] | None = None
    reloads: dict[str, int] = field(default_factory=lambda: {"ok": 0, "refused": 0})
    _current: _Edition = field(init=False)
    _closing: set[asyncio.Task[None]] = field(default_factory=set, init=False)

    def __post_init__(self) -> None:
        self._current = _Edition(self.composer)

    @contextmanager
    def lend(self) -> Iterator[Composer]:
        """Keep one composer for one request, whatever happens to the file meanwhile."""
        edition = self._current
        edition.users += 1
        try:
            yield edition.composer
        finally:
            edition.users -= 1
            self._close_if_done(edition)

    async def follow(self) -> None:
        """Watch the file until cancelled; a bad edit leaves the last good edition serving."""
        registry = self.composer.registry
        try:
            async for found in watch(registry.path, current=registry):
                await self._take(found)
        except (OSError, RuntimeError) as error:  # the system has no more watches to give
            self._note(error=f"edits are no longer followed: {error}; restart to read the file")
            logger.error("edits are no longer followed: %s; restart to read the file", error)

    async def aclose(self) -> None:
        """Close every composer."""
        self._current.is_retired = True
        await self._current.composer.aclose()
        await asyncio.gather(*self._closing)

    async def _take(self, found: Registry | RegistryError) -> None:
        try:
            if isinstance(found, RegistryError):
                raise found
            with _as_refusal():
                composer = await asyncio.to_thread(self._built, found)
        except ComposerError as error:
            self._note(error=str(error))
            logger.error("the edit was refused, the last good one serves on: %s", error)
        else:
            self._swap(composer)

    def _built(self, registry: Registry) -> Composer:
        """Build what the edit asks for, which shows mistakes that its text alone does not."""
        wrong = _mistakes(registry)
        # What is wrong in the edition that serves must not keep it there: an edit may mend a part.
        old = _mistakes(self.composer.registry) if wrong else {}
        if new := [text for what, text in wrong.items() if what not in old]:
            raise RegistryError("\n".join(new))
        for text in wrong.values():
            logger.warning("still wrong after the edit: %s", text)
        return Composer.over(registry, workers=self.workers, before=self.composer)

    def _swap(self, composer: Composer) -> None:
        retired, self._current = self._current, _Edition(composer)
        self.composer = composer
        retired.is_retired = True
        self._note(error=None)
        logger.info("generation %s serves", composer.registry.generation)
        self._close_if_done(retired)

    def _close_if_done(self, edition: _Edition) -> None:
        if edition.is_retired and not edition.users and edition is not self._current:
            task = asyncio.create_task(edition.composer.aclose())
            self._closing.add(task)
            task.add_done_callback(self._closing.discard)

    def _note(self, *, error: str | None) -> None:
        self.reloads["ok" if error is None else "refused"] += 1
        now = datetime.now(UTC).isoformat(timespec="seconds")
        self.last_reload = {"ok": error is None, "time": now, "error": error}


@contextmanager
def _as_refusal() -> Iterator[None]:
    """Refuse an edit whatever is wrong with it: one bad edit must not end the following of others.

    A plug-in that it names may raise anything, and the system may refuse to read a folder.
    """
    try:
        yield
    except ComposerError:
        raise
    except Exception as error:
        raise PluginError(f"cannot be built: {type(error).__name__}: {error}") from error


def _mistakes(registry: Registry) -> dict[str, str]:
    """Return what is wrong, by its text without the line, which any edit may move."""
    line = re.compile(rf"^{re.escape(str(registry.path))}(:\d+)?: ")
    found = [one.text for one in check_registry(registry) if one.level == "error"]
    return {line.sub("", text): text for text in found}
