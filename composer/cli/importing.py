"""The verb that reads another gateway's file."""

from pathlib import Path
from typing import Annotated

import typer

from composer.cli.output import Json, print_json, say

__all__ = ["import_litellm"]


def import_litellm(
    file: Annotated[Path, typer.Argument(help="LiteLLM's configuration, often config.yaml.")],
    out: Annotated[Path, typer.Option(help="The expert file to write.")] = Path("experts.yaml"),
    force: Annotated[bool, typer.Option("--force", help="Replace an existing file.")] = False,
    json: Json = False,
) -> None:
    """Convert a LiteLLM model list to an expert file.

    Several deployments of one model_name become experts NAME-1, NAME-2 ... and
    a composition NAME over them. No key is copied: an expert names the
    environment variable that holds it. What has no counterpart is listed with
    its line.

    Example: expert-composer import-litellm config.yaml --out experts.yaml
    """
    from composer.litellm.convert import import_litellm as convert
    from composer.litellm.convert import write_imported

    imported = convert(file, out)
    write_imported(imported, out, force=force)
    found = imported.registry
    if json:
        print_json(
            {
                "written": out,
                "experts": list(found.experts),
                "compositions": list(found.compositions),
                "left": [vars(one) for one in imported.left],
            }
        )
        return
    say(f"wrote {out}: {len(found.experts)} experts, {len(found.compositions)} compositions")
    if imported.left:
        say("not converted:")
    for one in imported.left:
        say(f"  {file}:{one.line}: {one.key}: {one.why}")
    say(f"next: expert-composer validate {out}")
