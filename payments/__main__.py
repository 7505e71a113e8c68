"""``python -m payments``: one outbox of payments, set up by the environment."""

import sys

from payments.role import run_payments
from runtime.settings import Settings

if __name__ == "__main__":
    sys.exit(run_payments(Settings()))
