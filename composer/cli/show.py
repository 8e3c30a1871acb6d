"""Verbs that show or start: init, validate, schema, version, doctor."""

from pathlib import Path
from typing import Annotated

import typer

from composer.cli.output import Json, RegistryPath, print_json, say

__all__ = ["doctor", "init", "schema", "validate", "version"]

_MARKS = {"ok": "✓", "note": "!", "error": "✗"}


def init(
    folder: Annotated[Path, typer.Argument(help="Where to write.")] = Path(),
    force: Annotated[bool, typer.Option("--force", help="Replace existing files.")] = False,
    json: Json = False,
) -> None:
    """Write a commented starter registry and query file that work without a download."""
    from composer.starter import write_starter

    written = write_starter(folder, force=force)
    if json:
        print_json({"written": written})
        return
    for path in written:
        say(f"wrote {path}")
    where = "" if folder == Path() else f"cd {folder} && "
    say(f"next: {where}expert-composer collect && expert-composer train")


def validate(
    registry: Annotated[
        Path, typer.Argument(help="The expert file.", envvar="EXPERT_COMPOSER_REGISTRY")
    ] = Path("experts.yaml"),
    models: Annotated[
        bool, typer.Option("--models", help="Also look for every model and check its digest.")
    ] = False,
    json: Json = False,
) -> None:
    """Check an expert file; --models also checks that every model can be found."""
    from composer.checks import check_registry
    from experts_registry.registry import Registry

    file = Registry.load(registry)
    findings = check_registry(file, models=models)
    errors = [f for f in findings if f.level == "error"]
    if json:
        print_json(
            {
                "valid": not errors,
                "digest": file.digest,
                "experts": list(file.experts),
                "compositions": list(file.compositions),
                "findings": [vars(f) for f in findings],
            }
        )
    else:
        for finding in findings:
            typer.secho(f"{finding.level}: {finding.text}", err=True)
        say(
            f"{registry}: {len(file.experts)} experts, {len(file.compositions)} compositions, "
            f"digest {file.digest[:12]}" + ("" if errors else ": valid")
        )
    raise typer.Exit(1 if errors else 0)


def schema(json: Json = True) -> None:
    """Print the JSON Schema of the expert file, for editors; it is JSON with or without --json."""
    from experts_registry.registry import registry_schema

    print_json(registry_schema())


def version(json: Json = False) -> None:
    """Print the versions of this program and of what it runs on."""
    from composer.checks import versions

    found = versions()
    if json:
        print_json(found)
    else:
        say("\n".join(f"{name} {number or '(not installed)'}" for name, number in found.items()))


def doctor(
    registry: RegistryPath = Path("experts.yaml"),
    json: Json = False,
) -> None:
    """Look at this machine and say what would not work, and what to do about it."""
    from composer.checks import examine

    findings = examine(registry)
    if json:
        print_json([vars(f) for f in findings])
    else:
        for finding in findings:
            typer.secho(f"{_MARKS[finding.level]} {finding.text}")
    raise typer.Exit(1 if any(f.level == "error" for f in findings) else 0)
