"""A real Apache Kafka of this process' own: KRaft, one node that is broker and controller.

Everything is in `<home>/kafka`: settings, formatted once, and the log segments under `data`. It is
the same cluster, with the same cluster id, at every start on that folder, whatever its port.
"""

from __future__ import annotations

import base64
import shutil
import subprocess
import uuid
from pathlib import Path

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient

from runtime.embedded.errors import EmbeddedServerError
from runtime.embedded.jars import OnProgress, ensure_jars
from runtime.embedded.java import find_java
from runtime.embedded.ports import LOOPBACK, accepts_connections, free_port
from runtime.embedded.process import ServerProcess

LOGGING = Path(__file__).with_name("log4j2.properties")

FORMAT_DEADLINE_S = 60.0  # takes about a second; done once for a data folder
REQUEST_TIMEOUT_S = 5.0  # for one request of the readiness check

JVM_OPTIONS = (
    "-XX:+UseG1GC",
    "-XX:MaxGCPauseMillis=20",  # as Kafka's own start script: pauses show up as latency
    "-XX:InitiatingHeapOccupancyPercent=35",
    "-XX:+ExplicitGCInvokesConcurrent",
    "-XX:+ExitOnOutOfMemoryError",  # a broker that limps on is worse than one that is gone
    "-Djava.awt.headless=true",
)

# Every path is relative to the working folder, so that no character of the home's path matters.
BROKER_OPTIONS = {
    "process.roles": "broker,controller",
    "node.id": "1",
    "controller.listener.names": "CONTROLLER",
    "log.dirs": "data",
    # Topics are made on purpose, with their partitions and policies; a typo must not make one.
    "auto.create.topics.enable": "false",
    # One node: a second replica would wait for ever.
    "default.replication.factor": "1",
    "min.insync.replicas": "1",
    "offsets.topic.replication.factor": "1",
    "transaction.state.log.replication.factor": "1",
    "transaction.state.log.min.isr": "1",
    "share.coordinator.state.topic.replication.factor": "1",
    "share.coordinator.state.topic.min.isr": "1",
    # 50 partitions each by default: creating them delays the first group and transaction.
    "offsets.topic.num.partitions": "8",
    "transaction.state.log.num.partitions": "8",
    "share.coordinator.state.topic.num.partitions": "8",
    # Offsets say what is decided: they must outlast a pipeline that is stopped for long. A year.
    "offsets.retention.minutes": "525600",
    # Start consuming at once, and let tests have short sessions, to see a zombie fenced soon.
    "group.initial.rebalance.delay.ms": "0",
    "group.min.session.timeout.ms": "1000",
    # A dead writer's transaction holds back readers until it is aborted: look every second.
    "transaction.abort.timed.out.transaction.cleanup.interval.ms": "1000",
    # After a crash the node must not wait for its own old session to expire before it registers.
    "broker.session.timeout.ms": "3000",
    "broker.heartbeat.interval.ms": "500",
    # Compaction and retention within seconds, where a topic asks for them with a small segment.ms.
    "log.cleaner.backoff.ms": "200",
    "log.cleaner.dedupe.buffer.size": str(32 * 1024 * 1024),  # 128 MiB of the heap by default
    "log.initial.task.delay.ms": "1000",
    "log.retention.check.interval.ms": "5000",
    "log.segment.delete.delay.ms": "1000",
    "message.max.bytes": str(8 * 1024 * 1024),  # oversized is for the pipeline to judge
    "metric.reporters": "",  # no JMX
}


class EmbeddedKafka(ServerProcess):
    """A Kafka broker on the loopback address; its data is in `<home>/kafka`.

    `heap` is the JVM's, as in `-Xmx`. `on_progress` hears about the first download.
    """

    name = "kafka"
    start_deadline_s = 90.0  # 2 s usually; recovery of a large log after a crash takes longer
    stop_grace_s = 10.0  # a third of a second usually

    def __init__(
        self,
        home: Path,
        *,
        heap: str = "768m",
        port: int | None = None,
        on_progress: OnProgress | None = None,
    ) -> None:
        super().__init__(home, port=port)
        self._heap = heap
        self._on_progress = on_progress
        self._classpath = ""

    @property
    def bootstrap_servers(self) -> str:
        """For Kafka clients, `host:port`. Raises EmbeddedServerError before the first start."""
        return f"{LOOPBACK}:{self.port}"

    def _prepare(self) -> None:
        self._classpath = ":".join(map(str, ensure_jars(self._on_progress)))
        shutil.copyfile(LOGGING, self.data / LOGGING.name)
        if _read_cluster_id(self.data) is None:
            self._format()

    def _format(self) -> None:
        """Make the data folder a new cluster's. Interrupted midway, the next start repeats it."""
        self._write_settings(free_port())
        cluster_id = _new_cluster_id()
        tool = ("kafka.tools.StorageTool", "format", "--ignore-formatted", "-t", cluster_id)
        done = subprocess.run(
            [*self._java("128m"), "-XX:TieredStopAtLevel=1", *tool, "-c", "server.properties"],
            cwd=self.data,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=FORMAT_DEADLINE_S,
            check=False,
        )
        if done.returncode != 0:
            raise EmbeddedServerError(
                f"The data folder {self.data} could not be prepared for Kafka. Is the disk full or "
                f"read-only? The format tool says:\n{done.stdout[-2_000:]}"
            )

    def _command(self, port: int) -> list[str]:
        self._write_settings(port)
        return [*self._java(self._heap), *JVM_OPTIONS, "kafka.Kafka", "server.properties"]

    def _java(self, heap: str) -> list[str]:
        logging = f"-Dlog4j2.configurationFile={LOGGING.name}"
        return [str(find_java()), f"-Xms{heap}", f"-Xmx{heap}", "-cp", self._classpath, logging]

    def _write_settings(self, port: int) -> None:
        controller = free_port()
        while controller == port:
            controller = free_port()
        listeners = f"PLAINTEXT://{LOOPBACK}:{port},CONTROLLER://{LOOPBACK}:{controller}"
        options = BROKER_OPTIONS | {
            "listeners": listeners,
            "advertised.listeners": listeners,
            "controller.quorum.voters": f"1@{LOOPBACK}:{controller}",
        }
        text = "".join(f"{key}={value}\n" for key, value in options.items())
        (self.data / "server.properties").write_text(text, encoding="ascii")

    def _is_ready(self, port: int, within_s: float) -> bool:
        timeout = min(within_s, REQUEST_TIMEOUT_S)
        if not accepts_connections(port, timeout):  # spares the client's own, slower, retries
            return False
        admin = AdminClient({"bootstrap.servers": f"{LOOPBACK}:{port}", "log_level": 0})
        try:
            metadata = admin.list_topics(timeout=timeout)
        except KafkaException:
            return False
        return bool(metadata.brokers) and metadata.cluster_id == _read_cluster_id(self.data)


def _new_cluster_id() -> str:
    """A random id as Kafka writes them: 16 bytes, URL-safe base64. A leading - would be a flag."""
    while True:
        text = base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")
        if not text.startswith("-"):
            return text


def _read_cluster_id(folder: Path) -> str | None:
    """The id that the folder was formatted with; None if it is not formatted."""
    try:
        lines = (folder / "data" / "meta.properties").read_text(encoding="ascii").splitlines()
    except FileNotFoundError:
        return None
    found = (line.partition("=")[2] for line in lines if line.startswith("cluster.id="))
    return next(found, None)
