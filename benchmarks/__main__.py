"""Measures on servers of its own; prints tables to standard error and JSON to standard output.

Everything runs on this machine at once, broker and Redis included, so read the ratios: each figure
stands beside a comparator that did the same on the same servers a moment before or after. A part that
fails is reported, the others go on, and the exit code is 1.
"""

import argparse
import json
import os
import signal
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

from rich.console import Console

from benchmarks.bench import Bench
from benchmarks.parts import PARTS, Part, warm_up
from benchmarks.report import Result, as_json, show
from runtime.embedded import EmbeddedServers

COMMANDS = 200_000
SECONDS = 10.0
WARM_UP_S = 60.0
QUICK = 10
"""``--quick``: so much less of everything, and one round."""


def main() -> int:
    """The exit code: 1 when a part failed."""
    options = _options()
    console = Console(stderr=True)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # as Ctrl-C: what was started is stopped
    with tempfile.TemporaryDirectory() as folder, EmbeddedServers(Path(folder)) as servers:
        environment = {
            "KAFKA_BOOTSTRAP_SERVERS": servers.address.bootstrap_servers,
            "REDIS_URL": servers.address.redis_url,
            "ORDERFLOW_HOME": folder,
            "ORDERFLOW_LOG_LEVEL": "WARNING",
        }
        os.environ.update(environment)
        share = QUICK if options.quick else 1
        bench = Bench(
            environment, Path(folder), COMMANDS // share, SECONDS / share**0.5, options.large
        )
        console.print("warming up")
        warm_up(bench, WARM_UP_S / share)
        results = {}
        for name in options.only or _by_default(options.large):
            rounds = options.rounds or (1 if options.quick else PARTS[name].rounds)
            results[name] = run(name, PARTS[name], bench, rounds, console)
    show(results, console)
    text = json.dumps(as_json(results), indent=2)
    if options.json:
        options.json.write_text(text + "\n", encoding="utf-8")
    else:
        print(text)
    if options.plots:
        from benchmarks.plots import draw

        for path in draw(results, options.plots):
            console.print(f"drawn: {path}")
    return 1 if any(result.error for result in results.values()) else 0


def run(name: str, part: Part, bench: Bench, rounds: int, console: Console) -> Result:
    """A part's rounds; whatever goes wrong is its result, so that the others are measured all the same."""
    result = Result()
    began = time.monotonic()
    for turn in range(rounds):
        console.print(f"{name}, round {turn + 1} of {rounds}")
        try:
            result.rounds.append(part.figures(replace(bench, turn=turn)))
        except Exception as error:  # noqa: BLE001 - it is told, and makes the exit code
            result.error = f"{type(error).__name__}: {error}"
            console.print_exception()
            break
    result.seconds = time.monotonic() - began
    return result


def _by_default(large: bool) -> list[str]:
    return [name for name, part in PARTS.items() if large or not part.large]


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a tenth of it, one round")
    parser.add_argument(
        "--large", action="store_true", help="the large parts, too: they take minutes"
    )
    parser.add_argument("--only", nargs="+", choices=PARTS, metavar="NAME", help=", ".join(PARTS))
    parser.add_argument("--rounds", type=int, help="of each part; 3 of most")
    parser.add_argument("--plots", type=Path, metavar="DIR", help="draw what was measured there")
    parser.add_argument("--json", type=Path, metavar="FILE", help="instead of standard output")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
