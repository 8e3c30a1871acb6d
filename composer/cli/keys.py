"""Verbs on API keys: keys create, list, revoke."""

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from composer.cli.output import Json, RegistryPath, print_json, say

if TYPE_CHECKING:
    from composer.keys import Key
    from composer.spending import Spent

__all__ = ["app"]

app = typer.Typer(
    help="Who may use the HTTP door, for which models, how much.\n\n"
    "Keys are kept in keys.db beside the expert file, or where 'keys:' in that file says, and "
    "only as digests: a token is shown once, when it is made.",
    no_args_is_help=True,
)
FILE = Path("experts.yaml")


@app.command()
def create(
    name: Annotated[str, typer.Argument(help="Whose key it is, for people.")],
    model: Annotated[
        list[str] | None,
        typer.Option("--model", "-m", help="May ask for this model; repeat it. None allows all."),
    ] = None,
    store: Annotated[
        list[str] | None,
        typer.Option("--store", help="May read this store; repeat it. None allows all."),
    ] = None,
    rpm: Annotated[int | None, typer.Option(help="Requests a minute, each server process.")] = None,
    tpm: Annotated[int | None, typer.Option(help="Tokens a minute, each server process.")] = None,
    usd: Annotated[float | None, typer.Option(help="Budget of each period in USD.")] = None,
    per: Annotated[
        Literal["day", "month", "total"] | None,
        typer.Option(help="Period of the budget, in UTC.", show_default="total"),
    ] = None,
    expires: Annotated[
        str | None, typer.Option(help="Last day, 2027-01-31 (UTC), or a span from now: 30d, 12h.")
    ] = None,
    admin: Annotated[bool, typer.Option("--admin", help="May use the admin verbs.")] = False,
    registry: RegistryPath = FILE,
    json: Json = False,
) -> None:
    """Make a key and print its token, which cannot be shown again.

    For example:

    expert-composer keys create alice --model auto --rpm 60 --usd 5 --per day --expires 30d

    export OPENAI_API_KEY=$(expert-composer keys create me --json | jq -r .token)
    """
    from datetime import UTC, datetime

    from composer.key_store import KeyStore
    from composer.locations import database_location
    from composer.spans import expiry
    from experts_registry.errors import OptionError
    from experts_registry.registry import Registry

    if per is not None and usd is None:
        raise OptionError(f"--per: {per} is the period of no budget; name it with --usd")
    known = Registry.load(registry)
    _check(model or [], {*known.experts, *known.compositions, "auto"})
    for name_of_store in store or ():
        known.store(name_of_store)
    until = None if expires is None else expiry(expires, datetime.now(UTC))
    limits = {"rpm": rpm, "tpm": tpm, "usd": usd, "expires": until, "is_admin": admin}
    keys = KeyStore(database_location(known, "keys"))
    new = keys.create(name, models=model or [], stores=store or [], per=per or "total", **limits)
    keys.close()
    if json:
        print_json({**_json(new.key), "token": new.token})
        return
    say(new.token)
    say(f"key {new.key.id} of {name}, stored in {keys.where}; the token is not shown again")


@app.command("list")
def list_(registry: RegistryPath = FILE, json: Json = False) -> None:
    """Show every key, its limits and what it has spent in this period; never a token."""
    from composer.key_store import KeyStore
    from composer.locations import database_location
    from composer.spending import Spending
    from experts_registry.registry import Registry

    where = database_location(Registry.load(registry), "keys")
    store, spending = KeyStore(where), Spending(where)
    rows = [(key, spending.spent(key.id, per=key.per)) for key in store.all()]
    if json:
        print_json([_json(key, spent) for key, spent in rows])
    elif rows:
        _table(rows)
    else:
        say("no keys yet; make one with 'expert-composer keys create NAME'")


@app.command()
def revoke(
    id_: Annotated[str, typer.Argument(metavar="ID", help="As 'keys list' shows it.")],
    registry: RegistryPath = FILE,
    json: Json = False,
) -> None:
    """End a key for good; running servers refuse it within five seconds.

    For example:

    expert-composer keys revoke 9f2c41d07a
    """
    from composer.key_store import KeyStore
    from composer.locations import database_location
    from experts_registry.registry import Registry

    key = KeyStore(database_location(Registry.load(registry), "keys")).revoke(id_)
    if json:
        print_json(_json(key))
    else:
        say(f"key {key.id} of {key.name} is revoked; running servers refuse it within 5 s")


def _check(models: list[str], known: set[str]) -> None:
    from experts_registry.errors import unknown_name

    for model in models:
        if model not in known and not model.startswith("router:"):
            raise unknown_name("model", model, known)


def _json(key: "Key", spent: "Spent | None" = None) -> dict[str, Any]:
    values = {**asdict(key), "state": key.state()}
    values |= {
        name: values[name] and values[name].isoformat(timespec="seconds")
        for name in ("created", "expires", "revoked")
    }
    if spent is not None:
        values |= {"spent_usd": spent.usd, "reserved_usd": spent.reserved}
    return values


def _table(rows: list[tuple["Key", "Spent"]]) -> None:
    head = ("id", "name", "state", "models", "stores", "rpm", "tpm", "spent", "budget", "expires")
    lines = [head] + [
        (
            key.id,
            key.name + (" (admin)" if key.is_admin else ""),
            key.state(),
            ",".join(key.models) or "all",
            ",".join(key.stores) or "all",
            str(key.rpm or "-"),
            str(key.tpm or "-"),
            f"{spent.usd:.4g}",
            "-" if key.usd is None else f"{key.usd:g} {key.per}",
            "never" if key.expires is None else f"{key.expires:%Y-%m-%d %H:%M}",
        )
        for key, spent in rows
    ]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for line in lines:
        say("  ".join(map(str.ljust, line, widths)).rstrip())
