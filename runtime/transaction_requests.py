"""Requests about transactions that no client library of the product has, for aiokafka to send (KIP-664)."""

from typing import Any, Final

from aiokafka.protocol.api import Request, RequestStruct, Response
from aiokafka.protocol.types import (
    Boolean,
    CompactArray,
    CompactString,
    Int16,
    Int32,
    Int64,
    Schema,
    TaggedFields,
)

ABORT: Final = False
"""What a marker says of a transaction."""

_TAGS: Final = ("tags", TaggedFields)


class DescribeProducersResponse(Response):  # type: ignore[misc]
    """Who writes to a partition in a transaction."""

    API_KEY = 61
    API_VERSION = 0
    SCHEMA = Schema(
        ("throttle_time_ms", Int32),
        (
            "topics",
            CompactArray(
                ("name", CompactString("utf-8")),
                (
                    "partitions",
                    CompactArray(
                        ("partition", Int32),
                        ("error_code", Int16),
                        ("error_message", CompactString("utf-8")),
                        (
                            "producers",
                            CompactArray(
                                ("producer_id", Int64),
                                ("producer_epoch", Int32),
                                ("last_sequence", Int32),
                                ("last_timestamp", Int64),
                                ("coordinator_epoch", Int32),
                                ("transaction_start_offset", Int64),
                                _TAGS,
                            ),
                        ),
                        _TAGS,
                    ),
                ),
                _TAGS,
            ),
        ),
        _TAGS,
    )


class DescribeProducersRequest(RequestStruct):  # type: ignore[misc]
    """Version 0."""

    API_KEY = 61
    API_VERSION = 0
    FLEXIBLE_VERSION = True
    RESPONSE_TYPE = DescribeProducersResponse
    SCHEMA = Schema(
        (
            "topics",
            CompactArray(
                ("name", CompactString("utf-8")), ("partitions", CompactArray(Int32)), _TAGS
            ),
        ),
        _TAGS,
    )


class DescribeProducers(Request[DescribeProducersRequest]):  # type: ignore[misc]
    """Ask the leader of a partition."""

    API_KEY = 61

    def __init__(self, topic: str, partition: int) -> None:
        self._topics: Any = [(topic, [partition], {})]

    def build(self, request_struct_class: type[DescribeProducersRequest]) -> Any:
        """The request in the version that the broker speaks."""
        return request_struct_class(self._topics, {})


class ListTransactionsResponse(Response):  # type: ignore[misc]
    """The transactions that a coordinator knows."""

    API_KEY = 66
    API_VERSION = 0
    SCHEMA = Schema(
        ("throttle_time_ms", Int32),
        ("error_code", Int16),
        ("unknown_state_filters", CompactArray(CompactString("utf-8"))),
        (
            "transaction_states",
            CompactArray(
                ("transactional_id", CompactString("utf-8")),
                ("producer_id", Int64),
                ("state", CompactString("utf-8")),
                _TAGS,
            ),
        ),
        _TAGS,
    )


class ListTransactionsRequest(RequestStruct):  # type: ignore[misc]
    """Version 0."""

    API_KEY = 66
    API_VERSION = 0
    FLEXIBLE_VERSION = True
    RESPONSE_TYPE = ListTransactionsResponse
    SCHEMA = Schema(
        ("state_filters", CompactArray(CompactString("utf-8"))),
        ("producer_id_filters", CompactArray(Int64)),
        _TAGS,
    )


class ListTransactions(Request[ListTransactionsRequest]):  # type: ignore[misc]
    """Ask a broker for all of which it is the coordinator."""

    API_KEY = 66

    def build(self, request_struct_class: type[ListTransactionsRequest]) -> Any:
        """The request in the version that the broker speaks."""
        return request_struct_class([], [], {})


class WriteMarkerResponse(Response):  # type: ignore[misc]
    """What became of the markers."""

    API_KEY = 27
    API_VERSION = 1
    SCHEMA = Schema(
        (
            "markers",
            CompactArray(
                ("producer_id", Int64),
                (
                    "topics",
                    CompactArray(
                        ("name", CompactString("utf-8")),
                        (
                            "partitions",
                            CompactArray(("partition", Int32), ("error_code", Int16), _TAGS),
                        ),
                        _TAGS,
                    ),
                ),
                _TAGS,
            ),
        ),
        _TAGS,
    )


class WriteMarkerRequest(RequestStruct):  # type: ignore[misc]
    """Version 1."""

    API_KEY = 27
    API_VERSION = 1
    FLEXIBLE_VERSION = True
    RESPONSE_TYPE = WriteMarkerResponse
    SCHEMA = Schema(
        (
            "markers",
            CompactArray(
                ("producer_id", Int64),
                ("producer_epoch", Int16),
                ("committed", Boolean),
                (
                    "topics",
                    CompactArray(
                        ("name", CompactString("utf-8")),
                        ("partitions", CompactArray(Int32)),
                        _TAGS,
                    ),
                ),
                ("coordinator_epoch", Int32),
                _TAGS,
            ),
        ),
        _TAGS,
    )


class WriteMarker(Request[WriteMarkerRequest]):  # type: ignore[misc]
    """Tell the leader of a partition that a transaction is aborted."""

    API_KEY = 27

    def __init__(
        self,
        topic: str,
        partition: int,
        producer_id: int,
        producer_epoch: int,
        coordinator_epoch: int,
    ) -> None:
        topics: Any = [(topic, [partition], {})]
        ids = producer_id, producer_epoch
        self._markers: Any = [(*ids, ABORT, topics, coordinator_epoch, {})]

    def build(self, request_struct_class: type[WriteMarkerRequest]) -> Any:
        """The request in the version that the broker speaks."""
        return request_struct_class(self._markers, {})
