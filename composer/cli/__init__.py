"""The command line: parse, call one library function, print."""

from composer.cli.main import main

__all__ = ["main"]
