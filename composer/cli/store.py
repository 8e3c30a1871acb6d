"""Verbs on stores: build, add, remove, info."""

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from composer.cli.output import Json, RegistryPath, print_json, say

if TYPE_CHECKING:
    from composer.stores.building import Built
    from composer.stores.gathering import Change
    from composer.stores.standing import StoreStanding

__all__ = ["app"]

app = typer.Typer(
    help="Build the stores of passages that retrievers search, and see how they stand.",
    no_args_is_help=True,
)
FILE = Path("experts.yaml")
Name = Annotated[str, typer.Argument(help="The store's name in the expert file.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Show no progress.")]
OnWorkers = Annotated[
    bool,
    typer.Option(
        "--workers/--local",
        help="Embed on Ray workers, as many as a retriever has resources.replicas, or here.",
    ),
]
Replace = Annotated[
    bool, typer.Option("--replace", help="Where two texts have one id, the later wins.")
]
SkipBad = Annotated[
    bool, typer.Option("--skip-bad", help="Leave out files that cannot be read, and tell which.")
]


@app.command()
def build(
    name: Name,
    registry: RegistryPath = FILE,
    workers: OnWorkers = False,
    replace: Replace = False,
    skip_bad: SkipBad = False,
    fresh: Annotated[
        bool, typer.Option("--fresh", help="Forget what was added and removed by hand.")
    ] = False,
    quiet: Quiet = False,
    json: Json = False,
) -> None:
    """Read the passages of a store, embed those that are new, index them.

    After a kill the same command goes on where it stopped; what was built
    before is served until the new one is whole. A text that was embedded
    once is not embedded again, so run it after every edit of the source.
    """
    from composer.stores.gathering import Change

    change = Change(replace=replace, skip_bad=skip_bad, fresh=fresh)
    _build(registry, name, change, workers=workers, quiet=quiet, json=json)


@app.command()
def add(
    name: Name,
    files: Annotated[
        list[Path], typer.Argument(help="JSONL, text, Markdown or PDF files, or folders of them.")
    ],
    registry: RegistryPath = FILE,
    workers: OnWorkers = False,
    replace: Replace = False,
    skip_bad: SkipBad = False,
    quiet: Quiet = False,
    json: Json = False,
) -> None:
    """Add documents that are not in the store's source; every later build keeps them.

    Their texts are copied: the files may go. Only new texts are embedded.
    """
    from composer.stores.gathering import Change

    change = Change(add=files, replace=replace, skip_bad=skip_bad)
    _build(registry, name, change, workers=workers, quiet=quiet, json=json)


@app.command()
def remove(
    name: Name,
    ids: Annotated[list[str], typer.Argument(help="Ids of documents, or of passages.")],
    registry: RegistryPath = FILE,
    quiet: Quiet = False,
    json: Json = False,
) -> None:
    """Remove documents or passages; they stay removed until they are added again.

    The source is not changed. 'store build --fresh' forgets what was removed.
    """
    from composer.stores.gathering import Change

    _build(registry, name, Change(remove=ids), workers=False, quiet=quiet, json=json)


@app.command()
def info(name: Name, registry: RegistryPath = FILE, json: Json = False) -> None:
    """Tell what a store holds, whether it is whole, and what changed since it was built."""
    from composer.opened import Opened
    from composer.stores.standing import standing
    from experts_registry.registry import Registry

    file = Registry.load(registry)
    opened = Opened(file)
    try:
        found = standing(file, name, opened.embedder)
    finally:
        opened.close()
    if json:
        print_json(_values(found))
    else:
        say("\n".join(_lines(found)))
    raise typer.Exit(1 if found.error else 0)


def _build(
    registry: Path, name: str, change: "Change", *, workers: bool, quiet: bool, json: bool
) -> None:
    from composer.progress import steps
    from composer.stores.of_registry import build_store
    from experts_registry.registry import Registry

    shown = partial(steps, quiet=quiet or json)
    built = build_store(Registry.load(registry), name, change, workers=workers, steps=shown)
    if json:
        print_json(_summary(built))
    else:
        say(_told(built))
        for why in built.bad:
            typer.echo(f"left out: {why}", err=True)


def _summary(built: "Built") -> dict[str, Any]:
    manifest = built.manifest
    return {
        "store": manifest.name,
        "digest": manifest.content,
        "changed": built.is_new,
        "documents": manifest.documents,
        "passages": manifest.passages,
        "embedded": dict(built.embedded),
        "indexes": [index.model_dump(mode="json") for index in manifest.indexes],
        "skipped": manifest.skipped,
        "bad": list(built.bad),
        "seconds": built.seconds,
    }


def _told(built: "Built") -> str:
    manifest = built.manifest
    embedded = ", ".join(f"{count} by {name}" for name, count in built.embedded.items())
    lines = [
        f"store {manifest.name}: {manifest.passages} passages of {manifest.documents} documents, "
        + (f"embedded {embedded}" if built.is_new else "nothing has changed")
        + f" ({built.seconds:.1f} s)"
    ]
    lines += [f"left out: {count} {what}" for what, count in manifest.skipped.items()]
    return "\n".join(lines)


def _lines(found: "StoreStanding") -> list[str]:
    if (manifest := found.manifest) is None:
        return [found.error or ""]
    edits = manifest.edits
    rows = [
        ("passages", f"{manifest.passages} of {manifest.documents} documents"),
        *(
            (
                "index",
                f"{index.type} {index.dimensions}-d, of {', '.join(index.retrievers)} "
                f"({_size(manifest.files[index.file].bytes)}, {index.embedder[:12]})",
            )
            for index in manifest.indexes
        ),
        ("words", "bm25" if manifest.making.lexical else "-"),
        ("edits", f"{edits.added} documents added, {len(edits.removed)} ids removed"),
        ("left out", ", ".join(f"{n} {what}" for what, n in manifest.skipped.items()) or "-"),
        ("built", manifest.made),
        ("digest", manifest.content[:12]),
        ("on disk", f"{_size(found.bytes)}, and {_size(found.kept_bytes)} of kept vectors"),
        ("folder", str(found.folder)),
    ]
    stands = [f"stale: {change}" for change in found.changes]
    if found.error is not None and not stands:
        again = [found.error]
    else:
        again = [f"run 'expert-composer store build {found.name}'"] if stands else ["current"]
    return [f"store {found.name}", *(f"  {key:<9} {value}" for key, value in rows), *stands, *again]


def _values(found: "StoreStanding") -> dict[str, Any]:
    manifest = found.manifest
    about = {} if manifest is None else manifest.model_dump(mode="json", exclude={"name"})
    return {
        "store": found.name,
        "folder": found.folder,
        "current": found.is_current,
        "error": found.error,
        "changes": list(found.changes),
        "digest": None if manifest is None else manifest.content,
        "bytes": found.bytes,
        "kept_bytes": found.kept_bytes,
        **about,
    }


def _size(count: float) -> str:
    for unit in ("B", "KiB", "MiB"):
        if count < 1024:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.1f} GiB"
