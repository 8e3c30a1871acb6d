"""Follow the expert file: every edit becomes a whole new generation, or an error."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from pathlib import Path

from watchfiles import awatch

from experts_registry.errors import RegistryError
from experts_registry.lines import read_text, text_digest
from experts_registry.registry import Registry

__all__ = ["watch"]

# An editor that deletes and writes again leaves the file missing for a moment.
GRACE_SECONDS = 0.5
# File systems without notifications (network drives, some containers) are looked at this often.
LOOK_MILLISECONDS = 1000


async def watch(
    path: str | Path, *, current: Registry | None = None, stop: asyncio.Event | None = None
) -> AsyncIterator[Registry | RegistryError]:
    """Yield a new `Registry` for each valid edit and a `RegistryError` for each bad one.

    After an error the last good generation stays in force: keep using it. Only a change of the
    content counts, not a touch. Writers should write beside the file and rename: a half-written
    file that is read in between usually yields an error and then the good version, but one cut
    off between two experts is a valid file with fewer of them.

    Args:
        path: the file; it may be a link whose target is swapped, as Kubernetes does.
        current: the generation in use; without it the first item is the file as it is now.
        stop: ends the iteration when set.

    Raises:
        RegistryError: the folder of the file does not exist.
    """
    path = Path(path)
    folders = {path.absolute().parent, path.resolve().parent}
    if missing := [folder for folder in folders if not folder.is_dir()]:
        raise RegistryError(f"{path}: folder {missing[0]} does not exist; nothing to watch")
    generation = current.generation if current else 0
    seen = current.digest if current else ""
    async with aclosing(_moments(folders, stop)) as moments:
        async for _ in moments:
            text = await _read(path)
            identity = str(text) if isinstance(text, RegistryError) else text_digest(text)
            if identity == seen:
                continue
            seen = identity
            found = await asyncio.to_thread(_parse, text, path, generation + 1)
            if isinstance(found, Registry):
                generation = found.generation
            yield found


async def _moments(folders: set[Path], stop: asyncio.Event | None) -> AsyncGenerator[None]:
    """Yield whenever it is worth looking: now, after each change, and once a second."""
    yield
    async for _ in awatch(
        *folders,
        watch_filter=None,
        stop_event=stop,
        rust_timeout=LOOK_MILLISECONDS,
        yield_on_timeout=True,
        recursive=False,
    ):
        yield


async def _read(path: Path) -> str | RegistryError:
    if not path.exists():
        await asyncio.sleep(GRACE_SECONDS)
    try:
        return await asyncio.to_thread(read_text, path)
    except RegistryError as error:
        return error


def _parse(text: str | RegistryError, path: Path, generation: int) -> Registry | RegistryError:
    if isinstance(text, RegistryError):
        return text
    try:
        return Registry.parse(text, path=path, generation=generation)
    except RegistryError as error:
        return error
