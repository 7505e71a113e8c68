"""What a client or a broker says of a record that it will never take."""

from typing import Final

from confluent_kafka import KafkaError, KafkaException

OF_CONTENT: Final = frozenset(
    {
        KafkaError.MSG_SIZE_TOO_LARGE,
        KafkaError.INVALID_MSG,
        KafkaError.INVALID_MSG_SIZE,
        KafkaError.INVALID_TIMESTAMP,
        KafkaError.INVALID_RECORD,
        KafkaError.RECORD_LIST_TOO_LARGE,
        KafkaError.POLICY_VIOLATION,
        KafkaError._INVALID_ARG,
        KafkaError._BAD_MSG,
    }
)
"""A broker that is away, a right that is missing or a fenced producer is not among these."""


def is_of_content(error: BaseException | None) -> bool:
    """True if the same records would be refused again, and others would not."""
    if isinstance(error, KafkaException):
        return error.args[0].code() in OF_CONTENT
    return isinstance(error, (TypeError, ValueError, OverflowError))
