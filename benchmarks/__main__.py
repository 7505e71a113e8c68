"""``make bench``: starts its own servers, measures each figure of the README, prints a table and JSON.

Everything runs on this machine at once, broker and Redis included, so read the ratios. ``--quick``
takes a tenth of the records.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from rich.console import Console
from rich.table import Table

from benchmarks import latency, processing, projecting, rebuilding, workload
from runtime import topic_admin
from runtime.embedded import EmbeddedServers
from runtime.settings import Settings

COMMANDS = 200_000
ROUNDS = 3
LATENCY_S = 10.0
Rows = dict[str, list[dict[str, float]]]


def main() -> None:
    """Measures and prints; the JSON goes to standard output, everything else to standard error."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a tenth of the records, one round")
    quick = parser.parse_args().quick
    count, rounds = (COMMANDS // 10, 1) if quick else (COMMANDS, ROUNDS)
    console = Console(stderr=True)
    with tempfile.TemporaryDirectory() as folder, EmbeddedServers(Path(folder)) as servers:
        environment = {
            "KAFKA_BOOTSTRAP_SERVERS": servers.address.bootstrap_servers,
            "REDIS_URL": servers.address.redis_url,
            "ORDERFLOW_HOME": folder,
            "ORDERFLOW_LOG_LEVEL": "WARNING",
        }
        os.environ.update(environment)
        rows = measure(Path(folder), environment, count, rounds, console)
    show(rows, console)
    json.dump(rows, sys.stdout, indent=2)


def measure(
    home: Path, environment: dict[str, str], count: int, rounds: int, console: Console
) -> Rows:
    """Every figure, each in ``rounds`` alternations with its comparator."""
    rows: Rows = {"processing": [], "projecting": [], "rebuilding": [], "latency": []}
    for number in range(rounds):
        prefix = f"bench-{number}"
        here = {**environment, "ORDERFLOW_TOPIC_PREFIX": prefix}
        settings = Settings.model_validate({**here, "ORDERFLOW_BATCH_SIZE": processing.BATCH})
        topic_admin.apply(settings)
        console.print(f"round {number + 1} of {rounds}: {count} commands")
        workload.fill_orders(settings, count)
        rows["processing"].append(processing.pair(settings, count))
        rows["projecting"].append(projecting.pair(settings, here))
        rows["rebuilding"].append(rebuilding.pair(settings))
    rows["latency"].append(_latency(home, environment))
    return rows


def _latency(home: Path, environment: dict[str, str]) -> dict[str, float]:
    here = {
        **environment,
        "ORDERFLOW_TOPIC_PREFIX": "bench-latency",
        "ORDERFLOW_HOME": str(home / "latency"),
    }
    settings = Settings.model_validate(here)
    topic_admin.apply(settings)
    roles = [
        subprocess.Popen([sys.executable, "-m", module], env={**os.environ, **here})
        for module in ("processors", "readmodels")
    ]
    try:
        time.sleep(6)  # both have their partitions by then; the first command waits in any case
        result: dict[str, float] = {}
        for per_second in (200, 2_000):
            found = latency.send_to_outcome(settings, per_second, LATENCY_S)
            result |= {f"send-outcome at {per_second}/s, {k}": v for k, v in found.items()}
        found = latency.send_to_visible(settings, 200)
        return result | {f"send-visible, {k}": v for k, v in found.items()}
    finally:
        for role in roles:
            role.terminate()
        for role in roles:
            role.wait(30)


def show(rows: Rows, console: Console) -> None:
    """Median and range of each figure."""
    table = Table("what", "median", "lowest", "highest")
    for name, results in rows.items():
        for figure in results[0]:
            values = [result[figure] for result in results]
            table.add_row(
                f"{name}: {figure}",
                *(
                    f"{value:,.2f}"
                    for value in (statistics.median(values), min(values), max(values))
                ),
            )
    console.print(table)


if __name__ == "__main__":
    main()
