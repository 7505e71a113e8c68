"""schemas/json says what really goes over the wire: the files equal the code, and messages fit them."""

import json
from collections import Counter
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from commands import by_name
from commands.inventory import AdjustStock, RegisterItem
from commands.parking import ORDERS
from commands.payment import CapturePayment, FailPayment, RequestPayment, RequestRefund
from commands.stream import AppendEvents, NewEvent
from commands.user import DeactivateUser, ForgetUser, RegisterUser
from commands.webhook import (
    CreateWebhook,
    DeleteWebhook,
    PauseWebhook,
    RequestRedelivery,
    ResumeWebhook,
    RotateWebhookSecret,
    SkipWebhookEvent,
    TestWebhook,
    UpdateWebhook,
)
from orderflow import schema_files
from orderflow.contract.json_schemas import schemas
from orderflow.reference import UnknownTable, with_tables
from orderflow.shop.generator import ShopPlan, generate
from orderflow.shop.planned import PlannedCommand
from processors.decider import Decider
from processors.state_store import PartitionState
from runtime.records import IncomingRecord, OutgoingRecord
from sagas import AGGREGATES
from sagas import by_name as aggregate_of
from schemas import headers
from schemas.ids import is_part_key
from schemas.rejections import Code
from schemas.saga import (
    SagaCompensationOrdered,
    SagaCompensationStarted,
    SagaRetried,
    SagaStarted,
    SagaStepCompensationFailed,
    SagaStepCompleted,
    SagaStepFailed,
)
from schemas.topics import Topics
from tests.support import commanding
from tests.support.saga_stories import STORIES, drain, order, settle, shop
from tests.support.world import TOPICS as WORLD_TOPICS
from tests.support.world import World

TOPICS = Topics("shop", partitions=1)
PLAN = ShopPlan(orders=60, users=8, skus=6, bad_share=0.3, seed=11)
SECRET = "whsec_" + "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
MESSAGE = "evt_" + "0" * 32
WEBHOOK_COMMANDS = (
    CreateWebhook(url="https://example.org/in", event_types=("order.*",), secret=SECRET),
    UpdateWebhook(event_types=("payment.PaymentCaptured",)),
    RotateWebhookSecret(secret=SECRET.replace("M", "N")),
    PauseWebhook(reason="moving house"),
    ResumeWebhook(),
    SkipWebhookEvent(message_id=MESSAGE, reason="it never takes this"),
    RequestRedelivery(message_id=MESSAGE, aggregate="order", partition=0, offset=7),
    TestWebhook(),
    DeleteWebhook(),
)
SCOPE = "5c0pe"

NEVER_IN_THE_SHOP = (
    PlannedCommand(
        "stream",
        "x",
        "AppendEvents",
        AppendEvents(events=(NewEvent(type="CarrierNotified", data={"carrier": "x"}),)),
        "x-0",
    ),
    PlannedCommand("user", "x", "RegisterUser", RegisterUser(name="X"), "x-1"),
    PlannedCommand("user", "x", "DeactivateUser", DeactivateUser(reason="left"), "x-2"),
    PlannedCommand("user", "x", "ForgetUser", ForgetUser(by="ann"), "x-9"),
    PlannedCommand("inventory", "x", "RegisterItem", RegisterItem(description="X"), "x-3"),
    PlannedCommand("inventory", "x", "AdjustStock", AdjustStock(delta=3, reason="found"), "x-4"),
    PlannedCommand(
        "payment",
        "x",
        "RequestPayment",
        RequestPayment(order_id="x", amount=5, currency="GBP"),
        "x-5",
    ),
    PlannedCommand("payment", "x", "RequestRefund", RequestRefund(reason="too late"), "x-6"),
    PlannedCommand("payment", "x", "FailPayment", FailPayment(reason="no cover"), "x-7"),
    *(
        PlannedCommand("payment", "y", type(command).__name__, command, f"y-{number}")
        for number, command in enumerate(
            (
                RequestPayment(order_id="y", amount=5, currency="GBP", token="tok"),
                CapturePayment(reference="cash"),
                CapturePayment(reference="ch_1", charge=f"y.{SCOPE}"),
            )
        )
    ),
    *(
        PlannedCommand("webhook", "x", type(command).__name__, command, f"x-{number}")
        for number, command in enumerate(WEBHOOK_COMMANDS, 8)
    ),
)
"""So that every event there is comes up once."""

NEVER_LAST = (
    *(SagaStarted, SagaStepCompleted, SagaStepFailed, SagaCompensationStarted),
    *(SagaStepCompensationFailed, SagaRetried, SagaCompensationOrdered),
)
"""Each is followed by another event in the same decision. A saga's state is written with the last event
of a transaction, so these stand in `history` and never in `events`.
"""

REFUSED_BY_SCHEMA = {Code.INVALID_DATA, Code.UNKNOWN_TYPE}
"""Rejections that a producer could have foreseen with nothing but the schema."""

CHECKED = {path: jsonschema.Draft202012Validator(schema) for path, schema in schemas().items()}


def test_the_files_are_what_the_code_says() -> None:
    assert not schema_files.differences(), "run: python -m orderflow.schema_files"


def test_every_message_has_its_file() -> None:
    messages = {"outcome.json", "saga_end.json", "delivery.json"}
    messages |= {
        f"headers/{kind}.json" for kind in ("command", "written", "tombstone", "dead-letter")
    }
    messages |= {f"parking/commands/{order.__name__}.json" for order in ORDERS}
    messages |= {f"parking/{name}.json" for name in ("parked", "parked_notice", "action")}
    for aggregate in AGGREGATES:
        messages |= {f"{aggregate.name}/commands/{c.__name__}.json" for c in aggregate.commands}
        for topic in ("events", "history"):
            messages |= {f"{aggregate.name}/{topic}/{e.__name__}.json" for e in aggregate.events}
        if aggregate.part_type:
            messages.add(f"{aggregate.name}/events/{aggregate.part_type.__name__}.json")
    assert set(CHECKED) == messages


@pytest.mark.parametrize("path", CHECKED)
def test_every_file_is_a_schema_with_a_description(path: str) -> None:
    schema = schemas()[path]
    jsonschema.Draft202012Validator.check_schema(schema)
    assert schema["description"]
    assert schema["title"].lower() in path.replace("_", "").lower()


def test_everything_a_processor_writes_fits_its_schema(tmp_path: Path) -> None:
    seen: Counter[str] = Counter()
    for record in written(tmp_path):
        check_headers(record, TOPICS, seen)
        if record.value is None or record.topic == TOPICS.dead_letters:
            continue  # a tombstone has no value; a dead letter has whatever came in
        path = schema_path(record)
        CHECKED[path].validate(json.loads(record.value))
        seen[path] += 1
    elsewhere = ("saga/", "saga_end", "delivery", "parking/", "headers/command")
    domain = {path for path in CHECKED if not path.startswith(elsewhere)}
    assert set(seen) == {path for path in domain if "/commands/" not in path}


def test_everything_that_is_written_for_a_saga_fits_its_schema() -> None:
    seen: Counter[str] = Counter()
    for story in (*STORIES, half_undone):
        for record in story().log:
            check_headers(record, WORLD_TOPICS, seen)
            if record.value is None or record.topic == WORLD_TOPICS.dead_letters:
                continue
            path = schema_path(record)
            CHECKED[path].validate(json.loads(record.value))
            seen[path] += 1
    history = {path for path in CHECKED if path.startswith("saga/history/")}
    never = {f"saga/events/{event.__name__}.json" for event in NEVER_LAST}
    events = {path for path in CHECKED if path.startswith("saga/events/")} - never
    others = {"saga/commands/RecordAnswer.json", "headers/command.json"}
    assert history | events | others <= set(seen)
    assert not never & set(seen)


def half_undone() -> World:
    """An order of which two steps cannot be undone, and then one of them is, too late."""
    world = shop()
    line = {"sku": "C", "quantity": 1, "unit_price": 1}
    taken = commanding.command("o-1", "CreateOrder", user_id="ada", currency="GBP", lines=[line])
    world.send(taken)
    world.refusing = {"ReleaseReservation"}
    world.place("o-1", **order("tok_refund_down"))
    drain(world)
    world.gateway.mend()
    drain(world)
    return world


def test_commands_fit_their_schema_unless_the_data_is_what_is_wrong_with_them() -> None:
    fitting = foreseen = 0
    for command in generate(PLAN):
        problem = first_problem(command)
        if command.expected in REFUSED_BY_SCHEMA:
            assert problem is not None
            foreseen += 1
        elif command.expected is not Code.COMMAND_ID_REUSED:  # those may have any data
            assert problem is None
            fitting += 1
    assert fitting > 100
    assert foreseen > 10


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("type", "CreateOrders"),
        ("command_id", "no/slashes"),
        ("schema_version", 2),
        ("expected_version", "3"),
        ("data", {"user_id": "u", "currency": "gbp", "lines": []}),
    ],
)
def test_a_broken_envelope_does_not_fit(field: str, value: object) -> None:
    line = {"sku": "A", "quantity": 1, "unit_price": 5}
    data = {"user_id": "u", "currency": "GBP", "lines": [line]}
    command = {"type": "CreateOrder", "command_id": "c-1", "data": data}
    validator = CHECKED["order/commands/CreateOrder.json"]
    validator.validate(command)
    assert not validator.is_valid(command | {field: value})


def test_what_differs_is_found_and_put_right(tmp_path: Path) -> None:
    for document in schema_files.DOCUMENTS:
        path = tmp_path / document
        path.parent.mkdir(exist_ok=True)
        path.write_text("<!-- table: settings -->\nold\n<!-- end of table -->\n", encoding="utf-8")
    gone = tmp_path / schema_files.SCHEMAS / "order/events/OrderLost.json"
    gone.parent.mkdir(parents=True)
    gone.write_text("{}", encoding="utf-8")
    found = schema_files.differences(tmp_path)
    assert found[gone] is None
    schema_files.write(found)
    assert not gone.exists()
    assert "ORDERFLOW_HOME" in (tmp_path / "README.md").read_text(encoding="utf-8")
    assert not schema_files.differences(tmp_path)


def test_a_marker_of_a_table_that_does_not_exist_is_refused() -> None:
    with pytest.raises(UnknownTable, match="there is no table 'setings'"):
        with_tables("<!-- table: setings -->\n<!-- end of table -->", {"settings": ""})


def written(directory: Path) -> Iterator[OutgoingRecord]:
    """Everything that the processors of a shop write, one command a transaction."""
    stores = {
        name: PartitionState(directory / name, "events", "outcomes", "parked") for name in by_name
    }
    deciders = {
        name: Decider(aggregate, TOPICS, 0, stores[name], scope=SCOPE)
        for name, aggregate in by_name.items()
    }
    for offset, command in enumerate(chain(generate(PLAN), NEVER_IN_THE_SHOP)):
        outgoing = command.outgoing()
        came_in = IncomingRecord(
            TOPICS.commands(command.aggregate),
            0,
            offset,
            command.occurred_at_ms or 1_700_000_000_000,
            command.aggregate_id.encode(),
            outgoing.value(),
            [("reply-partition", b"0")],
        )
        decider = deciders[command.aggregate]
        yield from decider.decide(came_in)
        decider.committed(offset + 1, offset + 1, offset + 1)
    for store in stores.values():
        store.close()


def check_headers(record: OutgoingRecord, topics: Topics, seen: Counter[str]) -> None:
    """Headers fit the schema of their kind of record."""
    kind = "tombstone" if record.value is None else "written"
    if record.topic == topics.dead_letters:
        kind = "dead-letter"
    elif record.topic.endswith(".commands"):
        kind = "command"
    marks = {
        name: (value or b"").decode()
        for name, value in record.headers
        if not isinstance(value, str)
    }
    CHECKED[f"headers/{kind}.json"].validate(marks)
    seen[f"headers/{kind}.json"] += 1


def test_everything_about_a_parked_command_fits_its_schema() -> None:
    world = World()
    world.broken = {"RegisterUser"}
    for command_id in ("c1", "c2"):
        asked = commanding.command("ada", "RegisterUser", command_id=command_id, name="Ada")
        world.send(asked, (headers.REPLY_PARTITION, b"0"))
        settle(world)
    world.settle_held()
    settle(world)
    for record in world.log:
        if record.topic.endswith((".parked", ".audit")) or (record.key or b"").startswith(
            b"parked/"
        ):
            check_headers(record, WORLD_TOPICS, Counter())
            CHECKED[schema_path(record)].validate(json.loads(record.value or b""))
    found = {schema_path(r) for r in world.log if r.topic != WORLD_TOPICS.dead_letters}
    assert found >= {f"parking/{name}.json" for name in ("parked", "parked_notice", "action")}
    (order,) = (
        json.loads(r.value or b"") for r in world.sent if b"RetryParked" in (r.value or b"")
    )
    CHECKED["parking/commands/RetryParked.json"].validate(order)


def schema_path(record: OutgoingRecord) -> str:
    """The file that describes a record, by its topic, type and key."""
    if (record.key or b"").startswith(b"parked/"):
        return "parking/parked_notice.json"
    if record.topic.endswith((".parked", ".audit")):
        return "parking/parked.json" if record.topic.endswith(".parked") else "parking/action.json"
    if record.topic.endswith((".outcomes", ".replies")):
        return "saga_end.json" if b'"saga_id":' in (record.value or b"") else "outcome.json"
    _, aggregate, topic = record.topic.split(".")
    part_type = aggregate_of[aggregate].part_type
    if part_type is not None and is_part_key((record.key or b"").decode()):
        return f"{aggregate}/{topic}/{part_type.__name__}.json"
    return f"{aggregate}/{topic}/{json.loads(record.value or b'{}')['type']}.json"


def first_problem(command: PlannedCommand) -> str | None:
    """What the schema says of a command; None when it fits."""
    validator = CHECKED.get(f"{command.aggregate}/commands/{command.type}.json")
    if validator is None:
        return "there is no such command"
    value: Any = json.loads(command.outgoing().value())
    error = next(iter(validator.iter_errors(value)), None)
    return None if error is None else error.message
