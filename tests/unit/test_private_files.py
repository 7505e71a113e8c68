"""Nobody else reads what lies in the home, and no log of it grows for ever."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orderflow.supervisor import Child, Supervisor
from runtime.private_files import keep_small, open_private, others_can_read, secure_home

CHATTY = """
import sys, time
for number in range(20_000):
    print(f"line {number}", flush=number % 100 == 0)
raise SystemExit(f"the last {'word' * 3}")
"""


def open_to_others(folder: Path) -> list[Path]:
    return [path for path in (folder, *folder.rglob("*")) if others_can_read(path)]


@settings(max_examples=30, deadline=None)
@given(
    names=st.lists(st.sampled_from(["a", "a/b", "a/b/c.sqlite", "x.log", "k/key"]), unique=True),
    modes=st.lists(st.sampled_from([0o644, 0o755, 0o600, 0o777, 0o640]), min_size=5, max_size=5),
    home_mode=st.sampled_from([0o755, 0o700, 0o777]),
)
def test_an_existing_home_is_closed_to_others_and_stays_usable(
    tmp_path_factory: pytest.TempPathFactory, names: list[str], modes: list[int], home_mode: int
) -> None:
    home = tmp_path_factory.mktemp("any") / "home"
    home.mkdir()
    for name, mode in zip(names, modes, strict=False):
        file = home / f"{name}.file"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("x")
        file.chmod(mode)
    home.chmod(home_mode)
    secure_home(home)
    assert stat.S_IMODE(home.stat().st_mode) == 0o700
    # What is in a home that was closed already cannot be reached.
    assert home_mode == 0o700 or not open_to_others(home)
    assert all(file.read_text() == "x" for file in home.rglob("*.file"))


def test_a_new_home_is_its_owners_alone_and_links_are_left_alone(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.write_text("of somebody else")
    outside.chmod(0o644)
    home = tmp_path / "deep" / "home"
    secure_home(home)
    assert not open_to_others(home)
    home.chmod(0o755)
    (home / "link").symlink_to(outside)
    (home / "dangling").symlink_to(tmp_path / "nowhere")
    secure_home(home)
    assert stat.S_IMODE(outside.stat().st_mode) == 0o644


def test_a_role_leaves_files_that_only_its_owner_reads(tmp_path: Path) -> None:
    code = (
        "from runtime.role import begin_role; from runtime.settings import Settings;"
        " begin_role(Settings()); (Settings().home / 'sub').mkdir(); (Settings().home / 'sub' / 'f').touch()"
    )
    home = tmp_path / "home"
    env = {**os.environ, "ORDERFLOW_HOME": str(home)}
    subprocess.run([sys.executable, "-c", code], env=env, check=True)
    assert (home / "sub" / "f").exists()
    assert not open_to_others(home)


@settings(max_examples=30, deadline=None)
@given(st.lists(st.binary(min_size=1, max_size=40), min_size=1, max_size=60), st.integers(1, 200))
def test_a_log_that_is_kept_small_loses_nothing_but_what_is_oldest(
    tmp_path_factory: pytest.TempPathFactory, lines: list[bytes], limit: int
) -> None:
    log = tmp_path_factory.mktemp("logs") / "role.log"
    writer = open_private(log)  # held open over every rotation, as a child does
    try:
        for line in lines:
            os.write(writer, line)
            keep_small(log, limit)
            assert log.stat().st_size <= limit
    finally:
        os.close(writer)
    old = log.with_name("role.log.1")
    kept = (old.read_bytes() if old.exists() else b"") + log.read_bytes()
    assert b"".join(lines).endswith(kept)
    assert len(kept) >= min(len(b"".join(lines)), 1)
    assert not others_can_read(log)


def test_the_log_of_a_child_stays_small_and_keeps_its_traceback(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("orderflow.supervisor.LOG_LIMIT_BYTES", 20_000)
    monkeypatch.setattr("orderflow.supervisor.BACKOFF_S", (600.0,))
    child = Child("chatty", [sys.executable, "-c", CHATTY], {}, tmp_path / "logs" / "chatty.log")
    with Supervisor([child]) as supervisor:
        deadline = time.monotonic() + 30
        while child.status().last_exit is None:
            supervisor.look_after()
            assert time.monotonic() < deadline
            time.sleep(0.001)
        supervisor.look_after()
        assert child.log.stat().st_size <= 20_000
        whole = child.log.with_name("chatty.log.1").read_text() + child.log.read_text()
        assert whole.endswith("the last wordwordword\n")
    assert not open_to_others(child.log.parent)
