"""Everything in this folder kills, suspends or starves real processes, and is marked so."""

from pathlib import Path

import pytest

HERE = Path(__file__).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:  # the hook sees the items of all folders
        if HERE in item.path.parents:
            item.add_marker(pytest.mark.fault)
            item.add_marker(pytest.mark.timeout(300))  # sessions and transactions have to run out
