"""Standard streams that are closed, full, or not UTF-8: no traceback, and an exit code for scripts."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from orderflow.cli import app, boundary
from orderflow.cli.exits import Exit, Refused

ORDERFLOW = f"{sys.executable} -m orderflow"


def shell(line: str, home: Path, **more: str) -> subprocess.CompletedProcess[bytes]:
    """A line for bash, in which $O is the command; the exit code is that of the first in a pipe."""
    env = os.environ | {"KAFKA_BOOTSTRAP_SERVERS": "", "REDIS_URL": "", "ORDERFLOW_HOME": str(home)}
    return subprocess.run(
        ["bash", "-c", f"{line}; exit ${{PIPESTATUS[0]}}"],
        env=env | {"O": ORDERFLOW} | more,
        capture_output=True,
        timeout=120,
        check=False,
    )


def quiet(done: subprocess.CompletedProcess[bytes]) -> None:
    said = done.stdout + done.stderr
    for word in (b"Traceback", b"Exception ignored", b"Error in sys.excepthook"):
        assert word not in said, said


@pytest.mark.parametrize("command", ["--help", "doctor -o json"])
@pytest.mark.parametrize(
    ("where", "codes"),
    [
        (">/dev/full", {Exit.UNWRITTEN, Exit.USAGE}),
        (">&-", {Exit.UNWRITTEN, Exit.USAGE}),
        ("| true", {Exit.CLOSED, Exit.USAGE, Exit.UNREACHABLE, Exit.OK}),  # if it was quick enough
        (">&- 2>&- <&-", {Exit.UNWRITTEN, Exit.USAGE}),
        ("2>/dev/full", {Exit.OK, Exit.USAGE, Exit.UNREACHABLE}),
        ("2>&-", {Exit.OK, Exit.USAGE, Exit.UNREACHABLE}),
    ],
)
def test_a_stream_that_cannot_be_written(
    command: str, where: str, codes: set[Exit], tmp_path: Path
) -> None:
    done = shell(f"$O {command} {where}", tmp_path)
    quiet(done)
    assert done.returncode in codes, done
    if done.returncode == Exit.UNWRITTEN and "2>" not in where:
        assert done.stderr.startswith(b"Error: standard output: "), done


def test_a_reader_that_goes_away_is_told_by_the_exit_code(tmp_path: Path) -> None:
    done = shell("$O doctor -o json | (exec <&-; sleep 5)", tmp_path)
    quiet(done)
    assert done.returncode == Exit.CLOSED


@pytest.mark.parametrize(
    "streams",
    [
        {"PYTHONIOENCODING": "ascii"},
        {"PYTHONIOENCODING": "latin-1"},
        {"PYTHONIOENCODING": "utf-16"},
        {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"},
    ],
    ids=lambda streams: next(iter(streams.values())),
)
def test_a_stream_that_is_not_utf_8(streams: dict[str, str], tmp_path: Path) -> None:
    home = tmp_path / "é☃\u202e"
    for command in ("--help", "doctor -o json"):
        done = shell(f"$O {command}", home, **streams)
        quiet(done)
        assert done.returncode in {Exit.OK, Exit.USAGE, Exit.UNREACHABLE}, done
        if command.endswith("json"):
            encoding = streams.get("PYTHONIOENCODING", "ascii")
            found = json.loads(done.stdout.decode(encoding))
            assert any("é☃\u202e" in finding["found"] for finding in found)


@pytest.mark.parametrize(("stdin", "code"), [("<&-", Exit.USAGE), ("</dev/null", Exit.UNREACHABLE)])
def test_a_standard_input_that_is_closed_or_empty(stdin: str, code: Exit, tmp_path: Path) -> None:
    done = shell(f"$O dead-letters edit 0-1 --by ann --record @- {stdin}", tmp_path)
    quiet(done)
    assert done.returncode == code, done


def test_a_supervised_role_without_standard_input_ends(tmp_path: Path) -> None:
    done = shell("$O projector <&-", tmp_path, ORDERFLOW_SUPERVISED="1")
    quiet(done)
    assert done.returncode in {Exit.UNREACHABLE, -15, 143}, done


def failing(error: Exception) -> object:
    def command() -> object:
        raise error

    return command


def test_a_bug_is_told_from_every_expected_failure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("ORDERFLOW_HOME", str(tmp_path))
    for text in ("first \x1b[2J", "second"):
        assert boundary.run(failing(KeyError(text)), ["send"]) == Exit.BUG  # type: ignore[arg-type]
    said = capsys.readouterr()
    assert said.out == ""
    assert "Traceback" not in said.err
    assert "\x1b" not in said.err
    assert "this is a bug in orderflow: KeyError" in said.err
    (file,) = (tmp_path / "logs").iterdir()  # the same bug is kept once
    assert "KeyError: 'second'" in file.read_text()
    assert file.stat().st_mode & 0o077 == 0
    assert boundary.run(failing(Refused("no", "yes")), []) == Exit.USAGE  # type: ignore[arg-type]


def test_a_bug_is_shown_whole_to_whoever_asks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("ORDERFLOW_HOME", str(tmp_path))
    monkeypatch.setenv("ORDERFLOW_LOG_LEVEL", "DEBUG")
    assert boundary.run(failing(KeyError("x")), []) == Exit.BUG  # type: ignore[arg-type]
    assert "Traceback" in capsys.readouterr().err


def test_a_bug_leaves_its_traceback_elsewhere_when_the_home_is_no_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    home = tmp_path / "file"
    home.touch()
    monkeypatch.setenv("ORDERFLOW_HOME", str(home))
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    assert boundary.run(failing(KeyError("x")), []) == Exit.BUG  # type: ignore[arg-type]
    assert str(tmp_path / "bug-KeyError") in capsys.readouterr().err.replace("\n", "")


def test_ctrl_c_is_no_failure(tmp_path: Path) -> None:
    def command() -> object:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        boundary.run(command, [])
    assert CliRunner().invoke(app, ["--help"]).exit_code == Exit.OK
