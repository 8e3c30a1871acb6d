"""Verbs on the expert file: list, add, remove, enable, disable."""

from pathlib import Path
from typing import Annotated, Any

import typer

from composer.cli.output import Json, RegistryPath, pairs, print_json, say

__all__ = ["app"]

app = typer.Typer(
    help="List and edit the experts of a file; comments and layout are kept.", no_args_is_help=True
)
Name = Annotated[str, typer.Argument(help="The expert's name.")]
FILE = Path("experts.yaml")


@app.command("list")
def list_(registry: RegistryPath = FILE, json: Json = False) -> None:
    """Show every expert, disabled ones too."""
    from experts_registry.registry import Registry

    file = Registry.load(registry)
    rows = [expert.model_dump(mode="json") for expert in file.file.experts]
    if json:
        print_json(rows)
        return
    header = ("name", "kind", "backend", "params", "USD/M in, out", "domains", "model")
    cells = [
        (
            row["name"] + ("" if row["enabled"] else " (disabled)"),
            row["kind"],
            row["backend"],
            _count(row["active_params"]),
            f"{row['price']['prompt']:g}, {row['price']['completion']:g}",
            " ".join(row["domains"]) or "-",
            row["model"] if isinstance(row["model"], str) else f"{row['model'][0]} ...",
        )
        for row in rows
    ]
    widths = [max(len(str(line[i])) for line in [header, *cells]) for i in range(len(header))]
    for line in [header, *cells]:
        say(
            "  ".join(f"{cell:<{width}}" for cell, width in zip(line, widths, strict=True)).rstrip()
        )


@app.command()
def add(
    name: Name,
    model: Annotated[
        list[str],
        typer.Option(help="Hub name, path:..., package:...; several are parts joined in order."),
    ],
    backend: Annotated[str, typer.Option(help="What runs it.")] = "transformers",
    kind: Annotated[str, typer.Option(help="llm, retriever or reranker.")] = "llm",
    domain: Annotated[list[str] | None, typer.Option(help="What it is for; repeatable.")] = None,
    params: Annotated[float | None, typer.Option(help="Active parameters, e.g. 0.5e9.")] = None,
    price: Annotated[
        str | None, typer.Option(help="USD per million tokens: PROMPT,COMPLETION.")
    ] = None,
    sha256: Annotated[str | None, typer.Option(help="Digest of the model file.")] = None,
    option: Annotated[
        list[str] | None, typer.Option(help="Backend option KEY=VALUE (YAML value); repeatable.")
    ] = None,
    registry: RegistryPath = FILE,
    json: Json = False,
) -> None:
    """Add an expert; the file is checked before it is replaced."""
    from experts_registry.edit import add_expert

    spec: dict[str, Any] = {"name": name, "kind": kind, "backend": backend}
    spec["model"] = model[0] if len(model) == 1 else model
    extra = {
        "sha256": sha256,
        "domains": domain or None,
        "active_params": params,
        "price": _price(price),
        "options": pairs(option),
        # A remote expert needs no worker of its own.
        "resources": {"cpus": 0} if backend == "openai" else None,
    }
    spec.update({key: value for key, value in extra.items() if value})
    add_expert(registry, spec)
    _done(registry, f"added {name}", json)


@app.command()
def remove(
    name: Name,
    force: Annotated[
        bool, typer.Option("--force", help="Also take it out of compositions that name it.")
    ] = False,
    registry: RegistryPath = FILE,
    json: Json = False,
) -> None:
    """Remove an expert."""
    from experts_registry.edit import remove_expert

    remove_expert(registry, name, force=force)
    _done(registry, f"removed {name}", json)


@app.command()
def enable(name: Name, registry: RegistryPath = FILE, json: Json = False) -> None:
    """Enable a disabled expert."""
    _set(registry, name, True, json)


@app.command()
def disable(name: Name, registry: RegistryPath = FILE, json: Json = False) -> None:
    """Keep an expert in the file without asking it."""
    _set(registry, name, False, json)


def _set(registry: Path, name: str, enabled: bool, json: bool) -> None:
    from experts_registry.edit import set_enabled

    set_enabled(registry, name, enabled)
    _done(registry, f"{'enabled' if enabled else 'disabled'} {name}", json)


def _done(registry: Path, what: str, json: bool) -> None:
    from experts_registry.registry import Registry

    digest = Registry.load(registry).digest
    if json:
        print_json({"done": what, "registry": str(registry), "digest": digest})
    else:
        say(f"{what}; {registry} is now {digest[:12]}")


def _price(text: str | None) -> dict[str, float] | None:
    if text is None:
        return None
    try:
        prompt, completion = map(float, text.split(","))
    except ValueError:
        raise typer.BadParameter(f"{text!r} is not PROMPT,COMPLETION, for example 2.5,10") from None
    return {"prompt": prompt, "completion": completion}


def _count(params: float | None) -> str:
    if params is None:
        return "-"
    return f"{params / 1e9:.2f}B" if params >= 1e8 else f"{params / 1e6:.0f}M"
