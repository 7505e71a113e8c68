"""``python -m webhooks``: delivers to webhooks, set up by the environment."""

import sys

from runtime.settings import Settings
from webhooks.role import run_webhooks

if __name__ == "__main__":
    sys.exit(run_webhooks(Settings()))
