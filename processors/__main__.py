"""``python -m processors [commands [AGGREGATE ...] | sagas | reactor]``: one process on the write side, set
up by the environment. Without a word: one command processor, for all aggregates.
"""

import sys

from processors import command_processor, saga_processor
from processors.role import run_processor, run_reactor
from runtime.settings import Settings

if __name__ == "__main__":
    match sys.argv[1:]:
        case [] | ["commands", *_]:
            try:
                work = command_processor.work(sys.argv[2:])
            except command_processor.UnknownAggregate as error:
                sys.exit(str(error))
            sys.exit(run_processor(Settings(), work))
        case ["sagas"]:
            settings = Settings()
            sys.exit(run_processor(settings, saga_processor.work(settings)))
        case ["reactor"]:
            sys.exit(run_reactor(Settings()))
        case other:
            sys.exit(f"there is no {' '.join(other)}; see the docstring of {__file__}")
