"""Find the model of an expert: on the hub, in a folder, or inside an installed package.

Nothing is imported to find it, and nothing of it is loaded before its digest was checked.
"""

import errno
import hashlib
import os
from collections.abc import Sequence
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path

from experts_registry.errors import ModelSourceError, nearest
from experts_registry.schema import ExpertSpec

__all__ = [
    "cache_dir",
    "disk_full",
    "file_digest",
    "find",
    "is_local",
    "locate",
    "source_digest",
]

_ENTRY_FILES = ("config.json", "modules.json")
_MODEL_FILES = frozenset({".json", ".jinja", ".txt", ".model", ".safetensors", ".bin", ".gguf"})
_REMEMBER_ABOVE = 1_000_000  # Bytes; smaller files are hashed faster than they are looked up.


def cache_dir() -> Path:
    """Return the folder for what can be made again: converted models, remembered digests."""
    if own := os.environ.get("EXPERT_COMPOSER_CACHE"):
        return Path(own).expanduser().absolute()
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache").absolute() / "expert-composer"


def is_local(source: str) -> bool:
    """Tell a file or folder (``path:``, ``package:``) from a hub name."""
    return source.startswith(("path:", "package:"))


def find(source: str) -> Path:
    """Return the file or folder behind a ``path:`` or ``package:`` source.

    Raises:
        ModelSourceError: it is not there.
    """
    kind, _, rest = source.partition(":")
    if kind == "path" and rest:
        path = Path(rest).expanduser().absolute()
        return path if path.exists() else _missing(source, path)
    if kind == "package" and rest:
        return _in_package(source, rest)
    raise ModelSourceError(
        f"{source!r}: is not a local model; use path:<file or folder> or "
        "package:<import name>/<file or folder>"
    )


def locate(spec: ExpertSpec) -> str:
    """Return what ``from_pretrained`` takes: a hub name, or a local folder ready to load.

    A GGUF file, whole or in parts, is converted on first use; its digest is checked before.

    Raises:
        ModelSourceError: it cannot be found, verified or converted.
    """
    if _is_hub_name(spec):
        return spec.sources[0]
    paths = [find(source) for source in spec.sources]
    if len(paths) == 1 and paths[0].is_dir():
        paths = [_model_in(paths[0], spec)]
        if paths[0].is_dir():
            _check(spec, _weights(paths[0], spec) if spec.sha256 else [])
            return str(paths[0])
    return _unpacked(spec, paths)


def source_digest(spec: ExpertSpec) -> str:
    """Identify the model's content, for artefacts that only fit this model.

    Of a file its sha256, of a folder one over its configuration, tokenizer and weights, of a hub
    name one over the name and the ``revision`` option.
    """
    if _is_hub_name(spec):
        name = f"{spec.sources[0]}@{spec.options.get('revision', 'main')}"
        return hashlib.sha256(name.encode()).hexdigest()
    paths = [find(source) for source in spec.sources]
    if len(paths) == 1 and paths[0].is_dir():
        paths = [_model_in(paths[0], spec)]
        if paths[0].is_dir():
            return _folder_digest(paths[0])
    return spec.sha256 or file_digest(paths)


def file_digest(paths: Sequence[Path]) -> str:
    """Return the sha256 of joined files; large ones' is remembered by path, size and time."""
    stats = [path.stat() for path in paths]
    if sum(s.st_size for s in stats) < _REMEMBER_ABOVE:
        return _hash(paths)
    key = repr([(str(p), s.st_size, s.st_mtime_ns) for p, s in zip(paths, stats, strict=True)])
    note = cache_dir() / "digests" / hashlib.sha256(key.encode()).hexdigest()[:32]
    # A cache that cannot be read or written costs time, never an answer.
    with suppress(OSError):
        if len(known := note.read_text()) == 64:
            return known
    digest = _hash(paths)
    with suppress(OSError):
        note.parent.mkdir(parents=True, exist_ok=True)
        partial = note.with_suffix(f".{os.getpid()}")
        partial.write_text(digest)
        partial.replace(note)
    return digest


def disk_full(error: Exception) -> bool:
    """Recognise a full disk; safetensors reports it as text only."""
    is_full = isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)
    return is_full or "os error 28" in str(error)


def _is_hub_name(spec: ExpertSpec) -> bool:
    local = [is_local(source) for source in spec.sources]
    if any(local):
        return False
    if len(local) > 1:
        raise ModelSourceError(
            f"expert {spec.name!r}: a list of parts needs path: or package: before each; "
            f"{spec.sources[0]!r} has neither"
        )
    if spec.sha256:
        raise ModelSourceError(
            f"expert {spec.name!r}: sha256 needs a local file, and {spec.sources[0]!r} is a hub "
            "name; pin it with options.revision"
        )
    return True


def _in_package(source: str, rest: str) -> Path:
    name, _, inside = rest.partition("/")
    top, *modules = name.split(".")
    # Only the first part is looked up: for a dotted name find_spec would import the parents.
    try:
        roots = getattr(find_spec(top), "submodule_search_locations", None) or ()
    except ValueError:
        roots = ()
    folders = [f for f in (Path(root).joinpath(*modules) for root in roots) if f.is_dir()]
    if not folders:
        raise ModelSourceError(
            f"{source!r}: no package {name!r} is installed here; install the one that ships it"
        )
    hits = [folder / inside for folder in folders if (folder / inside).exists()]
    return hits[0] if hits else _missing(source, folders[0] / inside)


def _missing(source: str, path: Path) -> Path:
    folder = path.parent
    while not folder.is_dir():
        folder = folder.parent
    names = sorted(entry.name for entry in folder.iterdir())
    listed = ", ".join(names[:10]) + (", ..." if len(names) > 10 else "")
    raise ModelSourceError(
        f"{source!r}: {path} does not exist; {folder} holds {listed or 'nothing'}"
        f"{nearest(path.name, names)}"
    )


def _model_in(folder: Path, spec: ExpertSpec) -> Path:
    """Return the folder that holds the model, or the GGUF file that is one."""
    if _is_model(folder):
        return folder
    inner = [child for child in sorted(folder.iterdir()) if child.is_dir() and _is_model(child)]
    packed = sorted(folder.glob("*.gguf"))
    if len(inner) + len(packed) == 1:
        return (inner + packed)[0]
    choice = ", ".join(path.name for path in inner + packed) or "none"
    raise ModelSourceError(
        f"expert {spec.name!r}: {folder} is not a model: it has no config.json, and of folders "
        f"with one and .gguf files it holds {choice}; name the file or folder"
    )


def _is_model(folder: Path) -> bool:
    return any((folder / name).is_file() for name in _ENTRY_FILES)


def _weights(folder: Path, spec: ExpertSpec) -> list[Path]:
    files = sorted(folder.glob("*.safetensors"))
    if len(files) != 1:
        raise ModelSourceError(
            f"expert {spec.name!r}: sha256 needs a single file, and {folder} holds {len(files)} "
            ".safetensors files; leave sha256 out"
        )
    return files


def _check(spec: ExpertSpec, paths: Sequence[Path]) -> str:
    """Return the digest of the joined files, or an empty string where there are none."""
    digest = file_digest(paths) if paths else ""
    if spec.sha256 not in (None, digest):
        raise ModelSourceError(
            f"expert {spec.name!r}: sha256 of {', '.join(p.name for p in paths)} is "
            f"{digest[:12]}..., the file says {str(spec.sha256)[:12]}...; "
            "it is damaged or another version"
        )
    return digest


def _unpacked(spec: ExpertSpec, paths: Sequence[Path]) -> str:
    for path in paths:
        if not path.is_file():
            raise ModelSourceError(
                f"expert {spec.name!r}: {path} is a folder; only files can be joined"
            )
    digest = _check(spec, paths)
    # Not at the top: gguf needs cache_dir from here.
    from experts_registry.gguf import convert

    try:
        return str(convert(paths, digest))
    except ModelSourceError as error:
        raise ModelSourceError(f"expert {spec.name!r}: {error}") from error.__cause__


def _folder_digest(folder: Path) -> str:
    digest = hashlib.sha256()
    for path in sorted(folder.rglob("*")):
        if path.suffix in _MODEL_FILES and path.is_file():
            digest.update(f"{path.relative_to(folder).as_posix()} {file_digest([path])}\n".encode())
    return digest.hexdigest()


def _hash(paths: Sequence[Path]) -> str:
    digest = hashlib.sha256()
    for path in paths:
        with path.open("rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()
