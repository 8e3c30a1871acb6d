"""The verbs of ``expert-composer`` and what they share: errors, logging, ``--json``.

Nothing heavy is imported here or at the top of a verb's module: ``--help`` must be quick.
"""

import logging
import os
import sys
from pathlib import Path

import typer

from composer.cli import (
    ask,
    experts,
    feedback,
    gate,
    importing,
    keys,
    learn,
    logs,
    retrieve,
    retrievers,
    serve,
    show,
    store,
    threshold,
)
from composer.cli.output import error_json, print_json
from experts_registry.errors import ComposerError, DataError

__all__ = ["main"]

app = typer.Typer(
    name="expert-composer",
    help="Several language models behind one endpoint: measure them, learn whom to ask, ask.\n\n"
    "Start with 'expert-composer demo' (real models) or 'expert-composer init' (your own file).",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command()(show.init)
app.command()(show.validate)
app.command()(show.schema)
app.command("import-litellm")(importing.import_litellm)
app.add_typer(experts.app, name="experts")
app.add_typer(retrievers.app, name="retrievers")
app.add_typer(store.app, name="store")
app.command()(learn.collect)
app.command()(learn.train)
app.command()(learn.evaluate)
app.command()(learn.adopt)
app.command()(threshold.threshold)
app.add_typer(gate.app, name="gate")
app.add_typer(feedback.app, name="feedback")
app.command()(feedback.retrain)
app.command()(ask.route)
app.command()(ask.ask)
app.command()(ask.chat)
app.command()(retrieve.retrieve)
app.add_typer(keys.app, name="keys")
app.command()(logs.logs)
app.command()(serve.serve)
app.command()(serve.deploy)
app.command()(learn.demo)
app.command()(show.version)
app.command()(show.doctor)


@app.callback()
def _setup(
    verbose: bool = typer.Option(False, "--verbose", "-v", help="Log what happens."),
) -> None:
    logging.basicConfig(
        level=logging.INFO if verbose else logging.WARNING,
        format="%(asctime)s %(levelname)s %(name)s: %(message)s",
        stream=sys.stderr,
    )
    # A console script does not see modules beside the user's files: plug-ins named module:Name.
    sys.path.append(str(Path.cwd()))


def main() -> None:
    """Run the command line; exit 1 with one clear line where something is wrong."""
    try:
        app()
    except ComposerError as error:
        _fail(error)
    except (OSError, UnicodeError) as error:
        # A file, a pipe or a disk that no verb looked after: still no traceback.
        _fail(DataError(f"{type(error).__name__}: {error}"))
    except KeyboardInterrupt:
        sys.exit(130)


def _fail(error: ComposerError) -> None:
    try:
        if "--json" in sys.argv:
            print_json(error_json(error))
        else:
            typer.echo(f"error: {error}", err=True)
    except OSError:  # nobody can be told
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    sys.exit(1)
