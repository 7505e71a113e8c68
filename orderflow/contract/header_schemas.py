"""The JSON Schemas of Kafka headers, as an object of name and text; the names are schemas/headers.py's.

Which header a record carries is written once, here; what it holds is said beside its name. Pure.
"""

from typing import Any, Final

from orderflow.reference import header_meanings
from schemas import headers

Schema = dict[str, Any]

_TEXT: Final[Schema] = {"type": "string"}
_NUMBER: Final[Schema] = {"type": "string", "pattern": "^[0-9]+$"}
_TRACE: Final[Schema] = {
    "type": "string",
    "pattern": "^[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}",
}

_SHAPES: Final[dict[str, Schema]] = {
    headers.TRACEPARENT: _TRACE,
    headers.REPLY_PARTITION: _NUMBER,
    headers.REPLY_TOKEN: _TEXT | {"maxLength": headers.MAX_REPLY_TOKEN_BYTES},
    headers.OCCURRED_AT_MS: _NUMBER | {"maxLength": 15},
    headers.AGGREGATE_VERSION: _NUMBER,
    headers.ERROR_PARTITION: _NUMBER,
    headers.ERROR_OFFSET: _NUMBER,
    headers.ERROR_TIMESTAMP: _NUMBER,
    headers.ERROR_ATTEMPT: _NUMBER,
    headers.ERROR_HOLDS_KEY: {"const": "true"},
    headers.ERROR_CUT: {
        "type": "string",
        "pattern": "^(key|value|headers)(,(key|value|headers))*$",
    },
    headers.ERROR_VALUE_BYTES: _NUMBER,
    headers.ERROR_VALUE_DIGEST: {"type": "string", "pattern": "^[0-9a-f]{32}$"},
}
"""Of those that are more than text."""

_FAILED: Final = (
    headers.ERROR_CODE,
    headers.ERROR_MESSAGE,
    headers.ERROR_STAGE,
    headers.ERROR_TOPIC,
    headers.ERROR_PARTITION,
    headers.ERROR_OFFSET,
    headers.ERROR_TIMESTAMP,
)
_CAUSED: Final = (headers.CAUSATION_ID, headers.CORRELATION_ID)
_PASSED_ON: Final = (headers.TRACEPARENT, headers.ANSWER_TO)


def header_schemas() -> dict[str, Schema]:
    """Name of a kind of record -> the schema of its headers."""
    waits = (headers.REPLY_PARTITION, headers.REPLY_TOKEN)
    asked = (*_CAUSED, *_PASSED_ON, *waits, headers.OCCURRED_AT_MS)
    return {
        "command": _headers("Headers of a command; all may be left out.", (), asked),
        "written": _headers(
            "Headers of events, states, outcomes and replies.",
            _CAUSED,
            (*_PASSED_ON, headers.REPLY_TOKEN),
        ),
        "tombstone": _headers(
            "Headers of a tombstone, which has no value: the aggregate or part is deleted.",
            (headers.AGGREGATE_VERSION,),
            (*_CAUSED, *_PASSED_ON),
        ),
        "dead-letter": _headers(
            "Headers of a dead letter: those that came with the record, then what is wrong with it.",
            _FAILED,
            (
                headers.ERROR_ATTEMPT,
                headers.ERROR_HOLDS_KEY,
                headers.ERROR_EXCEPTION,
                headers.ERROR_STACKTRACE,
                headers.ERROR_CUT,
                headers.ERROR_VALUE_BYTES,
                headers.ERROR_VALUE_DIGEST,
            ),
        ),
    }


def _headers(about: str, required: tuple[str, ...], optional: tuple[str, ...]) -> Schema:
    meanings = header_meanings()
    return {
        "title": "Headers",
        "description": about,
        "type": "object",
        "properties": {
            name: _SHAPES.get(name, _TEXT) | {"description": meanings[name]}
            for name in (*required, *optional)
        },
        "required": list(required),
    }
