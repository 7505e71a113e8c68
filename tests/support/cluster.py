"""A real Redis Cluster: three masters with a replica each, to kill, and to move slots between."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, Final

import redis
from redis.cluster import ClusterNode, RedisCluster

from runtime.embedded import EmbeddedRedis
from runtime.embedded.ports import LOOPBACK, free_port
from tests.support.commanding import eventually

MASTERS: Final = 3
SLOTS: Final = 16_384
NODE_TIMEOUT_MS: Final = 1_500  # after twice as long a replica has taken over
READY_WITHIN_S: Final = 30.0
MEMORY: Final = "64mb"


class Node(EmbeddedRedis):
    """One server of the cluster."""

    def __init__(self, home: Path) -> None:
        super().__init__(home)
        self.bus = free_port()

    def _command(self, port: int) -> list[str]:
        options = {
            "cluster-enabled": "yes",
            "cluster-port": str(self.bus),
            "cluster-node-timeout": str(NODE_TIMEOUT_MS),
            "cluster-replica-validity-factor": "0",  # it takes over however far it is behind
            "maxmemory": MEMORY,
            "repl-diskless-sync-delay": "0",
        }
        return [*super()._command(port), *(w for k, v in options.items() for w in (f"--{k}", v))]

    @property
    def client(self) -> Any:
        """Of this server alone."""
        return redis.Redis(LOOPBACK, self.port, decode_responses=True)

    def cluster(self, what: str, *arguments: str | int) -> Any:
        """CLUSTER …, of this node."""
        with self.client as client:
            return client.execute_command(f"CLUSTER {what}", *arguments)

    @property
    def id(self) -> str:
        """What the others call it."""
        return str(self.cluster("MYID"))

    @property
    def is_master(self) -> bool:
        """Whether it takes writes."""
        with self.client as client:
            return bool(client.info("replication")["role"] == "master")

    def is_well(self, nodes: int) -> bool:
        """Whether it sees a whole cluster of so many nodes, and follows its master if it has one."""
        info = self.cluster("INFO")
        with self.client as client:
            link = client.info("replication").get("master_link_status", "up")
        return bool(
            info["cluster_state"] == "ok"
            and int(info["cluster_known_nodes"]) == nodes
            and link == "up"
        )


class Cluster:
    """``nodes``: the masters, then their replicas in the same order."""

    def __init__(self, nodes: Sequence[Node]) -> None:
        self.nodes = nodes

    @property
    def url(self) -> str:
        """For REDIS_URL."""
        return f"redis+cluster://{','.join(f'{LOOPBACK}:{node.port}' for node in self.nodes)}"

    def client(self) -> Any:
        """The library's own client, to look with eyes that are not ours."""
        seeds = [ClusterNode(LOOPBACK, node.port) for node in self.nodes if node.running]
        return RedisCluster(startup_nodes=seeds, decode_responses=True)

    def whose(self, key: str) -> Node:
        """The master that serves a key."""
        with self.client() as client:
            port = client.get_node_from_key(key).port
        return next(node for node in self.nodes if node.port == port)

    def replica_of(self, master: Node) -> Node:
        """The other one of a pair."""
        at = self.nodes.index(master)
        return self.nodes[(at + MASTERS) % len(self.nodes)]

    def settle(self) -> None:
        """Wait until all nodes that run are in order."""
        alive = [node for node in self.nodes if node.running]
        eventually(lambda: all(one.is_well(len(self.nodes)) for one in alive), READY_WITHIN_S)


@contextmanager
def running_cluster(home: Path) -> Iterator[Cluster]:
    """Started, joined and in order; all of it is stopped in the end."""
    nodes = [Node(home / f"node-{number}") for number in range(2 * MASTERS)]
    try:
        with ThreadPoolExecutor(len(nodes)) as pool:
            list(pool.map(Node.start, nodes))
        cluster = Cluster(nodes)
        _join(cluster)
        yield cluster
    finally:
        with ThreadPoolExecutor(len(nodes)) as pool:
            list(pool.map(Node.stop, nodes))


def _join(cluster: Cluster) -> None:
    first, *others = cluster.nodes
    masters, replicas = cluster.nodes[:MASTERS], cluster.nodes[MASTERS:]
    for epoch, node in enumerate(cluster.nodes, 1):
        node.cluster("SET-CONFIG-EPOCH", epoch)
    for number, node in enumerate(masters):
        begin, end = (SLOTS * n // MASTERS for n in (number, number + 1))
        node.cluster("ADDSLOTSRANGE", begin, end - 1)
    for node in others:
        first.cluster("MEET", LOOPBACK, node.port, node.bus)
    for master, replica in zip(masters, replicas, strict=True):
        eventually(partial(_followed, replica, master.id), READY_WITHIN_S)
    cluster.settle()


def _followed(replica: Node, master: str) -> bool:
    """A node that has not heard of another one yet does not follow it."""
    try:
        replica.cluster("REPLICATE", master)
    except redis.ResponseError:
        return False
    return True
