"""What may go wrong before anything is asked: checks of a registry and of the machine."""

import importlib.metadata
import os
import platform
import re
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from composer.opened import Opened
from composer.opening import open_embedder, open_llm, open_reranker
from composer.routing import Routing
from composer.stores.generations import build_command
from composer.stores.standing import standing
from experts_registry.errors import ComposerError, ModelSourceError
from experts_registry.lines import KeyPath, parse_yaml, read_text, text_digest
from experts_registry.plugins import load_plugin, plugin_names
from experts_registry.registry import Registry
from experts_registry.schema import Composition, ExpertSpec, InlineRouter
from routers.base import load_router
from routers.building import build_policy
from routers.gating import Gate

__all__ = ["Finding", "check_registry", "examine", "versions"]

_PACKAGES = (
    "expert-composer", "torch", "transformers", "sentence-transformers", "faiss-cpu", "ray",
    "pydantic", "httpx", "numpy", "safetensors", "pyarrow", "gguf", "peft", "matplotlib",
)  # fmt: skip


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at: it is fine, worth a note, or an error."""

    text: str
    level: Literal["ok", "note", "error"] = "ok"


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
        findings += _check_expert(spec, registry, models)
    for composition in registry.compositions.values():
        findings += _check_composition(composition, registry)
    return findings + list(_check_stores(registry))


def _check_stores(registry: Registry) -> Iterator[Finding]:
    """Say which stores are not built, or not as the file says; nothing is compared byte by byte."""
    opened = Opened(registry)
    for name in registry.stores:
        found = standing(registry, name, opened.embedder, whole=False)
        if found.error is not None:
            yield Finding(found.error, "note")
        elif found.changes:
            what = f"store {name!r}: {'; '.join(found.changes)}"
            yield Finding(f"{what}; {build_command(name)}", "note")
        router = registry.store(name).router
        if router is not None and not (registry.resolve(router) / "router.json").exists():
            what = (
                f"store {name!r}: router {router} does not exist yet; its first retriever is asked"
            )
            yield Finding(f"{what} until 'expert-composer train --router pilot' makes it", "note")
    opened.close()


def _check_expert(spec: ExpertSpec, registry: Registry, models: bool) -> list[Finding]:
    unset = [
        variable
        for key, variable in spec.options.items()
        if key.endswith("_env") and isinstance(variable, str) and variable not in os.environ
    ]
    findings = []
    if unset:
        what = f"expert {spec.name!r}: environment variable {', '.join(unset)} is not set"
        findings.append(Finding(f"{what}; set it before asking", "note"))
    wrong = list(_missing(spec))
    wrong += _unopenable(spec, unset, is_missing=bool(wrong))
    findings += [Finding(f"{_located(registry, spec, text)}: {text}", "error") for text in wrong]
    if models and not wrong:
        findings.append(_check_model(spec, registry))
    return findings


def _missing(spec: ExpertSpec) -> Iterator[str]:
    """Say which local models are not there; hub names are not looked up."""
    from experts_registry.sources import find, is_local

    named = [("model", source) for source in spec.sources]
    named += [(f"options.{key}", v) for key, v in spec.options.items() if isinstance(v, str)]
    for key, source in named:
        try:
            if is_local(source):
                find(source)
        except ComposerError as error:
            yield f"expert {spec.name!r}: {key}: {error}"


def _unopenable(spec: ExpertSpec, unset: Sequence[str], *, is_missing: bool) -> list[str]:
    """Read the options and compare offers; weights load at the first call."""
    opening = {"llm": open_llm, "retriever": open_embedder, "reranker": open_reranker}
    try:
        opening[spec.kind](spec)
    except ComposerError as error:
        # A key is looked for after everything else was found good.
        if any(repr(variable) in str(error) for variable in unset):
            return []
        if is_missing and isinstance(error, ModelSourceError):  # some look for it at once
            return []
        return str(error).splitlines()
    return []


_KEY = re.compile(r"expert '[^']*': ((?:options|model|offers)(?:\.\w+)*)\b")


def _located(registry: Registry, spec: ExpertSpec, text: str) -> str:
    """Return the file and line of the key that a mistake is about, or of the expert."""
    i = next(i for i, one in enumerate(registry.file.experts) if one.name == spec.name)
    key = _KEY.match(text)
    return _line(registry, ("experts", i, *(key[1].split(".") if key else ())))


def _line(registry: Registry, place: KeyPath) -> str:
    """Return the file and the line of a place; without it where the file is another by now."""
    text = read_text(registry.path) if registry.path.is_file() else ""
    if text_digest(text) != registry.digest:
        return str(registry.path)
    return f"{registry.path}:{parse_yaml(text, str(registry.path)).line(place)}"


def _check_model(spec: ExpertSpec, registry: Registry) -> Finding:
    from experts_registry.sources import is_local, locate

    if spec.backend not in {"transformers", "sentence_transformers", "cross_encoder"}:
        return Finding(f"expert {spec.name!r}: has no model file to check")
    if not is_local(spec.sources[0]):
        return Finding(f"expert {spec.name!r}: {spec.sources[0]} is a hub name; not looked up")
    try:
        return Finding(f"expert {spec.name!r}: found at {locate(spec)}")
    except ComposerError as error:
        return Finding(f"{_located(registry, spec, str(error))}: {error}", "error")


def _check_composition(composition: Composition, registry: Registry) -> list[Finding]:
    where, findings = f"composition {composition.name!r}", []
    try:
        load_plugin("strategies", composition.strategy)
    except ComposerError as error:
        findings.append(Finding(f"{where}: {error}; asking it will fail", "note"))
    if composition.retrieval is not None and (gate := composition.retrieval.gate) is not None:
        findings += _check_gate(where, gate, registry)
    llms = registry.llms
    names = [name for name in composition.experts or llms if name in llms]
    if names:
        findings += _check_select(composition, names, registry)
    else:
        findings.append(Finding(f"{where}: has no enabled LLM; enable or add one", "error"))
    match composition.router:
        case str() as path if not (registry.resolve(path) / "router.json").exists():
            findings.append(
                Finding(
                    f"{where}: router {path} does not exist yet; 'expert-composer train' makes it",
                    "note",
                )
            )
        case str() as path:
            try:
                load_router(registry.resolve(path), encoder=Routing(registry).encoder())
            except ComposerError as error:
                findings.append(Finding(f"{where}: {error}", "error"))
        case InlineRouter():
            try:
                Routing(registry).check(composition.router)
            except ComposerError as error:
                findings.append(Finding(f"{where}: router: {error}", "error"))
        case _:
            pass
    return findings


def _check_gate(where: str, gate: str, registry: Registry) -> list[Finding]:
    """Load a gate; one that is not there yet is none."""
    folder = registry.resolve(gate)
    if not (folder / "gate.json").exists():
        text = f"gate {gate} does not exist yet; 'expert-composer gate train' makes it"
        return [Finding(f"{where}: {text}", "note")]
    try:
        Gate.load(folder, encoder=Routing(registry).encoder())
    except ComposerError as error:
        return [Finding(f"{where}: {error}", "error")]
    return []


def _check_select(
    composition: Composition, names: Sequence[str], registry: Registry
) -> list[Finding]:
    """Build the policy and let it choose once, which shows a wrong name, setting or expert."""
    select = composition.select
    settings = select.model_extra or {}
    try:
        build_policy(select.policy, settings)(np.zeros(len(names)), experts=names)
    except ComposerError as error:
        known = select.policy in plugin_names("policies") or ":" in select.policy
        named = [key for key in settings if f"{key!r}" in str(error) or f"{key}: " in str(error)]
        blamed = (named[0] if named else "") if known else "policy"
        i = list(registry.compositions).index(composition.name)
        place: KeyPath = ("compositions", i, "select", *([blamed] if blamed else []))
        where = f"{_line(registry, place)}: {'.'.join(map(str, place))}"
        return [Finding(f"{where}: {error}", "error")]
    return []


def examine(registry: Path) -> list[Finding]:
    """Look at the machine: Python, packages, GPU, disk, cache, and the registry if there is one."""
    from experts_registry.sources import cache_dir

    findings = [Finding(f"Python {platform.python_version()}, {os.cpu_count()} cores")]
    missing = [n for n, v in versions().items() if v is None]
    findings.append(Finding(f"optional packages missing: {', '.join(missing) or 'none'}"))
    findings.append(_torch())
    findings.append(_other_composer())
    free = shutil.disk_usage(_existing(cache_dir())).free / 2**30
    level: Literal["ok", "error"] = "error" if free < 3 else "ok"
    hint = "; the demo needs 3: free some, or set EXPERT_COMPOSER_CACHE" if free < 3 else ""
    findings.append(Finding(f"cache {cache_dir()}: {free:.0f} GiB free{hint}", level))
    if registry.is_file():
        try:
            findings += check_registry(file := Registry.load(registry))
            findings.append(Finding(f"{registry}: {len(file.experts)} experts"))
        except ComposerError as error:
            findings.append(Finding(str(error), "error"))
    else:
        text = f"{registry} does not exist; 'expert-composer init' writes one"
        findings.append(Finding(text, "note"))
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
        "mosaicml is installed and also calls itself 'composer'; use separate environments", "error"
    )


def _existing(path: Path) -> Path:
    while not path.exists():
        path = path.parent
    return path
