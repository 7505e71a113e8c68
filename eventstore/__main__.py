"""``python -m eventstore``: one indexer, set up by the environment."""

import sys

from eventstore.role import run_indexer
from runtime.settings import Settings

if __name__ == "__main__":
    sys.exit(run_indexer(Settings()))
