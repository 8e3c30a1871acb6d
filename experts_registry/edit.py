"""Change the expert file from a program: only the bytes that must change do.

An edit splices the text at the positions the YAML reader reports, so comments, quotes and
spacing stay as their author left them. The result is checked as a whole before it replaces the
file in one step; a refused edit changes nothing.
"""

import codecs
import json
import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml
from filelock import FileLock

from experts_registry.errors import RegistryError, unknown_name
from experts_registry.lines import CORE_SCALARS, compose, read_text
from experts_registry.registry import Registry
from experts_registry.schema import ExpertSpec, RegistryFile

__all__ = ["add_expert", "remove_expert", "set_enabled"]

Splice = tuple[int, int, str]
"""From where to where, and what comes there instead."""

Change = Callable[[str, Registry], list[Splice]]


def add_expert(path: str | Path, spec: Mapping[str, Any]) -> Registry:
    """Append an expert, given as the keys and values it has in the file.

    Raises:
        RegistryError: the file would no longer be valid; it is unchanged.
    """

    def change(text: str, registry: Registry) -> list[Splice]:
        root = compose(text, str(path))
        experts = _value(root, "experts")
        if experts is None:
            if root.flow_style:
                raise RegistryError(f"{path}: has no experts; write 'experts: []' in it first")
            return [_after_line(text, len(text.rstrip()), "experts:\n" + _block(spec, 2))]
        if experts.value and experts.flow_style:
            end = experts.value[-1].end_mark.index
            return [(end, end, ", " + json.dumps(dict(spec), ensure_ascii=False))]
        if experts.flow_style and root.flow_style:
            return [_over(experts, json.dumps([dict(spec)], ensure_ascii=False))]
        if experts.flow_style:
            return [_over(experts, "\n" + _block(spec, 2))]
        first, last = experts.value[0], experts.value[-1]
        dash = _dash(text, first)
        block = _block(spec, dash - _line_start(text, dash))
        return [_after_line(text, _content_end(text, last), block)]

    return _edit(path, str(spec.get("name")), change)


def remove_expert(path: str | Path, name: str, *, force: bool = False) -> Registry:
    """Take an expert out; ``force`` also drops it wherever the file refers to it.

    Raises:
        RegistryError: there is none of that name, or something needs it; the file is unchanged.
    """

    def change(text: str, registry: Registry) -> list[Splice]:
        index = _index(registry.file, name)
        root = compose(text, str(path))
        experts = _value(root, "experts")
        splices = _release(text, registry, name, force=force)
        if len(experts.value) == 1:
            return [*splices, _emptied(text, root, experts)]
        return [*splices, _without(text, experts, index)]

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
        expert = _value(compose(text, str(path)), "experts").value[index]
        word = "true" if enabled else "false"
        if (value := _value(expert, "enabled")) is not None:
            return [_over(value, word)]
        key, value = next(pair for pair in expert.value if pair[0].value == "name")
        end = value.end_mark.index
        if expert.flow_style:
            return [(end, end, f", enabled: {word}")]
        indent = " " * key.start_mark.column
        return [_after_line(text, end, f"{indent}enabled: {word}")]

    return _edit(path, name, change)


def _edit(path: str | Path, name: str, change: Change) -> Registry:
    """Change one expert under a lock, check the whole result, replace the file in one step."""
    path = Path(path)
    file = path.resolve()  # A link stays a link; what it points at is replaced.
    try:
        with FileLock(file.with_name(f".{file.name}.lock")):
            text = read_text(path)
            before = Registry.parse(text, path=path)
            edited = _spliced(text, change(text, before))
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


def _spliced(text: str, splices: list[Splice]) -> str:
    newline = "\r\n" if "\r\n" in text else "\n"
    for start, end, new in sorted(splices, reverse=True):
        text = text[:start] + new.replace("\n", newline) + text[end:]
    return text


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
            node = node.value[step] if isinstance(step, int) else _value(node, step)
        if isinstance(last, str):
            splices.append(_over(_value(node, last), "null"))
        elif len(node.value) > 1:
            splices.append(_without(text, node, last))
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


def _index(file: RegistryFile, name: str) -> int:
    names = [spec.name for spec in file.experts]
    if name not in names:
        raise unknown_name("expert", name, names)
    return names.index(name)


# -- positions in the text --------------------------------------------------------------------


def _value(mapping: Any, key: str) -> Any:
    """Return the node of a key, or None."""
    return next((v for k, v in mapping.value if k.value == key), None)


def _over(node: yaml.Node, new: str) -> Splice:
    return node.start_mark.index, node.end_mark.index, new


def _line_start(text: str, index: int) -> int:
    return text.rfind("\n", 0, index) + 1


def _line_end(text: str, index: int) -> int:
    end = text.find("\n", index)
    return len(text) if end < 0 else end - (text[end - 1 : end] == "\r")


def _after_line(text: str, index: int, new: str) -> Splice:
    end = _line_end(text, index)
    return end, end, "\n" + new.rstrip("\n") + ("" if end < len(text) else "\n")


def _dash(text: str, item: yaml.Node) -> int:
    return text.rindex("-", 0, item.start_mark.index)


def _content_end(text: str, node: Any) -> int:
    """Return where the last word of a node ends; block nodes claim the comments after them."""
    if isinstance(node, yaml.ScalarNode) or node.flow_style:
        start, end = int(node.start_mark.index), int(node.end_mark.index)
        return start + len(text[start:end].rstrip())
    last = node.value[-1]
    ends = [_content_end(text, child) for child in (last if isinstance(last, tuple) else [last])]
    return max(ends)


def _without(text: str, items: Any, index: int) -> Splice:
    """Cut one of several items out of a list."""
    item = items.value[index]
    if not items.flow_style:
        start = _line_start(text, _dash(text, item))
        end = text.find("\n", _content_end(text, item)) + 1
        return start, end or len(text), ""
    if index:
        return items.value[index - 1].end_mark.index, item.end_mark.index, ""
    return item.start_mark.index, items.value[1].start_mark.index, ""


def _emptied(text: str, root: yaml.MappingNode, experts: Any) -> Splice:
    """Put ``[]`` in place of the experts."""
    if experts.flow_style:
        return _over(experts, "[]")
    key = next(k for k, _ in root.value if k.value == "experts")
    return text.index(":", key.end_mark.index) + 1, _content_end(text, experts), " []"


class _Dumper(yaml.SafeDumper):
    """Quotes text that YAML 1.1 or our reader would take for something else."""


for _tag, _pattern, _first in CORE_SCALARS:
    _Dumper.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", _pattern, _first)


_BREAKS = frozenset("\x85\u2028\u2029")


def _block(spec: Mapping[str, Any], column: int) -> str:
    """Write an expert as a list item whose short lists and mappings stay on their line."""
    plain = json.loads(json.dumps(dict(spec)))
    rows = "".join(
        yaml.dump(
            {key: value},
            Dumper=_Dumper,
            default_flow_style=None if isinstance(value, list | dict) else False,
            # Escaped where it holds a character that YAML would fold as a line break.
            allow_unicode=not _BREAKS & set(json.dumps(value, ensure_ascii=False)),
            sort_keys=False,
            width=10_000,
        )
        for key, value in plain.items()
    ).rstrip("\n")
    indent = " " * column
    return "\n".join(
        f"{indent}{'  ' if i else '- '}{row}" for i, row in enumerate(rows.split("\n"))
    )
