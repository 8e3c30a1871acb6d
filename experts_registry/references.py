"""Check what one key of the file says against the rest of it: names, and secrets that leaked in."""

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from experts_registry.complaints import Complaint
from experts_registry.errors import nearest
from experts_registry.lines import KeyPath
from experts_registry.plugins import plugin_names
from experts_registry.retrieval_schema import RetrievalSpec
from experts_registry.schema import RegistryFile

__all__ = ["broken_references", "exposed_secrets", "misplaced_stores"]

_SECRET_KEYS = frozenset(
    [
        "accesstoken",
        "apikey",
        "authorization",
        "authtoken",
        "bearer",
        "clientsecret",
        "hftoken",
        "passwd",
        "password",
        "secret",
        "token",
        "xapikey",
    ]
)
_SECRET_VALUE = re.compile(
    r"\b(sk|pk|rk)-[\w-]{16,}|\bhf_\w{20,}|\bghp_\w{20,}|\bAKIA\w{12,}|^Bearer |://[^/@\s]+:[^/@\s]+@"
)
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


def broken_references(file: RegistryFile) -> Iterator[Complaint]:
    """Yield names that are used twice, or that refer to nothing that fits."""
    yield from _backends(file)
    for section in ("experts", "stores", "compositions"):
        yield from _repeated(
            [(section, i, "name") for i in range(len(getattr(file, section)))],
            [entry.name for entry in getattr(file, section)],
        )
    experts = _Experts(file)
    if file.encoder is not None:
        yield from experts.complain(("encoder",), file.encoder, "retriever")
        if file.encoder in experts.disabled:
            yield ("encoder",), f"expert {file.encoder!r} is disabled; enable it or name another"
    for i, store in enumerate(file.stores):
        where: KeyPath = ("stores", i, "retrievers")
        yield from experts.complain_all(where, store.retrievers, "retriever")
        if store.reranker is not None:
            yield from experts.complain(("stores", i, "reranker"), store.reranker, "reranker")
    yield from _compositions(file, experts)


class _Experts:
    """The experts of a file, and what is wrong with a name that should be one of them.

    A disabled expert may stay in lists: it is passed over there until it is enabled again.
    """

    def __init__(self, file: RegistryFile) -> None:
        self._kinds = {spec.name: spec.kind for spec in file.experts}
        self.disabled = {spec.name for spec in file.experts if not spec.enabled}

    def names(self, kind: str) -> list[str]:
        return [name for name, k in self._kinds.items() if k == kind]

    def complain(self, where: KeyPath, name: str, kind: str) -> Iterator[Complaint]:
        if name not in self._kinds:
            yield where, _unknown("expert", name, self.names(kind))
        elif self._kinds[name] != kind:
            yield where, f"expert {name!r} is of kind {self._kinds[name]}; name one of kind {kind}"

    def complain_all(self, where: KeyPath, names: Sequence[str], kind: str) -> Iterator[Complaint]:
        paths: list[KeyPath] = [(*where, i) for i in range(len(names))]
        yield from _repeated(paths, names)
        for path, name in zip(paths, names, strict=True):
            yield from self.complain(path, name, kind)


def _compositions(file: RegistryFile, experts: _Experts) -> Iterator[Complaint]:
    taken = {spec.name for spec in file.experts}
    stores = [store.name for store in file.stores]
    for i, composition in enumerate(file.compositions):
        here: KeyPath = ("compositions", i)
        if composition.name in taken:
            yield (*here, "name"), f"{composition.name!r} is already an expert; choose another name"
        yield from experts.complain_all((*here, "experts"), composition.experts, "llm")
        for kind, names in composition.fallbacks:
            yield from experts.complain_all((*here, "fallbacks", kind), names, "llm")
        members = composition.experts or tuple(experts.names("llm"))
        if not members:
            yield here, "there is no llm for it to ask; add one"
        if composition.baseline is not None and composition.baseline not in members:
            yield (
                (*here, "baseline"),
                _unknown("expert", composition.baseline, members),
            )
        if composition.retrieval is not None:
            yield from _stores((*here, "retrieval", "store"), composition.retrieval, stores)


def _stores(where: KeyPath, retrieval: RetrievalSpec, known: Sequence[str]) -> Iterator[Complaint]:
    is_one = isinstance(retrieval.store, str)
    paths = [where if is_one else (*where, i) for i in range(len(retrieval.stores))]
    yield from _repeated(paths, retrieval.stores)
    for path, name in zip(paths, retrieval.stores, strict=True):
        if name not in known:
            yield path, _unknown("store", name, known)


def _backends(file: RegistryFile) -> Iterator[Complaint]:
    known = plugin_names("backends")
    for i, spec in enumerate(file.experts):
        if spec.backend not in known and ":" not in spec.backend:
            yield (
                ("experts", i, "backend"),
                _unknown("backend", spec.backend, [*known, "module:Name"]),
            )


def _repeated(paths: Sequence[KeyPath], names: Sequence[str]) -> Iterator[Complaint]:
    seen: set[str] = set()
    for path, name in zip(paths, names, strict=True):
        if name in seen:
            yield path, f"{name!r} is there twice; names are unique"
        seen.add(name)


def _unknown(what: str, name: str, known: Sequence[str]) -> str:
    listed = ", ".join(known[:20]) + (", ..." if len(known) > 20 else "")
    return f"{what} {name!r} is not one of {listed or '(none)'}{nearest(name, known)}"


def misplaced_stores(file: RegistryFile, home: Path) -> Iterator[Complaint]:
    """Yield folders of stores that are not theirs alone: a build removes what it finds there.

    Args:
        file: the expert file.
        home: its folder.
    """
    taken: dict[Path, str] = {}
    for i, store in enumerate(file.stores):
        where: KeyPath = ("stores", i, "folder") if store.folder else ("stores", i)
        folder = _absolute(home, store.folder or f"stores/{store.name}")
        source = _absolute(home, store.passages)
        if taken.setdefault(folder, store.name) != store.name:
            yield where, f"the folder of store {taken[folder]!r} is this one too; name another"
        if folder == source or folder in source.parents:
            yield where, "its 'passages' lie in this folder; name one for the store alone"


def _absolute(home: Path, path: str) -> Path:
    return Path(os.path.normpath(home / os.path.expanduser(path)))  # noqa: PTH111 - never raises


def exposed_secrets(file: RegistryFile) -> Iterator[Complaint]:
    """Yield options that hold a secret; the file may name only environment variables."""
    for i, spec in enumerate(file.experts):
        yield from _secrets(("experts", i, "options"), spec.options)


def _secrets(where: KeyPath, value: Any) -> Iterator[Complaint]:
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _secret_key((*where, key), key, inner)
    elif isinstance(value, list):
        for i, inner in enumerate(value):
            yield from _secrets((*where, i), inner)
    elif isinstance(value, str) and _SECRET_VALUE.search(value):
        yield where, "holds a secret; put it in an environment variable and name that: api_key_env"


def _secret_key(where: KeyPath, key: str, value: Any) -> Iterator[Complaint]:
    if re.sub(r"[-_]", "", key.lower()) in _SECRET_KEYS and value is not None:
        yield (
            where,
            ("holds a secret; put it in an environment variable and use api_key_env with its name"),
        )
    elif key.endswith("_env") and not (
        isinstance(value, str) and _VARIABLE.fullmatch(value) and not _SECRET_VALUE.search(value)
    ):
        # The value is not repeated: it is most likely the secret itself.
        yield where, "is not the name of an environment variable; use one such as BIG_KEY"
    else:
        yield from _secrets(where, value)
