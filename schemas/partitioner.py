"""murmur2, the partitioner of every official Kafka client.

Source: ``org.apache.kafka.common.utils.Utils.murmur2`` and ``BuiltInPartitioner.partitionForKey``;
librdkafka calls it ``murmur2_random``. Its own default is CRC32, which would put an aggregate
elsewhere.
"""

from functools import lru_cache
from struct import Struct
from typing import Final

_MASK: Final = 0xFFFFFFFF
_M: Final = 0x5BD1E995
_SEED: Final = 0x9747B28C


def murmur2(data: bytes) -> int:
    """32-bit unsigned murmur2 of ``data`` with Kafka's seed."""
    length = len(data)
    h = _SEED ^ length
    for word in _words(length).unpack_from(data):
        k = word * _M & _MASK
        # The low 32 bits of both products, cut once: this is the hot path of every new aggregate.
        h = (h * _M ^ (k ^ k >> 24) * _M) & _MASK
    tail = data[length & ~3 :]
    if tail:
        h = (h ^ int.from_bytes(tail, "little")) * _M & _MASK
    h = (h ^ h >> 13) * _M & _MASK
    return h ^ h >> 15


@lru_cache
def _words(length: int) -> Struct:
    """The whole 32-bit words, little endian, of so many bytes."""
    return Struct(f"<{length // 4}I")


def partition_of(key: bytes, partitions: int) -> int:
    """Partition (0 … partitions-1) of a record key."""
    return (murmur2(key) & 0x7FFFFFFF) % partitions


partition_for: Final = lru_cache(maxsize=4_096)(partition_of)
"""The same, remembered for the latest few thousand keys."""
