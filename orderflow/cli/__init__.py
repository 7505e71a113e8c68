"""The command line `orderflow`: one file a group of commands, and `main`.

`exits` has the table of exit codes, `failures` the expected failures, `boundary` turns whatever leaves a
command into one of the codes. `output` is the only place that prints, `streams` guards the standard streams,
`arguments` checks a command line, `context` gives a command its settings. Answers go to standard output,
everything else to standard error.
"""

from orderflow.cli.app import app


def main() -> None:
    """The console script."""
    app()


__all__ = ["app", "main"]
