"""The verb that serves."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from composer.cli.output import RegistryPath, Workers, say

__all__ = ["serve"]


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


def _say_where(url: str) -> None:
    say(f"Serving {url}/v1; Ctrl-C stops. Try:")
    say(f"  curl {url}/v1/chat/completions -H 'content-type: application/json' -d \\")
    say("""    '{"model": "auto", "messages": [{"role": "user", "content": "Hello"}]}'""")
    say(f"or open {url}/ui in a browser")
