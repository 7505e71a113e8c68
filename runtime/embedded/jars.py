"""The broker's jars: pinned by checksum in `kafka.lock`, fetched once, kept in a cache folder.

    python -m runtime.embedded            fetch what is missing (useful before going offline)
    python -m runtime.embedded --relock   resolve KAFKA again and rewrite kafka.lock

With a warm cache no network is touched. The checksums are compared at every start, so a damaged or
exchanged file never gets to run. Several processes may fetch at once: one does, the others wait.
"""

from __future__ import annotations

import hashlib
import os
import re
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path

from runtime.embedded.errors import EmbeddedServerError
from runtime.embedded.locks import FileLock

# The broker; everything it needs is resolved from it. Not 4.3.0 to 4.4.0: a restarting broker loses
# markers of committed transactions (KAFKA-20734), and then no processor works again.
KAFKA = "org.apache.kafka:kafka_2.13:4.2.1"
EXTRAS = ("org.apache.logging.log4j:log4j-slf4j-impl:2.25.5",)  # logging backend, alone

LOCK_FILE = Path(__file__).with_name("kafka.lock")

THREADS = 6  # the jars are few and small: more threads are not faster, and not polite
ATTEMPTS = 3  # for each jar: one dropped connection should not fail a first run
RETRY_S = 1.0  # grows with the attempt
TIMEOUT_S = 30  # for connecting and between two reads

OnProgress = Callable[[str, float | None], None]  # what is going on, and how far (0..1) if known


@dataclass(frozen=True, slots=True)
class Jar:
    """One pinned file of the Maven repository."""

    group: str
    artifact: str
    version: str
    sha256: str

    @property
    def coordinate(self) -> str:
        return f"{self.group}:{self.artifact}:{self.version}"

    @property
    def file_name(self) -> str:
        return f"{self.artifact}-{self.version}.jar"


def parse_lock(text: str) -> tuple[Jar, ...]:
    """Read `group:artifact:version sha256` lines; blank lines and # comments are skipped.

    Raises ValueError with the line number for a line of another shape.
    """
    jars = []
    for number, line in enumerate(text.splitlines(), start=1):
        content = line.partition("#")[0].strip()
        if not content:
            continue
        match = re.fullmatch(r"([\w.-]+):([\w.-]+):([\w.-]+)\s+([0-9a-f]{64})", content)
        if match is None:
            raise ValueError(f"line {number} is not `group:artifact:version sha256`: {line!r}")
        jars.append(Jar(*match.groups()))
    return tuple(jars)


def cache_folder() -> Path:
    """`ORDERFLOW_CACHE`, else `orderflow` in the user's cache folder. Nothing is created."""
    chosen = os.environ.get("ORDERFLOW_CACHE")
    if chosen:
        return Path(chosen).expanduser().absolute()
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "orderflow"


def ensure_jars(
    on_progress: OnProgress | None = None,
    *,
    jars: tuple[Jar, ...] | None = None,
    folder: Path | None = None,
) -> tuple[Path, ...]:
    """Paths of all pinned jars, in the lock's order, fetched if missing and verified in any case.

    Raises EmbeddedServerError if one cannot be fetched or is not what the lock says.
    """
    wanted = parse_lock(LOCK_FILE.read_text()) if jars is None else jars
    target = (folder or cache_folder()) / "jars"
    report = on_progress or (lambda _message, _fraction: None)
    if _missing(wanted, target):
        _fetch_missing(wanted, target, report)
    return tuple(target / jar.file_name for jar in wanted)


def _missing(jars: tuple[Jar, ...], folder: Path) -> tuple[Jar, ...]:
    """Those not in the folder with the right content; hashing releases the GIL, so in threads."""
    with ThreadPoolExecutor(THREADS) as threads:
        there = threads.map(lambda jar: _sha256(folder / jar.file_name) == jar.sha256, jars)
        return tuple(jar for jar, ok in zip(jars, there, strict=True) if not ok)


def _sha256(path: Path) -> str | None:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except FileNotFoundError:
        return None


def _fetch_missing(jars: tuple[Jar, ...], folder: Path, report: OnProgress) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / ".lock")
    if not lock.acquire(blocking=False):
        report("waiting for another process that is fetching Kafka", None)
        lock.acquire(blocking=True)
    try:
        missing = _missing(jars, folder)  # again: the other process may have fetched them
        with ThreadPoolExecutor(THREADS) as threads:
            fetches = [threads.submit(_fetch, jar, folder) for jar in missing]
            try:
                for done, fetch in enumerate(as_completed(fetches), start=1):
                    fetch.result()
                    report(f"fetching Kafka: {done} of {len(missing)} files", done / len(missing))
            except BaseException:
                threads.shutdown(wait=False, cancel_futures=True)
                raise
    finally:
        lock.release()


def _fetch(jar: Jar, folder: Path) -> None:
    """Download into a private folder, verify, move into place: a file in the cache is whole."""
    with tempfile.TemporaryDirectory(dir=folder, prefix=".fetch-") as private:
        path = _download(jar.coordinate, Path(private))
        found = _sha256(path)
        if found != jar.sha256:
            raise EmbeddedServerError(
                f"{jar.coordinate} was fetched but is not the pinned file: its SHA-256 is {found}, "
                f"expected {jar.sha256}. Something between here and the Maven repository changes "
                "files; it was not kept. Try another network."
            )
        path.replace(folder / jar.file_name)


def _download(coordinate: str, repository: Path) -> Path:
    """Fetch one jar into a Maven-style repository folder. Raises EmbeddedServerError."""
    import requests
    from jgo.maven import MavenContext

    for attempt in range(1, ATTEMPTS + 1):
        # A new folder for each attempt: a broken download would be taken for a finished one.
        context = MavenContext(repo_cache=repository / str(attempt), timeout=TIMEOUT_S)
        try:
            return context.create_dependency(coordinate).artifact.resolve()
        except (requests.RequestException, RuntimeError, OSError) as error:
            if attempt == ATTEMPTS:
                raise EmbeddedServerError(
                    f"{coordinate} could not be fetched: {type(error).__name__}. Kafka is fetched "
                    "once, from the Maven repository, and then kept. Connect to the network and "
                    "run `python -m runtime.embedded`, or copy the cache folder "
                    f"({cache_folder()}) from a machine that has it, or set "
                    "KAFKA_BOOTSTRAP_SERVERS to use a broker of your own."
                ) from error
            time.sleep(RETRY_S * attempt)
    raise AssertionError("unreachable")


def relock() -> str:
    """Resolve KAFKA and EXTRAS, fetch everything, and give the text of the lock.

    Raises EmbeddedServerError if a jar cannot be fetched or the resolved set mixes Kafka versions.
    """
    from jgo.maven import MavenContext

    with tempfile.TemporaryDirectory() as private:
        context = MavenContext(repo_cache=Path(private), timeout=TIMEOUT_S)
        # EXTRAS are added after resolution: as further roots, their own version management would
        # decide over the broker's dependencies.
        roots, others = context.resolver.resolve([context.create_dependency(KAFKA)])
        found = {f"{d.groupId}:{d.artifactId}:{d.version}" for d in (*roots, *others)}
        group, _, version = KAFKA.split(":")
        mixed = [c for c in found if c.startswith(f"{group}:") and not c.endswith(f":{version}")]
        if mixed:
            raise EmbeddedServerError(f"Kafka's jars resolve to more than one version: {mixed}")
        lines = [
            f"{coordinate} {_sha256(_download(coordinate, Path(private)))}"
            for coordinate in sorted(found | set(EXTRAS))
        ]
    header = f"# {KAFKA} and all it needs to run; made by: python -m runtime.embedded --relock"
    return "\n".join((header, *lines, ""))
