"""The pages of the documentation that show commands do what they show, on a running pipeline."""

from __future__ import annotations

import sys
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from readmodels import Queries
from runtime.embedded import ServersAddress
from runtime.settings import Settings
from tests.support.commanding import eventually
from tests.support.pages import carry_out, matches
from tests.support.processes import environment
from tests.support.up import Up

DOCS = Path(__file__).parents[2] / "docs"


@pytest.fixture
def env(servers: ServersAddress, tmp_path: Path) -> Iterator[dict[str, str]]:
    """Environment of a running pipeline; `orderflow` and `python` are those of the tests."""
    env = environment(servers, f"t{uuid.uuid4().hex[:12]}", tmp_path / ".orderflow")
    path = f"{Path(sys.executable).parent}:/usr/bin:/bin"
    with Up(env, tmp_path / "up.log"):
        yield {**env, "PATH": path}


def test_the_page_on_synchronising_with_sql(env: dict[str, str], tmp_path: Path) -> None:
    with Queries(Settings.model_validate(env)) as queries:

        def views_have_caught_up(command: str) -> None:
            if command.startswith("orderflow sync"):
                eventually(lambda: sum(row.lag for row in queries.lag()) == 0)

        assert carry_out(DOCS / "SYNC_SQL.md", env, tmp_path, views_have_caught_up) == 8


def test_output_is_compared_with_what_is_shown() -> None:
    assert matches(["a", "…", "c"], ["a", "b", "b", "c "])
    assert matches(["…"], [])
    assert not matches(["a", "…", "c"], ["a", "c", "d"])
    assert not matches([], ["a"])
