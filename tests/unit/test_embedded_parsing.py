"""What the embedded servers read from others is understood or refused, never guessed."""

from __future__ import annotations

import re

import pytest

from runtime.embedded.jars import KAFKA, LOCK_FILE, Jar, parse_lock
from runtime.embedded.java import parse_java_version
from runtime.embedded.ports import FIRST_PORT, LAST_PORT, free_port, is_free, parse_port
from runtime.embedded.redis import parse_server_version

SHA = "0123456789abcdef" * 4


@pytest.mark.parametrize(
    ("text", "version"),
    [
        ('openjdk version "17.0.15" 2025-04-15', 17),
        ('openjdk version "25.0.2" 2026-01-20 LTS\nOpenJDK Runtime Environment', 25),
        ('openjdk version "26-ea" 2026-03-17', 26),
        ('java version "1.8.0_392"', 8),
        ('Picked up JAVA_TOOL_OPTIONS: -Xmx1g\nopenjdk version "21" 2023-09-19', 21),
        ("bash: java: command not found", 0),
        ("", 0),
    ],
)
def test_the_java_version_is_read_from_what_java_prints(text: str, version: int) -> None:
    assert parse_java_version(text) == version


@pytest.mark.parametrize(
    ("text", "version"),
    [
        ("Redis server v=7.0.15 sha=00000000:0 malloc=jemalloc-5.3.0 bits=64", (7, 0)),
        ("Valkey server v=9.1.2 sha=00000000:1 malloc=libc bits=64", (9, 1)),
        ("something else", (0, 0)),
    ],
)
def test_the_redis_version_is_read_from_what_the_server_prints(
    text: str, version: tuple[int, int]
) -> None:
    assert parse_server_version(text) == version


def test_the_port_is_read_from_an_address() -> None:
    assert parse_port("127.0.0.1:9092") == 9092
    assert parse_port("[::1]:65535") == 65535


@pytest.mark.parametrize("address", ["", "host", ":9092", "host:", "host:0", "host:65536", "h:x"])
def test_an_address_without_a_port_is_refused(address: str) -> None:
    with pytest.raises(ValueError, match=re.escape(repr(address))):
        parse_port(address)


def test_a_free_port_is_one_that_no_outgoing_connection_gets() -> None:
    port = free_port()
    assert FIRST_PORT <= port <= LAST_PORT
    assert is_free(port)


def test_a_lock_is_read_without_its_comments() -> None:
    text = f"# head\n\norg.example:thing:1.0 {SHA}  # why\n"
    assert parse_lock(text) == (Jar("org.example", "thing", "1.0", SHA),)


@pytest.mark.parametrize("line", ["org.example:thing:1.0", f"org.example:thing {SHA}", "a:b:c 12"])
def test_a_damaged_lock_is_refused_with_its_line(line: str) -> None:
    with pytest.raises(ValueError, match="line 2"):
        parse_lock(f"# head\n{line}\n")


def test_the_lock_pins_the_broker_and_one_version_of_kafka() -> None:
    jars = parse_lock(LOCK_FILE.read_text(encoding="ascii"))
    assert KAFKA in {jar.coordinate for jar in jars}
    assert len({jar.version for jar in jars if jar.group == "org.apache.kafka"}) == 1
    assert len({jar.file_name for jar in jars}) == len(jars), "two jars would share a file"
