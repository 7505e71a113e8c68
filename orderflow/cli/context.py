"""What a command starts from: its settings, and servers that answer."""

from pydantic import ValidationError

from orderflow.cli.exits import Exit, Refused
from orderflow.servers import check_kafka, check_redis, located
from runtime.settings import Settings


def settings() -> Settings:
    """The settings of the environment. Raises Refused, naming the variable that is wrong."""
    try:
        return Settings()
    except ValidationError as error:
        problems = "; ".join(
            f"{'.'.join(map(str, problem['loc']))}: {problem['msg']}"
            for problem in error.errors(include_url=False, include_input=False)
        )
        raise Refused(problems, "Correct the environment variable.", Exit.USAGE) from None


def connected(*, kafka: bool = True, redis: bool = True) -> Settings:
    """Settings whose servers answer. Raises ServersNotFound, KafkaException or RedisError at once."""
    found = located(settings())
    if kafka:
        check_kafka(found)
    if redis:
        check_redis(found)
    return found
