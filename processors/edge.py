"""The edge: from the bytes of a Kafka record to a command the domain can judge, or to the reason
why not.

Pure. Everything that comes in is either a ``Request`` (it has an id, so it gets an outcome, be it a
refusal) or ``Unanswerable`` (nobody can be answered: dead letters).
"""

from hashlib import blake2b
from typing import Final

import msgspec
from pydantic import ValidationError

from commands.aggregate import Aggregate, Command, invalid_data
from commands.parking import ORDERS
from schemas.ids import is_id
from schemas.partitioner import partition_for
from schemas.records import (
    FIRST_VERSION,
    MAX_COMMAND_BYTES,
    CommandRecord,
    decode,
    decode_command,
    encode,
)
from schemas.rejections import Code, Rejection
from schemas.upcasting import upcast, version_of

DIGEST_BYTES: Final = 8
"""Tells a repeated command from another under the same id, within one aggregate: 64 bits are plenty."""


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


_id_decoder = msgspec.json.Decoder(_JustTheId)


class Edge:
    """Reads the commands of one aggregate from its topic of ``partitions`` partitions."""

    def __init__(self, aggregate: Aggregate, partitions: int) -> None:
        self._aggregate = aggregate
        self._partitions = partitions
        # pydantic's compiled validator and serializer, without the wrappers of the model's methods.
        models: tuple[type[Command], ...] = (*aggregate.commands, *ORDERS)
        self._validators = {m.__name__: m.__pydantic_validator__ for m in models}
        self._serializers = {m.__name__: m.__pydantic_serializer__ for m in models}
        self._models = {m.__name__: m for m in models}
        self._versions = {m.__name__: version_of(m) for m in models}

    def read(
        self, key: bytes | None, value: bytes | None, partition: int
    ) -> Request | Unanswerable:
        """Never raises, whatever the bytes are."""
        aggregate_id = _text(key)
        if aggregate_id is None or not is_id(aggregate_id):
            return _unanswerable(
                Code.INVALID_KEY, "the record key must be the aggregate id: 1 to 128 characters of "
                "letters, digits, blanks and ._:@+-, beginning with a letter or digit",
            )  # fmt: skip
        try:
            record = decode_command(value or b"")
        except msgspec.DecodeError as error:
            return _malformed(aggregate_id, value or b"", str(error))
        if not is_id(record.command_id):
            return _unanswerable(
                Code.INVALID_COMMAND_ID, "command_id must be 1 to 128 characters of letters, digits, "
                "blanks and ._:@+-", "command_id",
            )  # fmt: skip
        return self._request(aggregate_id, record, value or b"", key or b"", partition)

    def _request(
        self, aggregate_id: str, record: CommandRecord, value: bytes, key: bytes, partition: int
    ) -> Request:
        try:
            rejection = self._refuse_envelope(record, value, key, partition)
            if rejection is None:
                command, meaning = self._command(record)
                return Request(
                    aggregate_id,
                    record.command_id,
                    record.type,
                    _digest(record, meaning),
                    record.expected_version,
                    command,
                )
        except ValidationError as error:
            rejection = invalid_data(error)
        except msgspec.ValidationError as error:  # of the old form, but not what a step makes of it
            rejection = Rejection(Code.INVALID_DATA, str(error))
        return Request(
            aggregate_id,
            record.command_id,
            record.type,
            _digest(record, bytes(record.data)),
            record.expected_version,
            rejection=rejection,
        )

    def _command(self, record: CommandRecord) -> tuple[Command, bytes]:
        """The command, and its meaning as bytes: without the fields that have their default, so that a
        new optional field makes no other command of one that is sent again after an upgrade.
        """
        validator = self._validators[record.type]
        if record.schema_version == self._versions[record.type]:
            command: Command = validator.validate_json(bytes(record.data))
            return command, self._serializers[record.type].to_json(command, exclude_defaults=True)
        model = self._models[record.type]
        old_form = model.UPCASTERS[record.schema_version - FIRST_VERSION].model
        old = old_form.model_validate_json(bytes(record.data))
        data = upcast(model, old.model_dump(mode="json"), record.schema_version)
        meaning = old_form.__pydantic_serializer__.to_json(old, exclude_defaults=True)
        return validator.validate_json(encode(data)), meaning

    def _refuse_envelope(
        self, record: CommandRecord, value: bytes, key: bytes, partition: int
    ) -> Rejection | None:
        if len(value) > MAX_COMMAND_BYTES:
            return Rejection(
                Code.TOO_LARGE,
                f"the command has {len(value)} bytes; at most {MAX_COMMAND_BYTES} are accepted",
            )
        right = partition_for(key, self._partitions)
        if partition != right:
            return Rejection(
                Code.WRONG_PARTITION,
                f"this key belongs on partition {right}, but the command came on {partition}: let the "
                "producer use Kafka's murmur2 partitioner (librdkafka: partitioner=murmur2_random)",
            )
        if record.type not in self._validators:
            known = ", ".join(model.__name__ for model in self._aggregate.commands)
            return Rejection(
                Code.UNKNOWN_TYPE,
                f"{record.type!r} is no command of this topic, which takes {known}",
                "type",
            )
        newest = self._versions[record.type]
        if not FIRST_VERSION <= record.schema_version <= newest:
            return Rejection(
                Code.UNSUPPORTED_SCHEMA_VERSION,
                f"schema version {record.schema_version} of {record.type} is not known here; "
                f"the newest is {newest}",
                "schema_version",
            )
        return None


def _text(key: bytes | None) -> str | None:
    try:
        return None if key is None else key.decode()
    except UnicodeDecodeError:
        return None


def _unanswerable(code: Code, message: str, field: str | None = None) -> Unanswerable:
    return Unanswerable(Rejection(code, message, field))


def _malformed(aggregate_id: str, value: bytes, reason: str) -> Request | Unanswerable:
    """A broken envelope still gets an outcome when its command id can be made out."""
    rejection = Rejection(Code.MALFORMED, f"not a command: {reason}")
    try:
        command_id = decode(_id_decoder, value).command_id
    except msgspec.DecodeError:
        return Unanswerable(rejection)
    if not is_id(command_id):
        return Unanswerable(rejection)
    digest = blake2b(value, digest_size=DIGEST_BYTES).hexdigest()
    return Request(aggregate_id, command_id, "", digest, rejection=rejection)


def _digest(record: CommandRecord, data: bytes) -> str:
    """Of the meaning and not of the bytes: blanks and the order of fields make no other command."""
    head = f"{record.type}\n{record.schema_version}\n{record.expected_version}\n".encode()
    return blake2b(head + data, digest_size=DIGEST_BYTES).hexdigest()
