"""murmur2, the partitioner of every official Kafka client.

Source: ``org.apache.kafka.common.utils.Utils.murmur2`` and ``BuiltInPartitioner.partitionForKey``;
librdkafka calls it ``murmur2_random``. Its own default is CRC32, which would put an aggregate
elsewhere.
"""

from functools import lru_cache
from typing import Final

_MASK: Final = 0xFFFFFFFF
_M: Final = 0x5BD1E995
_SEED: Final = 0x9747B28C


def murmur2(data: bytes) -> int:
    """32-bit unsigned murmur2 of ``data`` with Kafka's seed."""
    length = len(data)
    h = _SEED ^ length
    body = length & ~3
    for i in range(0, body, 4):
        k = (int.from_bytes(data[i : i + 4], "little") * _M) & _MASK
        k = ((k ^ (k >> 24)) * _M) & _MASK
        h = ((h * _M) & _MASK) ^ k
    tail = data[body:]
    if tail:
        h = ((h ^ int.from_bytes(tail, "little")) * _M) & _MASK
    h = ((h ^ (h >> 13)) * _M) & _MASK
    return h ^ (h >> 15)


@lru_cache(maxsize=65_536)
def partition_for(key: bytes, partitions: int) -> int:
    """Partition (0 … partitions-1) of a record key; remembered for the busiest 65,536 keys."""
    return (murmur2(key) & 0x7FFFFFFF) % partitions
