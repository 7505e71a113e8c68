"""docs/VIEWS.md, carried out."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from runtime.embedded import EmbeddedRedis, ServersAddress
from tests.support.pages import carry_out
from tests.support.processes import environment
from tests.support.up import Up

PAGE = Path(__file__).parents[2] / "docs" / "VIEWS.md"


@pytest.mark.timeout(600)
def test_the_page_about_views_is_as_it_says(
    servers: ServersAddress, own_redis: EmbeddedRedis, prefix: str, tmp_path: Path
) -> None:
    own = ServersAddress(servers.bootstrap_servers, own_redis.url)
    env = environment(own, prefix, tmp_path / "home")
    env["PATH"] = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    with Up(env, tmp_path / "up.log"):
        assert carry_out(PAGE, env, tmp_path) > 15
