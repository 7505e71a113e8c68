"""``python -m processors``: one command processor, set up by the environment."""

import sys

from processors.role import run_processor
from runtime.settings import Settings

if __name__ == "__main__":
    sys.exit(run_processor(Settings()))
