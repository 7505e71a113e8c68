"""Every reason for which a command can be refused: stable codes, and the shape of a refusal.

A code is part of the wire format: it is never renamed and never used for something else.
"""

import msgspec

from schemas.vocabulary import OpenVocabulary


class Code(OpenVocabulary):
    """Stable rejection codes. The first block is the edge's, the others belong to the aggregates.

    A newer release may have more: reading one of these gives a code that is not ``known``.
    """

    MALFORMED = "malformed"  # not JSON, or not the envelope
    INVALID_KEY = "invalid_key"  # the record key is missing or no aggregate id
    INVALID_COMMAND_ID = "invalid_command_id"
    UNKNOWN_TYPE = "unknown_type"  # no such command on this topic
    UNSUPPORTED_SCHEMA_VERSION = "unsupported_schema_version"
    INVALID_DATA = "invalid_data"  # a field is missing, of the wrong type or out of range
    TOO_LARGE = "too_large"
    WRONG_PARTITION = "wrong_partition"  # the producer does not use Kafka's murmur2 partitioner
    COMMAND_ID_REUSED = "command_id_reused"  # the same id came before with another payload
    VERSION_CONFLICT = "version_conflict"  # expected_version is not the current one
    INTERNAL_ERROR = "internal_error"  # a bug of ours; of a parked command's retry: it failed again
    DISCARDED = "discarded"  # it could not be judged, and an operator has given it up
    NOT_PARKED = "not_parked"  # the record that an operator names does not hold this key

    USER_ALREADY_REGISTERED = "user_already_registered"
    USER_NOT_FOUND = "user_not_found"
    USER_ALREADY_DEACTIVATED = "user_already_deactivated"
    USER_DEACTIVATED = "user_deactivated"  # the user may no longer order
    USER_FORGOTTEN = "user_forgotten"  # the user's data was deleted; the id is never used again

    ITEM_ALREADY_REGISTERED = "item_already_registered"
    ITEM_NOT_FOUND = "item_not_found"
    INSUFFICIENT_STOCK = "insufficient_stock"
    STOCK_LIMIT_EXCEEDED = "stock_limit_exceeded"
    RESERVATION_ALREADY_EXISTS = "reservation_already_exists"
    RESERVATION_NOT_FOUND = "reservation_not_found"

    ORDER_ALREADY_EXISTS = "order_already_exists"
    ORDER_NOT_FOUND = "order_not_found"
    ORDER_TOTAL_TOO_LARGE = "order_total_too_large"
    INVALID_TRANSITION = "invalid_transition"  # the status machine has no such move
    MADE_BY_ANOTHER = "made_by_another"  # it may be undone by its maker alone, who is another

    PAYMENT_ALREADY_EXISTS = "payment_already_exists"
    PAYMENT_NOT_FOUND = "payment_not_found"
    CAPTURE_EXCEEDS_REQUEST = "capture_exceeds_request"
    REFUND_EXCEEDS_CAPTURE = "refund_exceeds_capture"

    WEBHOOK_ALREADY_EXISTS = "webhook_already_exists"
    WEBHOOK_NOT_FOUND = "webhook_not_found"

    SAGA_ALREADY_EXISTS = "saga_already_exists"
    SAGA_NOT_FOUND = "saga_not_found"
    UNKNOWN_SAGA = "unknown_saga"  # no saga has this name


class Rejection(msgspec.Struct, frozen=True, gc=False):
    """Why a command was refused: a stable code, a sentence for a person, and the offending field if
    one is.
    """

    code: Code
    message: str
    field: str | None = None
