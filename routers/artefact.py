"""A router's folder: ``router.json`` and ``state.safetensors``, written so that neither is torn."""

import json
import os
from collections.abc import Mapping
from dataclasses import fields
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

from experts_registry.errors import ArtefactError
from experts_registry.plugins import load_plugin
from experts_registry.types import Embedder, FloatArray

if TYPE_CHECKING:
    from routers.base import Router

__all__ = [
    "FORMAT",
    "load_router",
    "read_artefact",
    "replace_file",
    "save_router",
    "write_artefact",
]

FORMAT = 3


def write_artefact(
    folder: Path, header: Mapping[str, Any], state: Mapping[str, FloatArray]
) -> None:
    """Write both files, each atomically, and in the header the digest of the state."""
    from safetensors.numpy import save

    folder.mkdir(parents=True, exist_ok=True)
    content = save(dict(state))
    header = {"format": FORMAT, "state": sha256(content).hexdigest(), **header}
    replace_file(folder / "state.safetensors", content)
    replace_file(folder / "router.json", json.dumps(header, indent=2).encode())


def read_artefact(folder: Path) -> tuple[dict[str, Any], dict[str, FloatArray]]:
    """Read header and state.

    Raises:
        ArtefactError: the folder holds no router, a damaged one, or one of another format.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import load

    try:
        header = json.loads((folder / "router.json").read_text(encoding="utf-8"))
        content = (folder / "state.safetensors").read_bytes()
        state = load(content)
    except OSError as error:
        raise ArtefactError(
            f"{folder}: holds no router ({error.strerror}); make one with 'expert-composer train'"
        ) from error
    except (ValueError, SafetensorError) as error:
        raise ArtefactError(f"{folder}: is damaged ({error}); train it again") from error
    if not isinstance(header, dict) or header.get("format") != FORMAT:
        raise ArtefactError(f"{folder}: is not of format {FORMAT}; train it again")
    if header.get("state") != sha256(content).hexdigest():
        raise ArtefactError(
            f"{folder}: router.json and state.safetensors are not of one training; train it again"
        )
    return header, state


def save_router(router: "Router", folder: Path) -> Path:
    """Write a fitted router: what it is, names, settings and lineage, and beside them its state."""
    cls = type(router)
    header = {
        "router": f"{cls.__module__}:{cls.__qualname__}",
        "experts": router.experts_,
        "newcomers": router.newcomers_,
        "categories": router.categories_,
        "cost_unit": router.cost_unit_,
        "hyperparameters": {
            f.name: getattr(router, f.name)
            for f in fields(router)
            if f.init and f.name != "encoder"
        },
        "lineage": router.lineage_,
    }
    write_artefact(folder, header, router.state_)
    return folder


def load_router(path: str | Path, *, encoder: Embedder) -> "Router":
    """Read a saved router, whatever its class.

    Raises:
        ArtefactError: the folder holds no router, a damaged one, or one of another encoder.
    """
    folder = Path(path)
    header, state = read_artefact(folder)
    try:
        return _rebuild(folder, header, state, encoder)
    except (KeyError, TypeError, AttributeError) as error:
        raise ArtefactError(
            f"{folder}: does not fit this version of its router ({error}); train it again"
        ) from error


def _rebuild(
    folder: Path, header: dict[str, Any], state: dict[str, FloatArray], encoder: Embedder
) -> "Router":
    from routers.base import Router  # which needs this file to save itself

    if (fitted := header["lineage"]["encoder"]) != encoder.digest:
        raise ArtefactError(
            f"{folder}: was fitted with encoder {fitted[:12]}, not {encoder.digest[:12]}; "
            "use that encoder or train it again"
        )
    cls = load_plugin("routers", header["router"])
    if not (isinstance(cls, type) and issubclass(cls, Router)):
        raise ArtefactError(f"{folder}: {header['router']!r} is not a router; train it again")
    if len(header["experts"]) != len(state["prior.mean"]):
        raise ArtefactError(
            f"{folder}: names {len(header['experts'])} experts, but holds the state "
            f"of {len(state['prior.mean'])}; train it again"
        )
    router: Router = cls(encoder=encoder, **header["hyperparameters"])
    router.experts_ = tuple(header["experts"])
    router.newcomers_ = tuple(header["newcomers"])
    router.categories_ = tuple(header["categories"])
    router.cost_unit_ = header["cost_unit"]
    router.lineage_ = header["lineage"]
    router.state_ = state
    return router


def replace_file(path: Path, content: bytes) -> None:
    """Write a file so that a reader sees the old one or the new one, never half of one."""
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with partial.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
