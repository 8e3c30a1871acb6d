"""A gate's folder: ``gate.json`` and ``gate.safetensors``, written so that neither is torn."""

import json
from collections.abc import Mapping, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np

from experts_registry.errors import ArtefactError
from experts_registry.types import FloatArray
from routers.arms import Arm
from routers.artefact import replace_file

__all__ = ["arms_digest", "read_gate", "write_gate"]

FORMAT = 1
_HEADER, _STATE = "gate.json", "gate.safetensors"
_AGAIN = "train it again with 'expert-composer gate train'"


def write_gate(folder: Path, header: Mapping[str, Any], state: Mapping[str, FloatArray]) -> None:
    """Write both files, each atomically, and in the header the digest of the state."""
    from safetensors.numpy import save

    folder.mkdir(parents=True, exist_ok=True)
    # Safetensors silently scrambles what is not contiguous.
    content = save({name: np.ascontiguousarray(array) for name, array in state.items()})
    header = {"format": FORMAT, "state": sha256(content).hexdigest(), **header}
    replace_file(folder / _STATE, content)
    replace_file(folder / _HEADER, json.dumps(header, indent=2).encode())


def read_gate(folder: Path) -> tuple[dict[str, Any], dict[str, FloatArray]]:
    """Read header and state.

    Raises:
        ArtefactError: the folder holds no gate, a damaged one, or one of another format.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import load

    try:
        header = json.loads((folder / _HEADER).read_text(encoding="utf-8"))
        content = (folder / _STATE).read_bytes()
        state = load(content)
    except OSError as error:
        raise ArtefactError(
            f"{folder}: holds no gate ({error.strerror}); "
            "make one with 'expert-composer gate train'"
        ) from error
    except (ValueError, SafetensorError) as error:
        raise ArtefactError(f"{folder}: is damaged ({error}); {_AGAIN}") from error
    if not isinstance(header, dict) or header.get("format") != FORMAT:
        raise ArtefactError(f"{folder}: is not of format {FORMAT}; {_AGAIN}")
    if header.get("state") != sha256(content).hexdigest():
        raise ArtefactError(f"{folder}: its two files are not of one training; {_AGAIN}")
    return header, state


def arms_digest(experts: Sequence[str], stores: Sequence[str]) -> str:
    """Identify the arms that a gate chooses among."""
    arms = [str(Arm(expert, store)) for expert in experts for store in (None, *stores)]
    return sha256("\n".join(arms).encode()).hexdigest()
