"""Read YAML into plain values, and remember the line of every key.

Scalars follow the YAML 1.2 core schema, as editors do: ``no`` and ``12:30`` are text, ``1e-3`` is
a number. Whatever a hand-written file has no use for is refused: duplicate keys, keys that are
not text, tags, and documents that are huge, deeply nested or blown up by aliases.
"""

import hashlib
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import yaml

from experts_registry.errors import RegistryError

__all__ = [
    "CORE_SCALARS",
    "Document",
    "KeyPath",
    "compose",
    "parse_yaml",
    "read_text",
    "text_digest",
]

KeyPath = tuple[str | int, ...]

MAX_BYTES = 10_000_000
MAX_DEPTH = 32
MAX_VALUES = 200_000

_Fast: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


CORE_SCALARS = (
    ("null", re.compile(r"^(?:~|null|Null|NULL|)$"), ["~", "n", "N", ""]),
    ("bool", re.compile(r"^(?:true|True|TRUE|false|False|FALSE)$"), list("tTfF")),
    ("int", re.compile(r"^(?:[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+)$"), list("-+0123456789")),
    (
        "float",
        re.compile(
            r"^(?:[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?"
            r"|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN))$"
        ),
        list("-+.0123456789"),
    ),
    ("merge", re.compile(r"^<<$"), ["<"]),
)
"""What is not text: tag, pattern, possible first characters (YAML 1.2.2, section 10.3.2)."""


class _Loader(_Fast):  # type: ignore[misc]
    """A safe loader with the scalars of YAML 1.2; PyYAML's own are those of 1.1."""

    yaml_implicit_resolvers: Mapping[str, Any] = {}


for _tag, _pattern, _first in CORE_SCALARS:
    _Loader.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", _pattern, _first)

_CONVERT: Mapping[str, Callable[[str], Any]] = {
    "str": str,
    "null": lambda text: None,
    "bool": lambda text: text.lower() == "true",
    "int": lambda text: int(text, 0 if text[:2] in ("0o", "0x") else 10),
    "float": lambda text: float(re.sub(r"\.(?=[in])", "", text.lower())),
}


@dataclass(frozen=True)
class Document:
    """The values of a file, and the line on which each key or list item begins."""

    data: dict[str, Any]
    lines: Mapping[KeyPath, int]

    def line(self, path: KeyPath) -> int:
        """Return the line of a key, or that of the nearest thing around it."""
        while path not in self.lines:
            path = path[:-1]
        return self.lines[path]


def read_text(path: Path) -> str:
    """Read a text file of reasonable size.

    Raises:
        RegistryError: it is missing, unreadable, too large or not UTF-8.
    """
    try:
        with path.open("rb") as file:
            content = file.read(MAX_BYTES + 1)
    except FileNotFoundError as error:
        raise RegistryError(
            f"{path}: does not exist; make one with 'expert-composer init'"
        ) from error
    except OSError as error:
        raise RegistryError(f"{path}: cannot be read: {error.strerror}") from error
    if len(content) > MAX_BYTES:
        raise RegistryError(
            f"{path}: is larger than {MAX_BYTES // 1_000_000} MB; an expert file is far smaller"
        )
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise RegistryError(f"{path}:{line}: is not UTF-8; save it as UTF-8") from error


def text_digest(text: str) -> str:
    """Identify a text: sha256 of its UTF-8."""
    return hashlib.sha256(text.encode()).hexdigest()


def parse_yaml(text: str, name: str) -> Document:
    """Read a mapping from YAML; ``name`` is what errors call the file.

    Raises:
        RegistryError: the text is not YAML, or YAML that is refused; names file and line.
    """
    root = compose(text, name)
    reader = _Reader(name)
    data = reader.value(root, (), 0)
    if reader.problems:
        raise RegistryError("\n".join(reader.problems))
    return Document(data, reader.lines)


def compose(text: str, name: str) -> yaml.MappingNode:
    """Read the node tree of a YAML text whose root is a mapping."""
    try:
        _check_depth(text, name)
        root = yaml.compose(text, Loader=_Loader)
    except (yaml.YAMLError, UnicodeEncodeError) as error:
        raise RegistryError(f"{name}:{_problem(error, text)}") from error
    if root is None:
        raise RegistryError(f"{name}:1: is empty; start with 'version: 1' and 'experts:'")
    if not isinstance(root, yaml.MappingNode):
        raise RegistryError(f"{name}:{_line(root)}: is not a mapping; start with 'version: 1'")
    return root


def _check_depth(text: str, name: str) -> None:
    """Refuse deep nesting before the composer recurses: the C one would crash the process."""
    depth = 0
    for event in yaml.parse(text, Loader=_Loader):
        depth += isinstance(event, yaml.CollectionStartEvent)
        depth -= isinstance(event, yaml.CollectionEndEvent)
        if depth > MAX_DEPTH:
            raise RegistryError(
                f"{name}:{_line(event)}: is nested more than {MAX_DEPTH} levels deep"
            )


def _problem(error: Exception, text: str) -> str:
    """Return ``line: what is wrong`` without quoting the file, which may hold a secret."""
    if isinstance(error, yaml.MarkedYAMLError) and error.problem_mark:
        line, what = error.problem_mark.line, error.problem or error.context or "is not YAML"
        if "\t" in what or "cannot start any token" in what:
            row = text.splitlines()[line : line + 1]
            if row and "\t" in row[0]:
                what = "a tab cannot indent YAML; use spaces"
        return f"{line + 1}: is not YAML: {what}"
    position = getattr(error, "position", getattr(error, "start", 0))
    return f"{text.count(chr(10), 0, position) + 1}: holds a character that YAML does not allow"


def _line(of: Any) -> int:
    """Return the line on which a node or event begins."""
    return int(of.start_mark.line) + 1


class _Reader:
    """Turns nodes into values; collects the problems that need not stop it."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.lines: dict[KeyPath, int] = {(): 1}
        self.problems: list[str] = []
        self._count = 0

    def value(self, node: yaml.Node, path: KeyPath, depth: int) -> Any:
        self._count += 1
        # Aliases make small files large: they are expanded here, so both bounds are on the result.
        if self._count > MAX_VALUES or depth > MAX_DEPTH:
            raise RegistryError(f"{self.name}:{_line(node)}: its aliases expand without end")
        if isinstance(node, yaml.MappingNode):
            return self._mapping(node, path, depth)
        if isinstance(node, yaml.SequenceNode):
            self._expect_tag(node, "seq")
            return [self._item(child, (*path, i), depth) for i, child in enumerate(node.value)]
        return self._scalar(node)

    def _item(self, node: yaml.Node, path: KeyPath, depth: int) -> Any:
        self.lines[path] = _line(node)
        return self.value(node, path, depth + 1)

    def _mapping(self, node: yaml.MappingNode, path: KeyPath, depth: int) -> dict[str, Any]:
        self._expect_tag(node, "map")
        result: dict[str, Any] = {}
        own: set[str] = set()
        merged = chain.from_iterable(self._merged(v) for k, v in node.value if _is_merge(k))
        for key_node, child, is_own in chain(
            ((k, v, False) for k, v in merged),
            ((k, v, True) for k, v in node.value if not _is_merge(k)),
        ):
            key = self._key(key_node)
            where = (*path, key)
            if is_own and key in own:
                self._report(
                    key_node,
                    f"{_dotted(where)}: duplicate key, first on line {self.lines[where]}; keep one",
                )
                continue
            if not is_own and key in result:
                continue  # Of several merged mappings the first one wins.
            own.update([key] if is_own else [])
            self.lines[where] = _line(key_node)
            result[key] = self.value(child, where, depth + 1)
        return result

    def _merged(self, node: yaml.Node, depth: int = 0) -> Iterator[tuple[yaml.Node, yaml.Node]]:
        """Yield the pairs that ``<<`` brings in, the ones that win first."""
        sources = node.value if isinstance(node, yaml.SequenceNode) else [node]
        for source in sources:
            if not isinstance(source, yaml.MappingNode) or depth > MAX_DEPTH:
                raise RegistryError(
                    f"{self.name}:{_line(source)}: '<<' merges other mappings; give it '*an_anchor'"
                )
            yield from (pair for pair in source.value if not _is_merge(pair[0]))
            for key, value in source.value:
                if _is_merge(key):
                    yield from self._merged(value, depth + 1)

    def _key(self, node: yaml.Node) -> str:
        if isinstance(node, yaml.ScalarNode):
            value = self._scalar(node)
            if isinstance(value, str):
                return value
            self._report(node, f"key {node.value!r} is not text; quote it")
            return str(node.value)
        raise RegistryError(f"{self.name}:{_line(node)}: a key must be text, not a list or mapping")

    def _scalar(self, node: yaml.Node) -> Any:
        convert = _CONVERT.get(_short(node.tag))
        try:
            if convert is not None:
                return convert(node.value)
        except ValueError:
            self._report(node, f"is not a valid {_short(node.tag)}; quote it to make it text")
            return None
        self._report(node, f"tag {node.tag!r} is not allowed; write plain values")
        return None

    def _expect_tag(self, node: yaml.Node, tag: str) -> None:
        if _short(node.tag) != tag:
            self._report(node, f"tag {node.tag!r} is not allowed; write plain values")

    def _report(self, node: yaml.Node, what: str) -> None:
        self.problems.append(f"{self.name}:{_line(node)}: {what}")


def _is_merge(node: yaml.Node) -> bool:
    return bool(_short(node.tag) == "merge")


def _short(tag: str) -> str:
    return tag.removeprefix("tag:yaml.org,2002:")


def _dotted(path: KeyPath) -> str:
    return ".".join(map(str, path))
