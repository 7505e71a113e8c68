"""The process between an owner and its server: when the owner is gone, the server goes too.

Run as a script with one argument, a JSON object (see `Spec`); standard library only, because it
starts in isolated mode and must be quick. It imports nothing of this project.

    owner ──pipe on stdin──► guardian ──starts, waits for──► server

The owner's end of the pipe closes when the owner stops the server or dies, even by SIGKILL; the
guardian then sends SIGTERM to the server's process group, and SIGKILL after a grace period. Both
have sessions or process groups of their own, so Ctrl-C in the owner's terminal reaches neither and
the owner decides the order of the shutdown. Should the guardian itself be killed, Linux kills the
server (PR_SET_PDEATHSIG).

It answers with one line on stdout: `pid N` once the server runs, `error TEXT` if it cannot start.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from typing import TypedDict

OWNER_CHECK_S = (
    0.5  # a forked child of the owner may keep the pipe open: look at the parent pid too
)
LOCK_CHECK_S = 0.05  # how often to try for the lock that a dying predecessor still holds
PR_SET_PDEATHSIG = 1  # from <linux/prctl.h>


class Spec(TypedDict):
    """What the owner orders."""

    argv: list[str]  # the server's command line
    cwd: str
    log: str  # stdout and stderr of the server are appended here
    lock: str  # held as long as the server lives: two servers never share a data folder
    lock_wait_s: float  # how long a predecessor may take to go
    grace_s: float  # between SIGTERM and SIGKILL
    owner: int  # pid; guards against an owner that died before the pipe was watched


def main() -> int:
    """Run one server until it ends, the owner closes the pipe, or the owner is gone."""
    spec: Spec = json.loads(sys.argv[1])
    wakeup = _wake_on_signals()
    try:
        server = _start(spec)
    except OSError as error:
        _answer(f"error {error}")
        return 1
    _answer(f"pid {server.pid}")
    _watch(server, spec["owner"], wakeup)
    _terminate(server, spec["grace_s"])
    return 0


def _wake_on_signals() -> int:
    """Handlers that only wake the watch loop; unlike SIG_IGN, they do not pass to the server."""
    reader, writer = os.pipe()
    os.set_blocking(reader, False)
    os.set_blocking(writer, False)
    for signum in (signal.SIGCHLD, signal.SIGINT, signal.SIGHUP, signal.SIGTERM):
        signal.signal(signum, lambda _signum, _frame: None)
    signal.set_wakeup_fd(writer)
    return reader


def _start(spec: Spec) -> subprocess.Popen[bytes]:
    """Take the lock, then start the server. Raises OSError."""
    lock = os.open(spec["lock"], os.O_RDWR | os.O_CREAT, 0o644)
    _wait_for_lock(lock, spec["lock_wait_s"])
    with open(spec["log"], "ab") as log:  # noqa: PTH123 - pathlib is a slow import for one call
        return subprocess.Popen(
            spec["argv"],
            cwd=spec["cwd"],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            process_group=0,
            pass_fds=(lock,),  # the server holds the lock too, should the guardian die first
            preexec_fn=_die_with_parent(),  # noqa: PLW1509 - this process has one thread
        )


def _wait_for_lock(lock: int, wait_s: float) -> None:
    deadline = time.monotonic() + wait_s
    while True:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            if time.monotonic() > deadline:
                raise OSError("another server is using the same data folder") from None
            time.sleep(LOCK_CHECK_S)


def _die_with_parent() -> Callable[[], None] | None:
    """What makes the kernel kill a process when the thread that forked it ends; Linux only."""
    if not sys.platform.startswith("linux"):
        return None
    prctl = ctypes.CDLL(None, use_errno=True).prctl  # looked up before the fork
    guardian = os.getpid()

    def set_parent_death_signal() -> None:
        prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != guardian:  # it died before the call
            os._exit(1)

    return set_parent_death_signal


def _watch(server: subprocess.Popen[bytes], owner: int, wakeup: int) -> None:
    """Return when the server has ended, SIGTERM came, the pipe is closed or the owner is gone."""
    while server.poll() is None and os.getppid() == owner:
        readable, _, _ = select.select([sys.stdin.fileno(), wakeup], [], [], OWNER_CHECK_S)
        if sys.stdin.fileno() in readable and not os.read(sys.stdin.fileno(), 1):
            return
        if wakeup in readable and signal.SIGTERM in os.read(wakeup, 64):
            return


def _terminate(server: subprocess.Popen[bytes], grace_s: float) -> None:
    """SIGTERM, then SIGKILL, to the whole process group of the server."""
    for signum, wait_s in ((signal.SIGTERM, grace_s), (signal.SIGKILL, None)):
        # Sent to the group even when the server has ended: it may have left children.
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(server.pid, signum)
        with contextlib.suppress(subprocess.TimeoutExpired):
            server.wait(wait_s)


def _answer(line: str) -> None:
    with contextlib.suppress(OSError):  # an owner that is gone needs no answer
        os.write(sys.stdout.fileno(), (line.replace("\n", " ") + "\n").encode())


if __name__ == "__main__":
    sys.exit(main())
