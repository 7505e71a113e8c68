"""`python -m runtime.embedded`: fetch the broker's jars; with `--relock`, pin them anew."""

from __future__ import annotations

import sys

from runtime.embedded.errors import EmbeddedServerError
from runtime.embedded.jars import LOCK_FILE, ensure_jars, relock


def main() -> int:
    """0 when done, 1 with a message on stderr when not."""
    try:
        if "--relock" in sys.argv[1:]:
            LOCK_FILE.write_text(relock(), encoding="ascii")
        paths = ensure_jars(lambda message, _fraction: _say(message))
    except EmbeddedServerError as error:
        _say(str(error))
        return 1
    _say(f"{len(paths)} files in {paths[0].parent}")
    return 0


def _say(message: str) -> None:
    sys.stderr.write(message + "\n")


if __name__ == "__main__":
    sys.exit(main())
