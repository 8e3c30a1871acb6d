"""Where a store lies, and how a build takes the place of the one before it.

::

    stores/guides/
      current                names the generation that is served, and the digest of its manifest
      generations/000002/    manifest.json, passages.jsonl, starts.npy, <digest>.faiss, lexical/
      building/              the next one, until it is whole
      vectors/               what was embedded, see `composer.stores.vectors`
      build.lock             held while somebody builds

A generation never changes. It is written beside the others, down to the disk, and becomes the
current one by the replacement of one small file; a process that has the old one open keeps it.
"""

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from filelock import FileLock, Timeout

from composer.stores.disk import file_digest, replaced, synced, writing
from composer.stores.manifest import MANIFEST, Manifest
from experts_registry.errors import ArtefactError, DataError

__all__ = [
    "Generation",
    "build_command",
    "building",
    "current_mark",
    "damaged",
    "holding",
    "publish",
]

_CURRENT, _GENERATIONS, _BUILDING = "current", "generations", "building"


def build_command(name: str) -> str:
    """Return what makes a store, for errors."""
    return f"run 'expert-composer store build {name}'"


@dataclass(frozen=True)
class Generation:
    """A finished build: where it lies and what it says of itself."""

    folder: Path
    manifest: Manifest
    mark: str

    @classmethod
    def current(cls, folder: Path, *, name: str) -> Self:
        """Return the one that is served.

        Raises:
            ArtefactError: the store was never built, or is damaged.
        """
        mark = current_mark(folder)
        if mark is None:
            raise ArtefactError(f"store {name!r}: is not built yet; {build_command(name)}")
        try:
            pointer = json.loads(mark)
            found = folder / _GENERATIONS / str(pointer["generation"])
            manifest = Manifest.read(found, sha256=pointer["manifest"])
        except (ValueError, KeyError, TypeError) as error:
            raise damaged(name, f"{folder / _CURRENT} is damaged") from error
        except ArtefactError as error:
            raise damaged(name, str(error)) from error
        return cls(found, manifest, mark)

    @classmethod
    def without_pointer(cls, folder: Path) -> Self | None:
        """Return the last one, where nothing says that it is served; its mark is empty.

        A copy that was cut off, or a kill at the end of the first build, leaves a store so.
        """
        home = folder / _GENERATIONS
        if not (found := sorted(home.glob("[0-9]*"))):
            return None
        try:
            digest = file_digest(found[-1] / MANIFEST)
            return cls(found[-1], Manifest.read(found[-1], sha256=digest), "")
        except (OSError, ArtefactError):
            return None

    def is_whole(self, file: str) -> bool:
        """Tell whether a file is what was written."""
        path, built = self.folder / file, self.manifest.files.get(file)
        try:
            size = path.stat().st_size
            return built is not None and size == built.bytes and file_digest(path) == built.sha256
        except OSError:
            return False

    def check(self) -> None:
        """Compare every file with what was written.

        Raises:
            ArtefactError: one is missing, cut off or changed.
        """
        for file in self.manifest.files:
            if not self.is_whole(file):
                what = f"{self.folder / file} is missing, cut off or changed"
                raise damaged(self.manifest.name, what)


def current_mark(folder: Path) -> str | None:
    """Return what changes with every build, or None where there is none."""
    try:
        return (folder / _CURRENT).read_text(encoding="utf-8")
    except FileNotFoundError:
        return None
    except (OSError, UnicodeError) as error:
        raise ArtefactError(f"{folder / _CURRENT}: cannot be read ({error})") from error


def damaged(name: str, what: str) -> ArtefactError:
    """Build the one error for a store that is not as it was written."""
    return ArtefactError(f"store {name!r}: {what}; {build_command(name)}")


@contextmanager
def holding(folder: Path, *, name: str) -> Iterator[None]:
    """Let nobody else build meanwhile.

    Raises:
        DataError: somebody does, or the folder cannot be written.
    """
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        try:
            held = FileLock(folder / "build.lock", timeout=0).acquire()
        except Timeout:
            raise DataError(
                f"store {name!r}: another build of it is running; wait for it to end"
            ) from None
    with held:
        yield


@contextmanager
def building(folder: Path) -> Iterator[Path]:
    """Make an empty folder for the next generation; what is left of it at the end is removed."""
    path = folder / _BUILDING
    with writing(path):
        _remove(path)
        path.mkdir()
    try:
        yield path
    finally:
        _remove(path)


def publish(folder: Path, built: Path, manifest: Manifest) -> Generation:
    """Make a folder that holds everything but its manifest the current generation."""
    with writing(folder):
        text = manifest.model_dump_json(indent=1)
        (built / MANIFEST).write_text(text, encoding="utf-8")
        for path in built.rglob("*"):
            synced(path)
        synced(built)
        home = folder / _GENERATIONS
        home.mkdir(exist_ok=True)
        before = list(home.iterdir())
        number = max((int(p.name) for p in before if p.name.isdecimal()), default=0) + 1
        pointer = {"generation": f"{number:06d}", "manifest": file_digest(built / MANIFEST)}
        built.rename(home / pointer["generation"])
        synced(home)
        replaced(folder / _CURRENT, json.dumps(pointer))
    for path in before:
        _remove(path)
    return Generation.current(folder, name=manifest.name)


def _remove(path: Path) -> None:
    if path.exists():
        shutil.rmtree(path, ignore_errors=True)
