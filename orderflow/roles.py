"""What a role does around its own work: where it finds the servers, and that it dies with its parent."""

import os
import signal
import sys
import threading
import time
from typing import Final

from orderflow.supervisor import SUPERVISED

GRACE_S: Final = 20.0
"""How long an orphan may take to stop in order before it ends at once."""


def stop_with_parent() -> None:
    """Of a supervised process: stop it in order when standard input closes, that is, its parent is
    gone.

    Does nothing in a process that nobody supervises, whose standard input means something else.
    """
    if os.environ.get(SUPERVISED) == "1":
        threading.Thread(target=_watch_parent, name="watch-parent", daemon=True).start()


def _watch_parent() -> None:
    try:
        while sys.stdin is not None and os.read(sys.stdin.fileno(), 64):
            pass
    except OSError:
        pass  # a closed standard input means the same
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(GRACE_S)
    os._exit(1)
