"""Options that several verbs share, and how they print."""

import json
import math
from pathlib import Path
from typing import Annotated, Any

import typer

__all__ = [
    "Json",
    "RegistryPath",
    "Workers",
    "error_json",
    "pairs",
    "print_json",
    "read_query",
    "say",
]

RegistryPath = Annotated[
    Path,
    typer.Option("--registry", "-r", help="The expert file.", envvar="EXPERT_COMPOSER_REGISTRY"),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON for machines.")]
Workers = Annotated[
    bool, typer.Option("--workers/--local", help="Run experts on Ray workers, or in this process.")
]


def say(text: str = "") -> None:
    """Print for people."""
    typer.echo(text)


def print_json(value: Any, *, is_line: bool = False) -> None:
    """Print for machines; NaN, which JSON does not know, becomes null."""
    typer.echo(json.dumps(_plain(value), ensure_ascii=False, indent=None if is_line else 2))


def error_json(error: Exception) -> dict[str, Any]:
    """Return an error as JSON values."""
    return {"error": {"type": type(error).__name__, "message": str(error)}}


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(v) for v in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, Path):
        return str(value)
    return value


def read_query(query: str) -> str:
    """Return a query that was given as an argument; ``-`` stands for standard input."""
    if query != "-":
        return query
    return typer.get_binary_stream("stdin").read().decode("utf-8", "replace")


def pairs(texts: list[str] | None) -> dict[str, Any]:
    """Read KEY=VALUE arguments; a value is read as in the expert file."""
    from experts_registry.lines import parse_yaml

    values = {}
    for text in texts or []:
        key, sign, value = text.partition("=")
        if not sign or not key:
            raise typer.BadParameter(f"{text!r} is not KEY=VALUE")
        values[key] = parse_yaml(f"value: {value}\n", text).data["value"]
    return values
