"""Verbs on retrieval gates: train, evaluate."""

import os
import shlex
import sys
from pathlib import Path
from typing import Annotated

import typer

from composer.cli.output import Json, RegistryPath, print_json, say

__all__ = ["app"]

app = typer.Typer(
    help="Learn when passages help an expert, and judge what was learned.", no_args_is_help=True
)
Outcomes = Annotated[
    Path,
    typer.Argument(help="Outcomes of 'collect --with-and-without': a file, or a folder of such."),
]
FILE = Path("experts.yaml")


@app.command()
def train(
    outcomes: Outcomes = Path("outcomes.parquet"),
    out: Annotated[
        Path | None, typer.Option(help="Folder to save to (routers/gate beside the registry).")
    ] = None,
    registry: RegistryPath = FILE,
    price: Annotated[
        float, typer.Option(help="Quality that a retrieval must be expected to add.", min=0)
    ] = 0.02,
    per_usd: Annotated[
        float, typer.Option(help="Quality that a dollar of passages must add, beside it.", min=0)
    ] = 0.0,
    usd_per_second: Annotated[
        float, typer.Option(help="Dollars that waiting a second is worth.", min=0)
    ] = 0.0,
    test: Annotated[
        float, typer.Option(help="Share of queries held out.", min=0.05, max=0.9)
    ] = 0.2,
    seed: Annotated[int, typer.Option(help="Seed of the split.", min=0)] = 0,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Show no progress.")] = False,
    json: Json = False,
) -> None:
    """Learn from outcomes with and without passages when an expert is better off with them.

    Two chances are learned for each expert, of a right answer without
    passages and with them; a query is retrieved for where their difference
    is above the price. Where the experts told log-probabilities, a short
    draft settles queries that are on the edge, if that pays.

    On queries held out, the gate stands beside never, always and random
    retrieval, thresholds, kNN and the oracle. If it is not better than the
    better of never and always, with a probability of 0.9 in training, that
    one is deployed, and decisions say so.

    For example:

    expert-composer collect --with-and-without handbook

    expert-composer gate train outcomes.parquet --price 0.05
    """
    from composer.gate_report import gate_lines
    from composer.gate_training import store_texts, train_gate
    from composer.progress import steps
    from composer.routing import Routing
    from experts_registry.registry import Registry
    from routers.gates.data import GateData
    from routers.gates.price import RetrievalPrice

    file = Registry.load(registry)
    data = GateData.load(outcomes)
    cost = RetrievalPrice(
        per_retrieval=price, quality_per_usd=per_usd, usd_per_second=usd_per_second
    )
    folder = out or registry.parent / "routers" / "gate"
    texts = store_texts(file, data.stores)
    encoder = Routing(file).encoder()
    with steps(2, "steps", quiet=json or quiet) as advance:
        found = train_gate(
            data, encoder, folder, price=cost, texts=texts, test=test, seed=seed, advance=advance
        )
    if json:
        print_json({"gate": str(found.path), "experts": [r.to_json() for r in found.reports]})
        return
    for report in found.reports:
        for line in gate_lines(report):
            say(line)
    name = os.path.relpath(found.path, registry.parent)
    say(f"saved {found.path}; use it with 'gate: {name}' under a composition's 'retrieval:'")


@app.command()
def evaluate(
    outcomes: Outcomes = Path("outcomes.parquet"),
    gate: Annotated[
        Path | None, typer.Option(help="Folder of a trained gate (routers/gate).")
    ] = None,
    registry: RegistryPath = FILE,
    out: Annotated[
        Path | None, typer.Option(help="Folder for gate.json, gate.html and the pictures.")
    ] = None,
    json: Json = False,
) -> None:
    """Judge a trained gate on queries of the outcomes that it was not trained on.

    Quality, how often it retrieves, how many of its retrievals helped and
    how many helpful ones it missed, the regret to the oracle, quality gained
    by retrieval, calibration, and utilities at three prices; with 95 %
    intervals of paired differences.

    For example:

    expert-composer gate evaluate outcomes.parquet --out found
    """
    from composer.gate_report import gate_lines
    from composer.gate_training import evaluate_saved_gate
    from composer.routing import Routing
    from experts_registry.registry import Registry
    from routers.gates.data import GateData

    if out is not None:
        from composer.gate_page import publish_gate  # before the work: what it needs may be missing

    folder = gate or registry.parent / "routers" / "gate"
    encoder = Routing(Registry.load(registry)).encoder()
    reports = evaluate_saved_gate(folder, GateData.load(outcomes), encoder)
    command = shlex.join(["expert-composer", *sys.argv[1:]])
    written = [] if out is None else publish_gate(reports, out, command=command)
    if json:
        print_json([report.to_json() for report in reports])
        return
    for report in reports:
        for line in gate_lines(report):
            say(line)
    for path in written:
        say(f"wrote {path}")
