"""Child processes: started again when they crash, stopped in order, and never left behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from orderflow.supervisor import BACKOFF_S, Child, Supervisor, start_again_at

SLEEP = "import time; print('up', flush=True); time.sleep(60)"
OBSTINATE = (
    "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('up', flush=True);"
    " time.sleep(60)"
)
ROLE = (
    "from orderflow.roles import stop_with_parent; import time; stop_with_parent();"
    " print('up', flush=True); time.sleep(60)"
)
PARENT = """
import sys, time
from pathlib import Path
from orderflow.supervisor import Child, Supervisor
child = Child("role", [sys.executable, "-c", sys.argv[2]], {}, Path(sys.argv[1]))
with Supervisor([child]):
    print(child.status().pid, flush=True)
    time.sleep(60)
"""


@pytest.fixture
def child_of(tmp_path: Path) -> Iterator[Callable[[str], Child]]:
    made: list[Child] = []

    def make(code: str) -> Child:
        log = tmp_path / f"{len(made)}.log"
        made.append(Child("child", [sys.executable, "-c", code], {}, log))
        return made[-1]

    yield make
    for child in made:
        child.wait_until_stopped(time.monotonic())


def eventually(condition: Callable[[], bool], within_s: float = 20.0) -> None:
    deadline = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_a_child_that_crashed_is_started_again_after_a_pause(
    child_of: Callable[[str], Child],
) -> None:
    child = child_of(SLEEP)
    with Supervisor([child]) as supervisor:
        first = child.status().pid
        assert first is not None
        os.kill(first, signal.SIGKILL)
        eventually(lambda: not looked_after(supervisor, child))
        assert child.status().last_exit == -signal.SIGKILL
        eventually(lambda: looked_after(supervisor, child))
        assert child.status().restarts == 1
        assert child.status().pid != first


@pytest.mark.parametrize("in_a_row", [0, 3, 5, 50])
def test_a_child_that_ran_longer_than_the_longest_pause_is_started_again_at_once(
    in_a_row: int,
) -> None:
    """Whatever killed it again and again did not keep it from working in between."""
    assert start_again_at(100.0, 100.0 + BACKOFF_S[-1], in_a_row) == pytest.approx(
        100.0 + BACKOFF_S[-1] + BACKOFF_S[0]
    )


def test_a_child_that_ends_at_once_waits_longer_each_time() -> None:
    pauses = [start_again_at(0.0, 0.0, in_a_row) for in_a_row in range(len(BACKOFF_S) + 1)]
    assert pauses == [*BACKOFF_S, BACKOFF_S[-1]]


def test_a_child_that_stops_on_sigterm_is_not_killed(child_of: Callable[[str], Child]) -> None:
    child = child_of(SLEEP)
    with Supervisor([child]):
        eventually(lambda: "up" in child.last_words())
    assert child.status().last_exit == -signal.SIGTERM
    assert not child.status().running


def test_a_child_that_does_not_stop_is_killed(
    child_of: Callable[[str], Child], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("orderflow.supervisor.STOP_WITHIN_S", 0.2)
    child = child_of(OBSTINATE)
    with Supervisor([child]):
        eventually(lambda: "up" in child.last_words())
    assert child.status().last_exit == -signal.SIGKILL


def test_what_a_child_said_last_can_be_shown(child_of: Callable[[str], Child]) -> None:
    child = child_of("raise SystemExit('no such thing')")
    with Supervisor([child]) as supervisor:
        eventually(lambda: not looked_after(supervisor, child))
        assert child.last_words() == "no such thing"
        assert child.status().last_exit == 1


def test_a_role_stops_when_its_parent_is_killed(tmp_path: Path) -> None:
    log = tmp_path / "role.log"
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT, str(log), ROLE], stdout=subprocess.PIPE, text=True
    )
    assert parent.stdout is not None
    pid = int(parent.stdout.readline())
    try:
        eventually(lambda: "up" in log.read_text())
        parent.kill()
        parent.wait()
        eventually(lambda: not psutil.pid_exists(pid) or is_zombie(pid))
    finally:
        parent.stdout.close()
        if psutil.pid_exists(pid) and not is_zombie(pid):
            os.kill(pid, signal.SIGKILL)


def looked_after(supervisor: Supervisor, child: Child) -> bool:
    """Lets the supervisor do its work once; says whether the child runs then."""
    supervisor.look_after()
    return child.status().running


def is_zombie(pid: int) -> bool:
    """An orphan is reaped by whoever adopts it, which in a container may be nobody."""
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True
