"""Where the parts of an expert file stand in its text, and what is put in their place.

A YAML reader reports positions; a splice replaces the text between two of them, so that comments,
quotes and spacing stay as their author left them.
"""

import json
from collections.abc import Mapping
from typing import Any

import yaml

from experts_registry.lines import CORE_SCALARS

__all__ = [
    "Splice",
    "after_line",
    "appended",
    "block",
    "content_end",
    "dash_of",
    "emptied",
    "line_start",
    "over",
    "spliced",
    "value_of",
    "without",
]

Splice = tuple[int, int, str]
"""From where to where, and what comes there instead."""


def spliced(text: str, splices: list[Splice]) -> str:
    """Return the text after all splices, with the line ends that it has."""
    newline = "\r\n" if "\r\n" in text else "\n"
    for start, end, new in sorted(splices, reverse=True):
        text = text[:start] + new.replace("\n", newline) + text[end:]
    return text


def value_of(mapping: Any, key: str) -> Any:
    """Return the node of a key, or None."""
    return next((v for k, v in mapping.value if k.value == key), None)


def over(node: yaml.Node, new: str) -> Splice:
    """Put text in the place of a node."""
    return node.start_mark.index, node.end_mark.index, new


def line_start(text: str, index: int) -> int:
    """Return where the line of a position begins."""
    return text.rfind("\n", 0, index) + 1


def _line_end(text: str, index: int) -> int:
    end = text.find("\n", index)
    return len(text) if end < 0 else end - (text[end - 1 : end] == "\r")


def after_line(text: str, index: int, new: str) -> Splice:
    """Put lines below the line of a position."""
    end = _line_end(text, index)
    return end, end, "\n" + new.rstrip("\n") + ("" if end < len(text) else "\n")


def dash_of(text: str, item: yaml.Node) -> int:
    """Return where the dash before an item of a list is."""
    return text.rindex("-", 0, item.start_mark.index)


def content_end(text: str, node: Any) -> int:
    """Return where the last word of a node ends; block nodes claim the comments after them."""
    if isinstance(node, yaml.ScalarNode) or node.flow_style:
        start, end = int(node.start_mark.index), int(node.end_mark.index)
        return start + len(text[start:end].rstrip())
    last = node.value[-1]
    ends = [content_end(text, child) for child in (last if isinstance(last, tuple) else [last])]
    return max(ends)


def without(text: str, items: Any, index: int) -> Splice:
    """Cut one of several items out of a list."""
    item = items.value[index]
    if not items.flow_style:
        start = line_start(text, dash_of(text, item))
        end = text.find("\n", content_end(text, item)) + 1
        return start, end or len(text), ""
    if index:
        return items.value[index - 1].end_mark.index, item.end_mark.index, ""
    return item.start_mark.index, items.value[1].start_mark.index, ""


def appended(text: str, items: Any, name: str) -> Splice:
    """Add a name to a list that is not empty."""
    last = items.value[-1]
    plain = yaml.dump([name], Dumper=_Dumper, default_flow_style=True, width=10_000).strip()[1:-1]
    if items.flow_style:
        return last.end_mark.index, last.end_mark.index, f", {plain}"
    dash = dash_of(text, last)
    indent = " " * (dash - line_start(text, dash))
    return after_line(text, content_end(text, last), f"{indent}- {plain}")


def emptied(text: str, root: yaml.MappingNode, experts: Any) -> Splice:
    """Put ``[]`` in place of the experts."""
    if experts.flow_style:
        return over(experts, "[]")
    key = next(k for k, _ in root.value if k.value == "experts")
    return text.index(":", key.end_mark.index) + 1, content_end(text, experts), " []"


class _Dumper(yaml.SafeDumper):
    """Quotes text that YAML 1.1 or our reader would take for something else."""


for _tag, _pattern, _first in CORE_SCALARS:
    _Dumper.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", _pattern, _first)


_BREAKS = frozenset("\x85\u2028\u2029")


def block(spec: Mapping[str, Any], column: int) -> str:
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
