"""What a command starts from: its settings, and servers that answer."""

import os
from pathlib import Path

from pydantic import ValidationError

from orderflow.cli.exits import Exit, Refused
from orderflow.servers import check_kafka, check_redis, located
from runtime.redis import connect, is_cluster, new_line
from runtime.settings import KAFKA_OPTION_PREFIX, Settings


def settings() -> Settings:
    """The settings of the environment. Raises Refused, naming the variable that is wrong."""
    _check_encoding()
    try:
        found = Settings()
        _check_redis_url(found)
    except ValidationError as error:
        problems = "; ".join(
            f"{'.'.join(map(str, problem['loc']))}: {problem['msg']}"
            for problem in error.errors(include_url=False, include_input=False)
        )
        raise Refused(problems, "Correct the environment variable.", Exit.USAGE) from None
    return found


def _check_encoding() -> None:
    """Raise Refused for a setting that no client can take: bytes that are no UTF-8."""
    fields = Settings.model_fields.values()
    names = [one.alias for one in fields if one.alias and one.annotation is not Path]
    for name in (*names, *(name for name in os.environ if name.startswith(KAFKA_OPTION_PREFIX))):
        if not _is_utf8(os.environ.get(name, "")):
            raise Refused(f"{name} is no UTF-8 text", "Correct the environment variable.")


def _is_utf8(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _check_redis_url(found: Settings) -> None:
    """Raise Refused for what no client takes for an address; the URL may have a password and is not shown."""
    if not found.redis_url or not found.redis_url.get_secret_value():
        return
    try:
        if is_cluster(found):
            new_line(found)
        else:
            connect(found).connection_pool.make_connection()
    except (ValueError, TypeError):
        raise Refused(
            "REDIS_URL is no address of a Redis server",
            "Write redis://HOST:PORT/0, rediss://… or redis+cluster://HOST:PORT,HOST:PORT, with special "
            "characters of the password as %XX.",
        ) from None


def connected(*, kafka: bool = True, redis: bool = True) -> Settings:
    """Settings whose servers answer. Raises ServersNotFound, KafkaException or RedisError at once."""
    found = located(settings())
    if kafka:
        check_kafka(found)
    if redis:
        check_redis(found)
    return found
