"""The edge: from the bytes of a Kafka record to a command the domain can judge, or to the reason
why not.

Pure. Everything that comes in is either a ``Request`` (it has an id, so it gets an outcome, be it a
refusal) or ``Unanswerable`` (nobody can be answered: dead letters).
"""

from collections.abc import Callable
from functools import lru_cache
from typing import Final

import msgspec
from pydantic import ValidationError

from commands.aggregate import Aggregate, Command, invalid_data
from commands.parking import ORDERS
from processors.digest import Meaning, digest, meaning_of, meaning_of_refused
from runtime.records import IncomingRecord
from schemas import headers, limits
from schemas.decoding import decoder
from schemas.ids import MAX_ID_LENGTH, is_id
from schemas.partitioner import partition_of
from schemas.records import (
    FIRST_VERSION,
    MAX_COMMAND_BYTES,
    CommandRecord,
    decode_command,
    encode,
)
from schemas.rejections import Code, Rejection
from schemas.upcasting import upcast, version_of


class Request(msgspec.Struct, frozen=True, gc=False):
    """A command with an id. ``command`` is None when ``rejection`` says what is wrong with it."""

    aggregate_id: str
    command_id: str
    type: str
    digest: str
    expected_version: int | None = None
    command: Command | None = None
    rejection: Rejection | None = None


class Unanswerable(msgspec.Struct, frozen=True, gc=False):
    """A record without a usable key or command id."""

    rejection: Rejection


class _JustTheId(msgspec.Struct):
    command_id: str


_decode_id = decoder(_JustTheId)

_BLANK: Final = msgspec.Raw(b"{}")
"""The data of a command that says all with its type."""


class _Kind(msgspec.Struct, frozen=True, gc=False):
    """What the edge has to know of one type of command, looked up once for each record.

    ``validate``: pydantic's compiled validator, without the wrappers of the model's methods. ``meaning``:
    what the digest is taken of. ``digest_head``: what that of one without an expected version begins with.
    ``blank``: the command without any data, and its digest; None where the type needs data.
    """

    model: type[Command]
    version: int
    validate: Callable[[bytes], Command]
    meaning: Meaning
    digest_head: bytes
    blank: tuple[Command, str] | None


class Edge:
    """Reads the commands of one aggregate from its topic of ``partitions`` partitions."""

    def __init__(self, aggregate: Aggregate, partitions: int) -> None:
        self._aggregate = aggregate
        self._partitions = partitions
        models: tuple[type[Command], ...] = (*aggregate.commands, *ORDERS)
        self._kinds = {model.__name__: _kind(model) for model in models}

    def read(
        self,
        key: bytes | None,
        value: bytes | None,
        partition: int,
        unfit: Rejection | None = None,
    ) -> Request | Unanswerable:
        """Never raises, whatever the bytes are. ``unfit``: what is wrong with the record's headers."""
        if not key or len(key) > MAX_ID_LENGTH:
            return _INVALID_KEY
        aggregate_id, right = _address(key, self._partitions)
        if aggregate_id is None:
            return _INVALID_KEY
        value = value or b""
        try:
            record = decode_command(value)
        except msgspec.DecodeError as error:
            return _malformed(aggregate_id, value, str(error))
        if not is_id(record.command_id):
            return _INVALID_COMMAND_ID
        kind = self._kinds.get(record.type)
        if kind is None or unfit or partition != right or len(value) > MAX_COMMAND_BYTES:
            return _refused(
                aggregate_id, record, unfit or self._why_refused(record, value, partition, right)
            )
        try:
            if record.schema_version != kind.version:
                command, found = _of_another_version(record, kind)
            elif kind.blank and record.data == _BLANK and record.expected_version is None:
                command, found = kind.blank
            else:
                command = kind.validate(bytes(record.data))
                found = digest(_head(record, kind), kind.meaning(command, exclude_defaults=True))
        except ValidationError as error:
            return _refused(aggregate_id, record, invalid_data(error))
        except _Refused as refused:
            return _refused(aggregate_id, record, refused.rejection)
        return Request(
            aggregate_id, record.command_id, record.type, found, record.expected_version, command
        )

    def partition(self, key: bytes) -> int | None:
        """Return the partition of an aggregate's commands; None for a key that is no id."""
        if not key or len(key) > MAX_ID_LENGTH:
            return None
        aggregate_id, partition = _address(key, self._partitions)
        return None if aggregate_id is None else partition

    def former_digest(self, value: bytes) -> str:
        """Return the digest that the release before gave a command: it sorted no free JSON. Needed until
        the outcomes that it has written are expired. Raises ``DecodeError``.
        """
        record = decode_command(value)
        head = _digest_head(record.type, record.schema_version, record.expected_version)
        kind = self._kinds.get(record.type)
        if kind is None or record.schema_version != kind.version:
            return digest(head, bytes(record.data))
        try:
            command = kind.validate(bytes(record.data))
        except ValidationError:
            return digest(head, bytes(record.data))
        to_json = kind.model.__pydantic_serializer__.to_json
        return digest(head, to_json(command, exclude_defaults=True))

    def _why_refused(
        self, record: CommandRecord, value: bytes, partition: int, right: int
    ) -> Rejection:
        """Of a record that is too large, on the wrong partition or of an unknown type: the first of these."""
        if len(value) > MAX_COMMAND_BYTES:
            return Rejection(
                Code.TOO_LARGE,
                f"the command has {len(value)} bytes; at most {MAX_COMMAND_BYTES} are accepted",
            )
        if partition != right:
            return Rejection(
                Code.WRONG_PARTITION,
                f"this key belongs on partition {right}, but the command came on {partition}: let the "
                "producer use Kafka's murmur2 partitioner (librdkafka: partitioner=murmur2_random)",
            )
        known = ", ".join(model.__name__ for model in self._aggregate.commands)
        return Rejection(
            Code.UNKNOWN_TYPE,
            f"{limits.cut(record.type, limits.MAX_TYPE)!r} is no command of this topic, which takes {known}",
            "type",
        )


class _Refused(Exception):
    """Data of another version that cannot be used."""

    def __init__(self, rejection: Rejection) -> None:
        super().__init__(rejection.message)
        self.rejection = rejection


def _kind(model: type[Command]) -> _Kind:
    name, version = model.__name__, version_of(model)
    validate = model.__pydantic_validator__.validate_json
    meaning = meaning_of(model)
    head = _digest_head(name, version, None)
    try:
        command: Command = validate(bytes(_BLANK))
    except ValidationError:
        blank = None
    else:
        blank = command, digest(head, meaning(command, exclude_defaults=True))
    return _Kind(model, version, validate, meaning, head, blank)


def _of_another_version(record: CommandRecord, kind: _Kind) -> tuple[Command, str]:
    """The command of data as it was in an older version, and its digest, which stays what it was.

    Raises _Refused for a version that is not known, pydantic's ValidationError for wrong data.
    """
    model = kind.model
    if not FIRST_VERSION <= record.schema_version < kind.version:
        raise _Refused(
            Rejection(
                Code.UNSUPPORTED_SCHEMA_VERSION,
                f"schema version {record.schema_version} of {record.type} is not known here; "
                f"the newest is {kind.version}",
                "schema_version",
            )
        )
    old_form = model.UPCASTERS[record.schema_version - FIRST_VERSION].model
    old = old_form.model_validate_json(bytes(record.data))
    try:
        data = upcast(model, old.model_dump(mode="json"), record.schema_version)
    except msgspec.ValidationError as error:
        raise _Refused(Rejection(Code.INVALID_DATA, str(error))) from error
    meaning = meaning_of(old_form)(old, exclude_defaults=True)
    return kind.validate(encode(data)), digest(_head(record, kind), meaning)


def _head(record: CommandRecord, kind: _Kind) -> bytes:
    if record.expected_version is None and record.schema_version == kind.version:
        return kind.digest_head
    return _digest_head(record.type, record.schema_version, record.expected_version)


def _digest_head(name: str, version: int, expected_version: int | None) -> bytes:
    return f"{name}\n{version}\n{expected_version}\n".encode()


@lru_cache(maxsize=8_192)
def _address(key: bytes, partitions: int) -> tuple[str | None, int]:
    """The aggregate id that a key is, and where it belongs; None and 0 for what is no id. Remembered for the
    latest few thousand: commands of an aggregate often come close together. Keys that are longer than ids do
    not come here, so what is remembered is small.
    """
    aggregate_id = _text(key)
    if aggregate_id is None or not is_id(aggregate_id):
        return None, 0
    return aggregate_id, partition_of(key, partitions)


def _refused(aggregate_id: str, record: CommandRecord, rejection: Rejection) -> Request:
    head = _digest_head(record.type, record.schema_version, record.expected_version)
    return Request(
        aggregate_id,
        record.command_id,
        limits.cut(record.type, limits.MAX_TYPE),
        digest(head, meaning_of_refused(bytes(record.data))),
        record.expected_version,
        rejection=rejection,
    )


def unfit_headers(incoming: IncomingRecord) -> Rejection | None:
    """Return why a record's headers cannot be taken, or None. Those of a refused record are not passed on."""
    if incoming.unreadable:
        return Rejection(
            Code.MALFORMED, "the headers cannot be read: the name of one is not UTF-8", "headers"
        )
    size = limits.headers_bytes(incoming.headers)
    if size <= limits.MAX_PASSED_ON_BYTES:
        return None
    if size > limits.MAX_HEADERS_BYTES:
        message = f"the headers have {size} bytes; at most {limits.MAX_HEADERS_BYTES} are accepted"
        return Rejection(Code.TOO_LARGE, message, "headers")
    passed_on = headers.passed_on_bytes(incoming.headers)
    if passed_on > limits.MAX_PASSED_ON_BYTES:
        names = ", ".join(sorted(headers.PASSED_ON))
        message = (
            f"the headers {names} have {passed_on} bytes together; at most "
            f"{limits.MAX_PASSED_ON_BYTES} are accepted"
        )
        return Rejection(Code.TOO_LARGE, message, "headers")
    return None


def _text(key: bytes) -> str | None:
    try:
        return key.decode()
    except UnicodeDecodeError:
        return None


_INVALID_KEY: Final = Unanswerable(
    Rejection(
        Code.INVALID_KEY,
        "the record key must be the aggregate id: 1 to 128 characters of letters, digits, blanks and "
        "._:@+-, beginning with a letter or digit",
    )
)
_INVALID_COMMAND_ID: Final = Unanswerable(
    Rejection(
        Code.INVALID_COMMAND_ID,
        "command_id must be 1 to 128 characters of letters, digits, blanks and ._:@+-",
        "command_id",
    )
)


def _malformed(aggregate_id: str, value: bytes, reason: str) -> Request | Unanswerable:
    """A broken envelope still gets an outcome when its command id can be made out."""
    rejection = Rejection(
        Code.MALFORMED, limits.cut(f"not a command: {reason}", limits.MAX_MESSAGE)
    )
    try:
        command_id = _decode_id(value).command_id
    except msgspec.DecodeError:
        return Unanswerable(rejection)
    if not is_id(command_id):
        return Unanswerable(rejection)
    return Request(aggregate_id, command_id, "", digest(b"", value), rejection=rejection)
