"""What may go wrong before anything is asked: checks of a registry and of the machine."""

import importlib.metadata
import os
import platform
import shutil
from dataclasses import dataclass
from pathlib import Path

from experts_registry.errors import ComposerError
from experts_registry.plugins import load_plugin, plugin_names
from experts_registry.registry import Registry
from experts_registry.schema import Composition, ExpertSpec, InlineRouter

__all__ = ["Finding", "check_registry", "examine", "versions"]

_PACKAGES = (
    "expert-composer", "torch", "transformers", "sentence-transformers", "faiss-cpu", "ray",
    "pydantic", "httpx", "numpy", "safetensors", "pyarrow", "gguf", "peft", "matplotlib",
)  # fmt: skip


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at."""

    text: str
    is_error: bool = False


def versions() -> dict[str, str | None]:
    """Return the installed version of each package that matters, None where it is missing."""
    found: dict[str, str | None] = {"python": platform.python_version()}
    for package in _PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            found[package] = None
    return found


def check_registry(registry: Registry, *, models: bool = False) -> list[Finding]:
    """Check what the schema cannot: plug-ins, environment variables, artefacts, models."""
    findings = []
    for spec in registry.experts.values():
        findings += _check_expert(spec, models)
    for composition in registry.compositions.values():
        findings += _check_composition(composition, registry)
    return findings


def _check_expert(spec: ExpertSpec, models: bool) -> list[Finding]:
    findings = []
    if ":" not in spec.backend and spec.backend not in (known := plugin_names("backends")):
        text = f"expert {spec.name!r}: backend {spec.backend!r} is not one of {', '.join(known)}"
        findings.append(Finding(text, True))
    for key, variable in spec.options.items():
        if key.endswith("_env") and isinstance(variable, str) and variable not in os.environ:
            findings.append(
                Finding(f"expert {spec.name!r}: environment variable {variable} is not set")
            )
    if models and spec.backend in {"transformers", "sentence_transformers"}:
        from experts_registry.sources import locate

        try:
            findings.append(Finding(f"expert {spec.name!r}: found at {locate(spec)}"))
        except ComposerError as error:
            findings.append(Finding(str(error), True))
    return findings


def _check_composition(composition: Composition, registry: Registry) -> list[Finding]:
    where, findings = f"composition {composition.name!r}", []
    try:
        load_plugin("strategies", composition.strategy)
    except ComposerError as error:
        findings.append(Finding(f"{where}: {error}; asking it will fail"))
    if composition.retrieval is not None:
        findings.append(Finding(f"{where}: retrieval is not available yet; asking it will fail"))
    if composition.select.policy != "top-1":
        findings.append(Finding(f"{where}: policy {composition.select.policy!r} is not top-1"))
    match composition.router:
        case str() as path if not (registry.resolve(path) / "router.json").exists():
            findings.append(
                Finding(
                    f"{where}: router {path} does not exist yet; 'expert-composer train' makes it"
                )
            )
        case InlineRouter(type=kind) if ":" not in kind and kind not in plugin_names("routers"):
            known = ", ".join(plugin_names("routers"))
            findings.append(Finding(f"{where}: router {kind!r} is not one of {known}", True))
        case _:
            pass
    return findings


def examine(registry: Path) -> list[Finding]:
    """Look at the machine: Python, packages, GPU, disk, cache, and the registry if there is one."""
    from experts_registry.sources import cache_dir

    findings = [Finding(f"Python {platform.python_version()}, {os.cpu_count()} cores")]
    missing = [n for n, v in versions().items() if v is None]
    findings.append(Finding(f"optional packages missing: {', '.join(missing) or 'none'}"))
    findings.append(_torch())
    findings.append(_other_composer())
    free = shutil.disk_usage(_existing(cache_dir())).free / 2**30
    findings.append(Finding(f"cache {cache_dir()}: {free:.0f} GiB free", free < 3))
    if registry.exists():
        try:
            findings += check_registry(file := Registry.load(registry))
            findings.append(Finding(f"{registry}: {len(file.experts)} experts"))
        except ComposerError as error:
            findings.append(Finding(str(error), True))
    else:
        findings.append(Finding(f"{registry} does not exist; 'expert-composer init' writes one"))
    return findings


def _torch() -> Finding:
    import torch

    if torch.cuda.is_available():
        names = {torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())}
        return Finding(f"torch {torch.__version__} with {', '.join(sorted(names))}")
    if torch.version.cuda:
        text = (
            f"torch {torch.__version__} brings CUDA, but no GPU is visible; a CPU build is smaller"
        )
        return Finding(text)
    return Finding(f"torch {torch.__version__}, CPU only")


def _other_composer() -> Finding:
    """`mosaicml` installs a top-level package of our name."""
    try:
        importlib.metadata.version("mosaicml")
    except importlib.metadata.PackageNotFoundError:
        return Finding("no other package is called 'composer'")
    return Finding(
        "mosaicml is installed and also calls itself 'composer'; use separate environments", True
    )


def _existing(path: Path) -> Path:
    while not path.exists():
        path = path.parent
    return path
