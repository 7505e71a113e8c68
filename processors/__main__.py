"""``python -m processors [commands | sagas | reactor]``: one process on the write side, set up by the
environment. Without a word: one command processor.
"""

import sys

from processors import command_processor, saga_processor
from processors.role import run_processor, run_reactor
from runtime.settings import Settings

if __name__ == "__main__":
    match sys.argv[1:]:
        case [] | ["commands"]:
            sys.exit(run_processor(Settings(), command_processor.WORK))
        case ["sagas"]:
            settings = Settings()
            sys.exit(run_processor(settings, saga_processor.work(settings)))
        case ["reactor"]:
            sys.exit(run_reactor(Settings()))
        case other:
            sys.exit(f"there is no {' '.join(other)}; see the docstring of {__file__}")
