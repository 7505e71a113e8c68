"""`orderflow demo` on servers of its own, as on a fresh machine."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ALONE = {"KAFKA_BOOTSTRAP_SERVERS": "", "REDIS_URL": ""}


def demo(tmp_path: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "orderflow", "demo", *arguments],
        env={**os.environ, **ALONE, "TMPDIR": str(tmp_path), "COLUMNS": "160"},
        capture_output=True,
        text=True,
        timeout=170,
        check=False,
    )


@pytest.mark.slow
def test_the_demo_proves_itself_in_one_json_document_and_leaves_nothing(tmp_path: Path) -> None:
    done = demo(tmp_path, "--orders", "300", "-o", "json")
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert report["surprises"] == report["differences"] == []
    assert report["differences_after_rebuild"] == []
    assert report["rebuild"]["equal"] is True
    assert sum(report["rejected"].values()) > 0
    assert report["repeated"] > 0
    answered = report["accepted"] + report["repeated"] + sum(report["rejected"].values())
    assert answered == report["commands"]
    assert list(tmp_path.glob("orderflow-demo-*")) == []


@pytest.mark.slow
def test_the_demo_shows_the_views_to_people(tmp_path: Path) -> None:
    done = demo(tmp_path, "--orders", "50", "--home", str(tmp_path / "kept"))
    assert done.returncode == 0, done.stderr
    assert "Top users" in done.stdout
    assert "Low stock" in done.stdout
    assert "as planned" in done.stdout
    assert (tmp_path / "kept" / "logs" / "processor.log").exists()
