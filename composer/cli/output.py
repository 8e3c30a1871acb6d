"""Options that several verbs share, and how they print."""

import json
import math
from pathlib import Path
from typing import Annotated, Any

import typer

__all__ = ["Json", "RegistryPath", "Workers", "pairs", "print_json", "say"]

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


def print_json(value: Any) -> None:
    """Print for machines; NaN, which JSON does not know, becomes null."""
    typer.echo(json.dumps(_plain(value), ensure_ascii=False, indent=2))


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


def pairs(texts: list[str] | None) -> dict[str, Any]:
    """Read KEY=VALUE arguments; a value is read as YAML."""
    import yaml

    values = {}
    for text in texts or []:
        key, sign, value = text.partition("=")
        if not sign:
            raise typer.BadParameter(f"{text!r} is not KEY=VALUE")
        try:
            values[key] = yaml.safe_load(value)
        except yaml.YAMLError:
            raise typer.BadParameter(f"{text!r}: {value!r} is not a YAML value") from None
    return values
