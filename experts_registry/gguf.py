"""Unpack a GGUF file once into a safetensors folder that loads in seconds.

Unpacking takes from half a minute to some minutes; the folder is kept in the cache under the
digest of the file, so a changed file is another folder and an interrupted run leaves none.
"""

import contextlib
import logging
import shutil
import struct
import time
from collections.abc import Iterator, Sequence
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from threading import Lock
from typing import Any

from filelock import FileLock
from safetensors import SafetensorError

from experts_registry.errors import ModelSourceError
from experts_registry.sources import cache_dir, disk_full

__all__ = ["convert"]

logger = logging.getLogger(__name__)

MAGIC = b"GGUF"
_swap = Lock()

# What parsers of a damaged or unknown file raise, since none of them checks first.
_UNREADABLE = (
    ArithmeticError,
    AttributeError,
    ImportError,
    LookupError,
    MemoryError,
    OSError,
    RuntimeError,
    TypeError,
    ValueError,
    struct.error,
)
VERSION = 1  # Part of the folder's name: raise it when the conversion changes what it writes.


def convert(parts: Sequence[Path], digest: str) -> Path:
    """Return the folder of the unpacked model, making it on first use.

    Args:
        parts: the file, or the pieces of it in order.
        digest: sha256 of the joined file.

    Raises:
        ModelSourceError: it is not a GGUF file, is truncated, or cannot be unpacked here.
    """
    target = cache_dir() / "models" / f"{digest[:32]}-{VERSION}"
    if target.is_dir():
        return target
    _require_magic(parts[0])
    _require_packages()
    with _naming_the_cache(target.parent):
        target.parent.mkdir(parents=True, exist_ok=True)
        # Two workers that start together wait for one conversion.
        with FileLock(f"{target}.lock"):
            if not target.is_dir():
                _build(parts, target)
    return target


def _build(parts: Sequence[Path], target: Path) -> None:
    """Unpack beside the target and rename: it is there as a whole or not at all."""
    partial = target.with_name(f"{target.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)  # Left by a killed run; the lock makes it ours.
    started = time.monotonic()
    logger.info("unpacking %s into %s (once)", parts[0].name, target)
    try:
        partial.mkdir()
        _unpack(_joined(parts, partial), partial)
        (partial / "joined.gguf").unlink(missing_ok=True)
        partial.rename(target)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    logger.info("unpacked %s in %.0f s", parts[0].name, time.monotonic() - started)


def _joined(parts: Sequence[Path], folder: Path) -> Path:
    if len(parts) == 1:
        return parts[0]
    path = folder / "joined.gguf"
    with path.open("wb") as whole:
        for part in parts:
            with part.open("rb") as piece:
                shutil.copyfileobj(piece, whole, 1 << 20)
    return path


def _unpack(file: Path, folder: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

    try:
        with _parsed_once():
            tokenizer = AutoTokenizer.from_pretrained(file.parent, gguf_file=file.name)
            loaded: Any = AutoModelForCausalLM.from_pretrained(
                file.parent,
                gguf_file=file.name,
                quantization_config=GgufConfig(dequantize=True),
                dtype=torch.float16,  # Half the disk; the packed weights hold less than that.
                output_loading_info=True,
            )
    except _UNREADABLE as error:
        raise ModelSourceError(_diagnosis(file, error)) from error
    model, report = loaded
    # transformers fills what the file lacks with random numbers, and only logs it.
    if lacking := sorted([*report["missing_keys"], *map(str, report["mismatched_keys"])]):
        raise ModelSourceError(
            f"{file.name}: holds no {lacking[0]} and {len(lacking) - 1} more weights that its "
            "header promises; it is damaged or only a part"
        )
    # Marked as quantized, it could neither be saved nor loaded as the plain model it now is.
    with contextlib.suppress(AttributeError):
        del model.config.quantization_config
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


@contextlib.contextmanager
def _parsed_once() -> Iterator[None]:
    """Let transformers reuse what it otherwise parses three times, and maps once per layer.

    Without this unpacking takes about twice as long, and is the same otherwise.
    """
    import gguf

    # The lock keeps a second thread from taking the first one's replacements for the originals.
    with _swap:
        slow = {name: getattr(gguf, name) for name in ("GGUFReader", "get_tensor_name_map")}
        for name, function in slow.items():
            setattr(gguf, name, cache(function))
        try:
            yield
        finally:
            for name, function in slow.items():
                setattr(gguf, name, function)


def _diagnosis(file: Path, error: Exception) -> str:
    """Tell a damaged file from one that transformers does not know."""
    from gguf import GGUFReader

    try:
        GGUFReader(file)
    except _UNREADABLE as damage:
        return f"{file.name}: is a truncated or damaged GGUF file ({damage}); get it again"
    return (
        f"{file.name}: transformers cannot unpack this GGUF file ({error}); "
        "serve it with llama.cpp and name that server with backend openai"
    )


def _require_magic(file: Path) -> None:
    with file.open("rb") as start:
        magic = start.read(len(MAGIC))
    if magic != MAGIC:
        found = f"it begins with {magic!r}, not {MAGIC!r}" if magic else "it is empty"
        raise ModelSourceError(
            f"{file}: is not a GGUF file: {found}; name one, or a folder with config.json"
        )


def _require_packages() -> None:
    missing = [name for name in ("gguf", "accelerate") if find_spec(name) is None]
    if missing:
        raise ModelSourceError(
            f"GGUF needs {' and '.join(missing)}; run: pip install 'expert-composer[gguf]'"
        )


@contextlib.contextmanager
def _naming_the_cache(folder: Path) -> Iterator[None]:
    """Say where there was no room or no right to write, and how to write elsewhere."""
    try:
        yield
    except (OSError, SafetensorError) as error:
        what = "the disk is full" if disk_full(error) else f"cannot be written ({error})"
        raise ModelSourceError(
            f"{folder}: {what}; free some gigabytes there, or set EXPERT_COMPOSER_CACHE to a "
            "folder that has them"
        ) from error
