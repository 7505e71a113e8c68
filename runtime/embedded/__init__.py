"""A real Kafka broker and a real Redis server as children of this process, without Docker.

For development, demos and tests: everything that runs against a cluster runs against these too.
The servers live as long as their owner and not longer, even when the owner is killed; their data
stays in the owner's home folder and is found again at the next start.

    with EmbeddedServers(Path(".orderflow")) as servers:
        print(servers.address.bootstrap_servers, servers.address.redis_url)

Which room is for what: `servers` (both together), `kafka`, `redis` (one server each), `process`
(start, watch, stop any server), `guardian` (the small process in between), `jars` and `java`
(where the broker comes from), `ports`, `locks`, `errors`.
"""

from runtime.embedded.errors import EmbeddedServerError
from runtime.embedded.kafka import EmbeddedKafka
from runtime.embedded.redis import EmbeddedRedis
from runtime.embedded.servers import EmbeddedServers, ServersAddress

__all__ = [
    "EmbeddedKafka",
    "EmbeddedRedis",
    "EmbeddedServerError",
    "EmbeddedServers",
    "ServersAddress",
]
