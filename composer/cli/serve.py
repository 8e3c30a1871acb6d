"""The verbs that serve."""

import shlex
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from composer.cli.output import RegistryPath, Workers, say

__all__ = ["deploy", "serve"]


class LogFormat(StrEnum):
    """How a log line looks."""

    text = "text"
    json = "json"


class LogLevel(StrEnum):
    """What is logged at least."""

    debug = "debug"
    info = "info"
    warning = "warning"
    error = "error"


def serve(
    registry: RegistryPath = Path("experts.yaml"),
    host: Annotated[
        str, typer.Option(help="Beyond loopback there must be an API key: see 'keys create'.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="0 takes a free one.", min=0, max=65535)] = 8000,
    workers: Workers = False,
    log_format: Annotated[
        LogFormat, typer.Option(help="Text for people, or one JSON object a line.")
    ] = LogFormat.text,
    log_level: Annotated[
        LogLevel, typer.Option(help="From where on; info has one line a request.")
    ] = LogLevel.info,
    allowed_host: Annotated[
        list[str] | None,
        typer.Option(
            help="A further name of this server, where it needs no key: what a proxy before it "
            "sends as Host; repeatable."
        ),
    ] = None,
    drain: Annotated[
        float, typer.Option(help="Seconds that requests in flight get to finish.", min=0)
    ] = 30.0,
) -> None:
    """Serve the experts as OpenAI's API; edits of the file are followed.

    Any OpenAI client can ask: its base URL is the address that is printed,
    its model 'auto', a composition or an expert. Its API key may be any text
    until there is a first one ('expert-composer keys create NAME'); from then
    on it must be one of these. Response headers x-composer-... say who
    answered and at what cost; POST /v1/route says who would. Ctrl-C or SIGTERM
    lets requests in flight finish, for at most 30 s; a second one does not.

    Example: expert-composer serve --registry experts.yaml --port 8000
    """
    from composer.http import server
    from composer.http.log_format import set_up_logging

    set_up_logging(log_format.value, log_level.value)
    server.serve(
        registry,
        host=host,
        port=port,
        workers=workers,
        allowed_hosts=allowed_host or (),
        drain_seconds=drain,
        ready=_say_where,
    )


def deploy(
    registry: Annotated[Path, typer.Argument(help="The expert file.")] = Path("experts.yaml"),
    host: Annotated[
        str, typer.Option(help="Beyond loopback there must be an API key: see 'keys create'.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=1, max=65535)] = 8000,
    replicas: Annotated[int, typer.Option(help="Ingress replicas.", min=1)] = 2,
    min_replicas: Annotated[
        int | None, typer.Option(help="At least so many, where their number follows load.", min=1)
    ] = None,
    max_replicas: Annotated[int | None, typer.Option(help="At most so many.", min=1)] = None,
    load: Annotated[
        int, typer.Option(help="Requests in flight in each replica to aim at.", min=1)
    ] = 16,
    workers: Workers = False,
    fast: Annotated[
        bool, typer.Option(help="HAProxy and Ray Serve's throughput mode; see docs/deploy.md.")
    ] = True,
    blocking: Annotated[
        bool, typer.Option(help="Serve until SIGTERM; without it RAY_ADDRESS must be set.")
    ] = True,
    print_config: Annotated[
        bool, typer.Option("--print-config", help="Print a file for 'serve run', do nothing else.")
    ] = False,
    environment: Annotated[
        Path | None,
        typer.Option(help="Print what to export before 'ray start'; its files go to this folder."),
    ] = None,
) -> None:
    """Serve the experts on Ray Serve, from several processes behind one address.

    Like 'serve', with ingress replicas that share keys, budgets and log, and
    each follow the file. They run on the cluster at RAY_ADDRESS, or on one of
    this machine that ends with this command. SIGTERM or Ctrl-C let requests in
    flight finish, for at most 30 s.

    Example: expert-composer deploy experts.yaml --min-replicas 1 --max-replicas 4
    """
    from composer import deploying

    least = min_replicas or (1 if max_replicas else replicas)
    plan = deploying.Plan(
        registry=registry,
        host=host,
        port=port,
        replicas=(least, max_replicas or max(replicas, least)),
        load=load,
        workers=workers,
    )
    if environment is not None:
        for name, value in deploying.environment(environment, is_fast=fast).items():
            say(f"export {name}={shlex.quote(value)}")
        return
    if print_config:
        say(deploying.config_text(plan))
        return
    deploying.deploy(plan, is_fast=fast, is_blocking=blocking, ready=_say_where)


def _say_where(url: str) -> None:
    say(f"Serving {url}/v1; Ctrl-C stops. Try:")
    say(f"  curl {url}/v1/chat/completions -H 'content-type: application/json' -d \\")
    say("""    '{"model": "auto", "messages": [{"role": "user", "content": "Hello"}]}'""")
    say(f"or open {url}/ui in a browser")
