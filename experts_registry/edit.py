"""Change the expert file from a program: only the bytes that must change do.

An edit splices the text at the positions the YAML reader reports, so comments, quotes and
spacing stay as their author left them. The result is checked as a whole before it replaces the
file in one step; a refused edit changes nothing.
"""

import codecs
import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from filelock import FileLock

from experts_registry.errors import RegistryError, unknown_name
from experts_registry.lines import compose, read_text
from experts_registry.registry import Registry
from experts_registry.schema import ExpertSpec, RegistryFile
from experts_registry.splices import (
    Splice,
    after_line,
    appended,
    block,
    content_end,
    dash_of,
    emptied,
    line_start,
    over,
    spliced,
    value_of,
    without,
)

__all__ = ["add_expert", "remove_expert", "set_enabled"]

Change = Callable[[str, Registry], list[Splice]]


def add_expert(
    path: str | Path, spec: Mapping[str, Any], *, stores: Sequence[str] = ()
) -> Registry:
    """Append an expert, given as the keys and values it has in the file.

    Args:
        path: the expert file.
        spec: what is written of it.
        stores: also name it as a retriever of these.

    Raises:
        RegistryError: the file would no longer be valid; it is unchanged.
    """

    def change(text: str, registry: Registry) -> list[Splice]:
        root = compose(text, str(path))
        experts = value_of(root, "experts")
        if experts is None:
            if root.flow_style:
                raise RegistryError(f"{path}: has no experts; write 'experts: []' in it first")
            return [after_line(text, len(text.rstrip()), "experts:\n" + block(spec, 2))]
        if experts.value and experts.flow_style:
            end = experts.value[-1].end_mark.index
            return [(end, end, ", " + json.dumps(dict(spec), ensure_ascii=False))]
        if experts.flow_style and root.flow_style:
            return [over(experts, json.dumps([dict(spec)], ensure_ascii=False))]
        if experts.flow_style:
            return [over(experts, "\n" + block(spec, 2))]
        first, last = experts.value[0], experts.value[-1]
        dash = dash_of(text, first)
        item = block(spec, dash - line_start(text, dash))
        return [after_line(text, content_end(text, last), item)]

    def join(text: str, registry: Registry) -> list[Splice]:
        lists = [_retrievers(text, registry, store) for store in stores]
        return [appended(text, items, str(spec["name"])) for items in lists]

    return _edit(path, str(spec.get("name")), lambda t, r: [*change(t, r), *join(t, r)])


def remove_expert(path: str | Path, name: str, *, force: bool = False) -> Registry:
    """Take an expert out; ``force`` also drops it wherever the file refers to it.

    Raises:
        RegistryError: there is none of that name, or something needs it; the file is unchanged.
    """

    def change(text: str, registry: Registry) -> list[Splice]:
        index = _index(registry.file, name)
        root = compose(text, str(path))
        experts = value_of(root, "experts")
        splices = _release(text, registry, name, force=force)
        if len(experts.value) == 1:
            return [*splices, emptied(text, root, experts)]
        return [*splices, without(text, experts, index)]

    return _edit(path, name, change)


def set_enabled(path: str | Path, name: str, enabled: bool) -> Registry:
    """Enable or disable an expert; lists that name it pass over it while it is disabled.

    Raises:
        RegistryError: there is none of that name, or it is the encoder; the file is unchanged.
    """

    def change(text: str, registry: Registry) -> list[Splice]:
        index = _index(registry.file, name)
        if registry.file.experts[index].enabled == enabled:
            return []
        expert = value_of(compose(text, str(path)), "experts").value[index]
        word = "true" if enabled else "false"
        if (value := value_of(expert, "enabled")) is not None:
            return [over(value, word)]
        key, value = next(pair for pair in expert.value if pair[0].value == "name")
        end = value.end_mark.index
        if expert.flow_style:
            return [(end, end, f", enabled: {word}")]
        indent = " " * key.start_mark.column
        return [after_line(text, end, f"{indent}enabled: {word}")]

    return _edit(path, name, change)


def _edit(path: str | Path, name: str, change: Change) -> Registry:
    """Change one expert under a lock, check the whole result, replace the file in one step."""
    path = Path(path)
    file = path.resolve()  # A link stays a link; what it points at is replaced.
    try:
        with FileLock(file.with_name(f".{file.name}.lock")):
            text = read_text(path)
            before = Registry.parse(text, path=path)
            edited = spliced(text, change(text, before))
            after = Registry.parse(edited, path=path)
            # Positions mislead where aliases stand in for whole experts.
            if _others(after, name) != _others(before, name):
                raise RegistryError(f"{path}: cannot be edited around its aliases; edit it by hand")
            if edited != text:
                _replace(file, edited)
    except OSError as error:
        raise RegistryError(f"{path}: cannot be edited: {error.strerror}") from error
    return after


def _others(registry: Registry, name: str) -> list[ExpertSpec]:
    return [spec for spec in registry.file.experts if spec.name != name]


def _replace(file: Path, text: str) -> None:
    partial = file.with_name(f".{file.name}.{os.getpid()}")
    has_mark = file.read_bytes().startswith(codecs.BOM_UTF8)
    try:
        with partial.open("wb") as out:
            out.write(text.encode("utf-8-sig" if has_mark else "utf-8"))
            out.flush()
            os.fsync(out.fileno())
        partial.chmod(file.stat().st_mode & 0o7777)
        partial.replace(file)
    finally:
        partial.unlink(missing_ok=True)


# -- what refers to an expert -----------------------------------------------------------------


def _uses(file: RegistryFile, name: str) -> Iterator[tuple[str | int, ...]]:
    """Yield where the file refers to an expert."""
    if file.encoder == name:
        yield ("encoder",)
    for i, store in enumerate(file.stores):
        if name in store.retrievers:
            yield ("stores", i, "retrievers", store.retrievers.index(name))
        if store.reranker == name:
            yield ("stores", i, "reranker")
    for i, composition in enumerate(file.compositions):
        if name in composition.experts:
            yield ("compositions", i, "experts", composition.experts.index(name))
        if composition.baseline == name:
            yield ("compositions", i, "baseline")


def _release(text: str, registry: Registry, name: str, *, force: bool) -> list[Splice]:
    """Take an expert out of everything that refers to it.

    Raises:
        RegistryError: it is needed and ``force`` is off, or a list would be left empty.
    """
    uses = list(_uses(registry.file, name))
    if uses and not force:
        raise RegistryError(
            f"{registry.path}: expert {name!r} is needed by {_listed(registry.file, uses)}; "
            "change that first, or drop it there too with --force"
        )
    splices = []
    for *parents, last in uses:
        node: Any = compose(text, str(registry.path))
        for step in parents:
            node = node.value[step] if isinstance(step, int) else value_of(node, step)
        if isinstance(last, str):
            splices.append(over(value_of(node, last), "null"))
        elif len(node.value) > 1:
            splices.append(without(text, node, last))
        else:
            raise RegistryError(
                f"{registry.path}: {_listed(registry.file, [(*parents, last)])} would be left "
                f"without experts; remove that first, or replace {name!r} there"
            )
    return splices


def _listed(file: RegistryFile, uses: list[tuple[str | int, ...]]) -> str:
    return ", ".join(
        f"{u[0]}.{getattr(file, str(u[0]))[u[1]].name}.{u[2]}" if len(u) > 1 else str(u[0])
        for u in uses
    )


def _retrievers(text: str, registry: Registry, store: str) -> Any:
    """Return the node of a store's retrievers.

    Raises:
        RegistryError: another store has the same list, by an alias.
    """
    names = [known.name for known in registry.file.stores]
    registry.store(store)
    nodes = value_of(compose(text, str(registry.path)), "stores").value
    lists = [value_of(node, "retrievers") for node in nodes]
    found = lists[names.index(store)]
    if sum(other.start_mark.index == found.start_mark.index for other in lists) > 1:
        raise RegistryError(
            f"{registry.path}: stores.{store}.retrievers: is an alias; edit it by hand"
        )
    return found


def _index(file: RegistryFile, name: str) -> int:
    names = [spec.name for spec in file.experts]
    if name not in names:
        raise unknown_name("expert", name, names)
    return names.index(name)
