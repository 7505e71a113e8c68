"""``python -m readmodels``: one projector, set up by the environment."""

import sys

from readmodels.projector import run_projector
from runtime.settings import Settings

if __name__ == "__main__":
    sys.exit(run_projector(Settings()))
