"""The verb threshold: from a share of calls to the strong expert to a threshold."""

from pathlib import Path
from typing import Annotated

import typer

from composer.cli.output import Json, RegistryPath, print_json, say

__all__ = ["threshold"]

_SHARES = (0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)


def threshold(
    router: Annotated[str, typer.Argument(help="Its name: 'pairwise' of routers/pairwise.")],
    strong_share: Annotated[
        list[float] | None,
        typer.Option(help="Share of queries that go to the strong expert; repeatable."),
    ] = None,
    registry: RegistryPath = Path("experts.yaml"),
    json: Json = False,
) -> None:
    """Find the threshold that sends a share of queries to a router's strong expert.

    It is that of queries like those that the router was trained on. For example:

    expert-composer threshold pairwise --strong-share 0.3
    """
    from composer.router_names import NamedRouter, routed_compositions
    from composer.routing import Routing
    from experts_registry.errors import unknown_name
    from experts_registry.registry import Registry

    file = Registry.load(registry)
    named = NamedRouter.find(f"router:{router}", file)
    if named is None:
        raise unknown_name("router", router, routed_compositions(file))
    found = named.thresholded(Routing(file).named(named))
    rows = [(share, round(found.calibrate(share), 5)) for share in strong_share or _SHARES]
    if json:
        keys = ("strong_share", "threshold", "model")
        print_json(
            [dict(zip(keys, (*row, f"{named.family}@{row[1]:g}"), strict=True)) for row in rows]
        )
        return
    say("share  threshold  model")
    for share, value in rows:
        say(f"{share:5.0%}  {value:9.5f}  {named.family}@{value:g}")
