"""The embedded servers are real, keep their data, and never outlive their owner."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import psutil
import pytest
import redis
from confluent_kafka import Consumer, Producer
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic

from runtime.embedded import EmbeddedKafka, EmbeddedRedis, EmbeddedServerError, EmbeddedServers
from runtime.embedded.jars import LOCK_FILE, Jar, ensure_jars, parse_lock
from runtime.embedded.java import find_java
from runtime.embedded.ports import free_port, parse_port
from runtime.embedded.redis import find_redis_server
from tests.conftest import EmbeddedFactory

TOPIC = "kept"
CLIENT_TIMEOUT_S = 20.0

OWNER = """
import sys, time
from pathlib import Path
from runtime.embedded import EmbeddedServers
with EmbeddedServers(Path(sys.argv[1])) as servers:
    print(servers.kafka.pid, servers.redis.pid, flush=True)
    time.sleep(600)
"""


def write(bootstrap_servers: str, value: bytes) -> None:
    admin = AdminClient({"bootstrap.servers": bootstrap_servers})
    if TOPIC not in admin.list_topics(timeout=CLIENT_TIMEOUT_S).topics:
        admin.create_topics([NewTopic(TOPIC, 1)])[TOPIC].result(CLIENT_TIMEOUT_S)
    producer = Producer({"bootstrap.servers": bootstrap_servers, "acks": "all"})
    producer.produce(TOPIC, value)
    assert producer.flush(CLIENT_TIMEOUT_S) == 0


def read_all(bootstrap_servers: str) -> list[bytes | None]:
    consumer = Consumer(
        {
            "bootstrap.servers": bootstrap_servers,
            "group.id": "reader",
            "auto.offset.reset": "earliest",
            "enable.auto.commit": False,
            "enable.partition.eof": True,
        }
    )
    consumer.subscribe([TOPIC])
    values: list[bytes | None] = []
    try:
        while (message := consumer.poll(CLIENT_TIMEOUT_S)) is not None and not message.error():
            values.append(message.value())
        return values
    finally:
        consumer.close()


def wait_until(condition: Callable[[], bool], within_s: float) -> bool:
    deadline = time.monotonic() + within_s
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True


def is_gone(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def test_both_start_answer_and_stop_and_their_data_is_there_again(
    tmp_path: Path, embedded_factory: EmbeddedFactory
) -> None:
    home = tmp_path / "a home, with ünusual characters"
    first = embedded_factory(home)
    pids = first.kafka.pid, first.redis.pid
    write(first.address.bootstrap_servers, b"one")
    with redis.Redis.from_url(first.address.redis_url) as client:
        client.set("key", "value")
    first.stop()
    assert all(is_gone(pid) for pid in pids)

    second = embedded_factory(home)
    assert read_all(second.address.bootstrap_servers) == [b"one"]
    with redis.Redis.from_url(second.address.redis_url) as client:
        assert client.get("key") == b"value"


def test_redis_runs_scripts_by_hash_and_never_evicts(own_redis: EmbeddedRedis) -> None:
    with redis.Redis.from_url(own_redis.url) as client:
        script = client.register_script("return redis.call('INCRBY', KEYS[1], ARGV[1])")
        assert [script(keys=["n"], args=[2]) for _ in range(2)] == [2, 4]
        assert client.evalsha(script.sha, 1, "n", "1") == 5
        wanted = {"appendonly": "yes", "maxmemory-policy": "noeviction", "bind": "127.0.0.1"}
        assert {name: client.config_get(name)[name] for name in wanted} == wanted


def test_a_killed_owner_takes_both_servers_with_it(tmp_path: Path) -> None:
    owner = subprocess.Popen(
        [sys.executable, "-c", OWNER, str(tmp_path)], stdout=subprocess.PIPE, text=True
    )
    with owner:
        assert owner.stdout is not None
        kafka, store = map(int, owner.stdout.readline().split())
        assert EmbeddedServers.discover(tmp_path) is not None
        owner.send_signal(signal.SIGKILL)
    assert wait_until(lambda: is_gone(kafka) and is_gone(store), within_s=15)
    assert EmbeddedServers.discover(tmp_path) is None, "servers.json of a dead owner is ignored"


def test_a_new_owner_can_start_right_after_the_old_one_was_killed(
    tmp_path: Path, embedded_factory: EmbeddedFactory
) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", OWNER, str(tmp_path)], stdout=subprocess.PIPE, text=True
    ) as owner:
        assert owner.stdout is not None
        owner.stdout.readline()
        owner.kill()
    servers = embedded_factory(tmp_path)
    assert EmbeddedServers.discover(tmp_path) == servers.address


def test_ctrl_c_does_not_reach_the_servers_before_their_owner_stops_them(
    own_redis: EmbeddedRedis,
) -> None:
    assert os.getpgid(own_redis.pid) != os.getpgid(os.getpid())
    assert os.getsid(own_redis.pid) != os.getsid(os.getpid())


def test_a_killed_guardian_takes_its_server_with_it(own_redis: EmbeddedRedis) -> None:
    if not sys.platform.startswith("linux"):
        pytest.skip("only Linux lets a process die with its parent")
    server = own_redis.pid
    guardian = psutil.Process(server).ppid()
    assert psutil.Process(guardian).ppid() == os.getpid()
    os.kill(guardian, signal.SIGKILL)
    assert wait_until(lambda: is_gone(server), within_s=5)


def test_a_second_owner_of_the_same_home_is_refused(
    tmp_path: Path, embedded_factory: EmbeddedFactory
) -> None:
    first = embedded_factory(tmp_path)
    with pytest.raises(
        EmbeddedServerError, match=f"already running, owned by process {os.getpid()}"
    ):
        EmbeddedServers(tmp_path).start()
    assert EmbeddedServers.discover(tmp_path) == first.address, "the first is left as it was"


def test_a_second_server_on_the_same_data_is_refused(
    own_redis: EmbeddedRedis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("runtime.embedded.process.LOCK_WAIT_S", 0.2)
    with pytest.raises(EmbeddedServerError, match="same data folder"):
        EmbeddedRedis(own_redis.home).start()


@pytest.mark.parametrize(
    "content",
    [
        "",
        "[]",
        "{}",
        json.dumps({"owner_pid": os.getpid(), "owner_started": 1.0}),
        json.dumps({"bootstrap_servers": "a:1", "redis_url": "redis://b:2", "owner_pid": 0}),
    ],
    ids=["empty", "no object", "no owner", "pid used again", "no start time"],
)
def test_a_stale_or_damaged_announcement_is_ignored(tmp_path: Path, content: str) -> None:
    assert EmbeddedServers.discover(tmp_path) is None
    (tmp_path / "servers.json").write_text(content)
    assert EmbeddedServers.discover(tmp_path) is None


def test_a_killed_broker_comes_back_on_the_same_port_with_its_data(
    own_kafka: EmbeddedKafka,
) -> None:
    address, pid = own_kafka.bootstrap_servers, own_kafka.pid
    write(address, b"one")
    own_kafka.kill()
    assert is_gone(pid)
    assert not own_kafka.running
    own_kafka.start()
    assert own_kafka.bootstrap_servers == address
    assert own_kafka.pid != pid
    write(address, b"two")
    assert read_all(address) == [b"one", b"two"]


def test_a_broker_that_someone_else_killed_can_be_started_again(own_redis: EmbeddedRedis) -> None:
    url = own_redis.url
    os.kill(own_redis.pid, signal.SIGKILL)
    assert wait_until(lambda: not own_redis.running, within_s=5)
    own_redis.start()
    assert own_redis.url == url


def test_a_port_that_is_taken_is_given_up_for_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.create_server(("127.0.0.1", free_port())) as taken:
        offered = iter([taken.getsockname()[1], free_port()])
        monkeypatch.setattr("runtime.embedded.process.free_port", lambda: next(offered))
        with EmbeddedRedis(tmp_path) as store:
            assert store.port != taken.getsockname()[1]


def test_a_wanted_port_that_stays_taken_is_an_error_with_a_remedy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("runtime.embedded.process.PORT_RETRY_S", 0.01)
    with (
        socket.create_server(("127.0.0.1", free_port())) as taken,
        pytest.raises(EmbeddedServerError, match="Choose another port"),
    ):
        EmbeddedRedis(tmp_path, port=taken.getsockname()[1]).start()


def test_a_server_that_ends_while_starting_shows_the_end_of_its_log(tmp_path: Path) -> None:
    kafka = EmbeddedKafka(tmp_path, heap="1k")
    with pytest.raises(EmbeddedServerError, match=r"(?i)heap"):
        kafka.start()
    assert not kafka.running


def test_the_binaries_of_the_wheels_serve_where_the_machine_has_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, embedded_factory: EmbeddedFactory
) -> None:
    monkeypatch.setattr("shutil.which", lambda _name: None)
    for find in (find_java, find_redis_server):
        find.cache_clear()
    try:
        servers = embedded_factory(tmp_path)
        assert "site-packages" in psutil.Process(servers.kafka.pid).cmdline()[0]
        write(servers.address.bootstrap_servers, b"one")
        assert parse_port(servers.address.bootstrap_servers) == servers.kafka.port
        servers.stop()
    finally:
        for find in (find_java, find_redis_server):
            find.cache_clear()


def smallest_jar() -> Jar:
    return next(j for j in parse_lock(LOCK_FILE.read_text()) if j.artifact == "jspecify")


def test_a_jar_with_the_wrong_checksum_is_refused_and_not_kept(tmp_path: Path) -> None:
    wrong = replace(smallest_jar(), sha256="0" * 64)
    with pytest.raises(EmbeddedServerError, match="not the pinned file"):
        ensure_jars(jars=(wrong,), folder=tmp_path)
    assert not list(tmp_path.rglob("*.jar"))


def test_a_jar_damaged_in_the_cache_is_fetched_again(tmp_path: Path) -> None:
    jar = smallest_jar()
    (path,) = ensure_jars(jars=(jar,), folder=tmp_path)
    good = path.read_bytes()
    path.write_bytes(good[:-1])
    ensure_jars(jars=(jar,), folder=tmp_path)
    assert path.read_bytes() == good


def test_a_warm_cache_touches_no_network_and_a_cold_one_says_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    jar = smallest_jar()
    ensure_jars(jars=(jar,), folder=tmp_path / "warm")
    monkeypatch.setattr("runtime.embedded.jars.RETRY_S", 0.0)
    monkeypatch.setattr("jgo.util.http.get", _no_network)
    ensure_jars(jars=(jar,), folder=tmp_path / "warm")
    with pytest.raises(EmbeddedServerError, match="Connect to the network"):
        ensure_jars(jars=(jar,), folder=tmp_path / "cold")


def test_two_that_fetch_at_once_both_get_whole_files(tmp_path: Path) -> None:
    jar = smallest_jar()
    found: list[bytes] = []

    def fetch() -> None:
        found.extend(path.read_bytes() for path in ensure_jars(jars=(jar,), folder=tmp_path))

    threads = [threading.Thread(target=fetch) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 4
    assert len(set(found)) == 1
    assert not list((tmp_path / "jars").glob(".fetch-*"))


def _no_network(*_: object, **__: object) -> None:
    raise OSError("no network in this test")
