"""``make bench``: starts its own servers, measures each figure of the README, prints a table and JSON.

Everything runs on this machine at once, broker and Redis included, so read the ratios. The first round
is not counted: a broker that was just started is slow for its first minute. ``--quick`` takes a tenth
of the records.
"""

import argparse
import json
import os
import statistics
import sys
import tempfile
from pathlib import Path

from rich.console import Console
from rich.table import Table

from benchmarks import latency, placing, processing, projecting, reading, rebuilding, workload
from benchmarks.roles import running
from runtime import topic_admin
from runtime.embedded import EmbeddedServers
from runtime.settings import Settings

COMMANDS = 200_000
ROUNDS = 3
ORDERS = 4_000
LATENCY_S = 10.0
WARM_UP_S = 15.0
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
        rows = measure(environment, count, rounds, console)
    show(rows, console)
    json.dump(rows, sys.stdout, indent=2)


def measure(environment: dict[str, str], count: int, rounds: int, console: Console) -> Rows:
    """Every figure, each in ``rounds`` alternations with its comparator."""
    rows: Rows = {
        name: []
        for name in ("processing", "projecting", "rebuilding", "reading", "latency", "placing")
    }
    for number in range(rounds + 1):
        console.print(f"round {number} of {rounds}: {count} commands" if number else "warming up")
        here = {**environment, "ORDERFLOW_TOPIC_PREFIX": f"bench-{number}"}
        settings = Settings.model_validate(here)
        topic_admin.apply(settings)
        workload.fill_orders(settings, count)
        found = {
            "processing": processing.pair(settings, here, count),
            "projecting": projecting.pair(settings, here),
            "rebuilding": rebuilding.pair(settings),
            "reading": reading.figures(settings, count),
            "latency": _latency(environment, number),
            "placing": _placing(environment, number, count),
        }
        for name, figures in found.items() if number else ():
            rows[name].append(figures)
    return rows


def _latency(environment: dict[str, str], number: int) -> dict[str, float]:
    """Under a prefix of its own. First the processor alone, then with a projector beside it."""
    here = {**environment, "ORDERFLOW_TOPIC_PREFIX": f"bench-latency-{number}"}
    settings = Settings.model_validate(here)
    topic_admin.apply(settings)
    result: dict[str, float] = {}

    def outcomes(per_second: int, beside: str = "") -> None:
        found = latency.send_to_outcome(settings, per_second, LATENCY_S)
        result.update({f"outcome at {per_second}/s{beside}, {k}": v for k, v in found.items()})

    with running("processors", here):
        latency.send_to_outcome(settings, 200, WARM_UP_S)
        outcomes(200)
        outcomes(2_000)
        with running("readmodels", here):
            latency.send_to_visible(settings, 20)  # waits until it is at work
            outcomes(200, " with a projector")
            found = latency.send_to_visible(settings, 200)
            result.update({f"visible, one by one, {k}": v for k, v in found.items()})
    return result


def _placing(environment: dict[str, str], number: int, count: int) -> dict[str, float]:
    """Orders through all roles, under a prefix of their own."""
    here = {**environment, "ORDERFLOW_TOPIC_PREFIX": f"bench-placing-{number}"}
    return placing.figures(here, ORDERS * count // COMMANDS)


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
