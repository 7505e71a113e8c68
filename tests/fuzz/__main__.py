"""Fuzz every decoder for a bounded time: ``python -m tests.fuzz [--seconds N] [--keep] [TARGET …]``.

Each target runs in a process of its own. An input that breaks one is written to ``tests/fuzz/found`` and
named; the exit code is 1 then. ``--keep`` adds what has reached new code to the corpus in the repository.
"""

import argparse
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from hashlib import sha1
from pathlib import Path
from typing import Final

from tests.fuzz.seeds import CORPUS, golden_records
from tests.fuzz.targets import TARGETS

FOUND: Final = Path("tests/fuzz/found")
MAX_INPUT_BYTES: Final = 16_384
MAX_CORPUS_BYTES: Final = 2_048
"""Inputs larger than this are not kept: a corpus is read by people, too."""

LAST_LINES: Final = 8
LIMITS: Final = (f"-max_len={MAX_INPUT_BYTES}", "-timeout=10", "-rss_limit_mb=2048")


def main() -> int:
    """Run the targets one after the other; return how many were broken, at most 1."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=int, default=10, help="how long each target is fuzzed")
    parser.add_argument("--keep", action="store_true", help="add new inputs to the corpus")
    parser.add_argument("targets", nargs="*", default=list(TARGETS), metavar="TARGET")
    options = parser.parse_args()
    FOUND.mkdir(exist_ok=True)
    broken = [name for name in options.targets if not _fuzz(name, options.seconds, options.keep)]
    print(f"{len(options.targets)} targets fuzzed, {len(broken)} broken", *broken)
    return int(bool(broken))


def _fuzz(name: str, seconds: int, keep: bool) -> bool:
    """Fuzz one target; return whether it held."""
    with tempfile.TemporaryDirectory() as folder:
        work, seeds = Path(folder, "work"), Path(folder, "seeds")
        work.mkdir()
        _write(seeds, golden_records())
        corpus = CORPUS / name
        corpus.mkdir(parents=True, exist_ok=True)
        artifacts = f"-artifact_prefix={FOUND}/{name}-"
        ended = _run(name, f"-max_total_time={seconds}", artifacts, work, corpus, seeds)
        held = ended.returncode == 0
        said = [line for line in ended.stderr.splitlines() if not line.startswith(("#", "INFO:"))]
        done = next((line for line in reversed(said) if line.startswith("Done")), "")
        print(f"{'holds' if held else 'BROKEN':7} {name:20} {done}", flush=True)
        if not held:  # the traceback, and where the fuzzer has written the input
            print(ended.stdout, "\n".join(said[-LAST_LINES:]), sep="\n", flush=True)
        if keep:
            _run(name, "-merge=1", f"-max_len={MAX_CORPUS_BYTES}", corpus, work)
        return held


def _run(name: str, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "tests.fuzz.one", name, *LIMITS, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, errors="replace", check=False)


def _write(folder: Path, inputs: Iterable[bytes]) -> None:
    folder.mkdir()
    for data in inputs:
        (folder / sha1(data, usedforsecurity=False).hexdigest()).write_bytes(data)


if __name__ == "__main__":
    sys.exit(main())
