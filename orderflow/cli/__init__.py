"""The command line `orderflow`: one file a group of commands, and `main`.

`exits` has the table of exit codes and of expected failures, `output` says where things are
printed, `context` gives a command its settings. Answers go to standard output, everything else to
standard error.
"""

from orderflow.cli.app import app


def main() -> None:
    """The console script."""
    app()


__all__ = ["app", "main"]
