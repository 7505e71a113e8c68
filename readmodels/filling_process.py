"""One of the further processes of a rebuild: ``python -m readmodels.filling_process FD`` fills the share that
comes over the pipe FD, tells how far it is, and ends.

It never outlives who started it: when the other end of the pipe closes, also by SIGKILL, it ends at once,
which is what being killed means to a generation; see `filling`.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from multiprocessing.connection import Connection
from typing import Any, Final, TypeAlias

from confluent_kafka import KafkaException
from redis.exceptions import RedisError

from readmodels import standing
from readmodels.filling import Filling, Progress
from readmodels.generations import RebuildFailed
from readmodels.keys import Keys
from readmodels.orders import Restless
from readmodels.shares import KafkaFailed, Report, Share
from readmodels.views import named
from runtime.redis import is_cluster, new_line

LOOK_EVERY_S: Final = 0.5
"""A child that the other process has forked may hold the pipe open; so the parent is looked at, too."""

Pipe: TypeAlias = "Connection[Any, Any]"


def main() -> None:
    """Fill one share. Failures that are expected go over the pipe, others leave their traceback."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches both; the other one decides
    pipe: Pipe = Connection(int(sys.argv[1]))
    try:
        share: Share = pipe.recv()
    except EOFError:
        return
    watch = threading.Thread(target=_end_with, args=(pipe, share.asked_by), daemon=True)
    watch.start()
    try:
        _fill(share, pipe)
    except KafkaException as failed:
        error = failed.args[0]
        _say(pipe, KafkaFailed(error.code(), error.str()))
    except (RebuildFailed, RedisError, Restless, OSError) as failed:
        _say(pipe, failed)


def _fill(share: Share, pipe: Pipe) -> None:
    if share.code != standing.code():
        raise RebuildFailed("the code changed since the rebuild began; rebuild again")
    settings = share.settings
    spread = is_cluster(settings)
    new = {
        view: Keys(settings.topic_prefix, view.name, share.generations[view.name], spread)
        for view in named(share.generations)
    }
    line = new_line(settings)

    def tell(progress: Progress) -> None:
        _say(pipe, Report(progress.done, filling.records, filling.unreadable))

    with Filling(settings, new, line, tell) as filling:
        filling.begin(share.starts)
        total = sum(filling.left(share.targets).values())
        filling.read_to(share.targets)
        _say(pipe, Report(total, filling.records, filling.unreadable, ended=True))
    line.close()


def _say(pipe: Pipe, message: object) -> None:
    try:
        pipe.send(message)
    except OSError:
        os._exit(1)  # nobody is there to be told


def _end_with(pipe: Pipe, parent: int) -> None:
    """Returns never: ends this process when the other end is closed, or the parent gone."""
    try:
        while not pipe.poll(LOOK_EVERY_S) and os.getppid() == parent:
            pass  # nothing is ever sent after the share: there is something to read only at the end
    finally:
        os._exit(1)


if __name__ == "__main__":
    main()
