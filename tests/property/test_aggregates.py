"""Laws of all aggregates under random commands, driven by the table and the commands' JSON Schemas.

Whatever a schema allows is generated, so these tests also hold the schemas to the models: data that
fits the schema and is refused by the model would fail here. Ids come from a small pool and numbers
are often small, so that commands meet each other.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from commands import AGGREGATES, order, payment, webhook
from commands.aggregate import Aggregate, Command, Decision, Event, Loaded
from commands.inventory import INVENTORY
from commands.order import ORDER, CreateOrder
from commands.payment import PAYMENT, CapturePayment, FailPayment, RefundPayment, RequestRefund
from commands.stream import STREAM
from commands.text import NOT_BLANK
from commands.user import ForgetUser, ValidateUser
from commands.webhook import (
    LONGEST_OVERLAP_MS,
    MOST_SECRETS,
    MOST_SKIPPED,
    SECRET_PATTERN,
    URL_PATTERN,
    WEBHOOK,
    DeleteWebhook,
    PauseWebhook,
    ResumeWebhook,
    RotateWebhookSecret,
    SkipWebhookEvent,
    UpdateWebhook,
)
from schemas.ids import ID_PATTERN, MAX_ID_LENGTH
from schemas.inventory import (
    ItemRegistered,
    ReservationCommitted,
    ReservationReleased,
    StockAdjusted,
    StockLevel,
    StockReceived,
    StockReserved,
)
from schemas.money import MAX_AMOUNT
from schemas.payment import PaymentCaptured
from schemas.records import encode
from schemas.rejections import Rejection
from schemas.webhook import MESSAGE_ID_PATTERN, aggregate_of, former_message_id
from tests.support.decisions import fold, load

Json = dict[str, Any]

of_every_aggregate = pytest.mark.parametrize("aggregate", AGGREGATES, ids=lambda row: row.name)
of_every_aggregate_that_is_created = pytest.mark.parametrize(
    "aggregate", [row for row in AGGREGATES if row is not STREAM], ids=lambda row: row.name
)

MAY_CHANGE_NOTHING = (
    *(ValidateUser, ForgetUser, CapturePayment, RequestRefund, FailPayment),
    *(UpdateWebhook, RotateWebhookSecret, PauseWebhook, ResumeWebhook, DeleteWebhook),
    SkipWebhookEvent,
)
"""Commands that can be accepted with no event: one asks, the others want what may be so already."""

ids = st.sampled_from(["o-1", "o-2", "o-3", "two words", "A.b_c:d+e@f", "x" * MAX_ID_LENGTH])
POOLS = {
    URL_PATTERN: st.sampled_from(
        [
            "https://a.example",
            "http://127.0.0.1:8080/in?x=%2F",
            "https://[::1]:443/",
            "http://1:65535",
        ]
    ),
    SECRET_PATTERN: st.sampled_from(
        [f"whsec_{encoded}" for encoded in ("A" * 32, "B" * 32, "C" * 34 + "==", "/" * 86 + "==")]
    ),
    MESSAGE_ID_PATTERN: st.sampled_from([former_message_id("order", "o-1", n) for n in range(3)]),
}
"""By pattern, so that commands meet each other; what else fits is in tests/unit/test_webhook.py."""

characters = st.sampled_from('aZ09 ./{}"\\\n\t\0äß€漢🙂\u2028\u0301')


def values(schema: Json, defs: Json) -> st.SearchStrategy[Any]:
    """JSON values that fit the schema, for the part of JSON Schema that the commands use."""
    match schema:
        case {"$ref": str(ref)}:
            return values(defs[ref.removeprefix("#/$defs/")], defs)
        case {"anyOf": options}:
            return st.one_of([values(option, defs) for option in options])
        case {"type": "null"}:
            return st.none()
        case {"type": "boolean"}:
            return st.booleans()
        case {"enum": choices}:
            return st.sampled_from(choices)
        case {"type": "object"}:
            return objects(schema, defs)
        case {"type": "array", "items": items, "minItems": least}:
            return st.lists(values(items, defs), min_size=least, max_size=least + 3)
        case {"type": "integer"}:
            return integers(schema)
        case {"type": "string", "pattern": str(pattern)} if pattern == ID_PATTERN:
            return ids
        case {"type": "string", "pattern": str(pattern)} if pattern in POOLS:
            return POOLS[pattern]
        case {"type": "string", "pattern": str(pattern), "minLength": least, "maxLength": most} if (
            pattern == NOT_BLANK
        ):
            short = st.text(characters, min_size=least, max_size=least + 5).filter(str.strip)
            return short | st.sampled_from(["x" * least, "🙂" * most])
        case {"type": "string", "pattern": str(pattern)}:
            ascii_only = st.characters(max_codepoint=126, min_codepoint=33)
            return st.from_regex(pattern.removesuffix("$") + r"\Z", alphabet=ascii_only).filter(
                lambda string: len(string) <= schema.get("maxLength", 1_000)
            )
        case _:
            raise NotImplementedError(f"no strategy for {schema}")


def objects(schema: Json, defs: Json) -> st.SearchStrategy[Any]:
    if "properties" not in schema:  # any object is right
        return st.sampled_from([{}, {"carrier": "x"}, {"n": [1, None, True], "deep": {"ü": 1.5}}])
    fields = {name: values(field, defs) for name, field in schema["properties"].items()}
    required = schema.get("required", [])
    return st.fixed_dictionaries(
        {name: field for name, field in fields.items() if name in required},
        optional={name: field for name, field in fields.items() if name not in required},
    )


def integers(schema: Json) -> st.SearchStrategy[int]:
    least = schema.get("minimum", schema.get("exclusiveMinimum", 0) + 1)
    most = schema["maximum"]
    small = st.integers(max(least, -20), min(most, 20))
    # One in eight is of any size: between large numbers, small ones would never meet a limit.
    numbers = st.one_of([small] * 7 + [st.integers(least, most)])
    forbidden = schema.get("not", {}).get("const")
    return numbers.filter(lambda number: number != forbidden)


def commands_of(model: type[Command]) -> st.SearchStrategy[Command]:
    """Valid commands, read from JSON as the shell reads them."""
    schema = model.model_json_schema()
    data = values(schema, schema.get("$defs", {}))
    return data.map(lambda value: model.model_validate_json(msgspec.json.encode(value)))


COMMAND: dict[type[Command], st.SearchStrategy[Command]] = {
    model: commands_of(model) for aggregate in AGGREGATES for model in aggregate.commands
}


def sequences(aggregate: Aggregate) -> st.SearchStrategy[list[Command]]:
    """Commands in any order; most of the time one that creates the aggregate comes first."""
    creation = COMMAND[aggregate.commands[0]]
    command = st.one_of([COMMAND[model] for model in aggregate.commands])
    anything = st.lists(command, max_size=25) | st.lists(command, min_size=12, max_size=25)
    after_creation = st.tuples(creation, anything).map(lambda pair: [pair[0], *pair[1]])
    return st.one_of(after_creation, after_creation, anything)


@dataclass(frozen=True)
class Step:
    """One command on its way: what was loaded, what was decided, what all stands at afterwards."""

    command: Command
    loaded: Loaded
    decision: Decision
    events: tuple[Event, ...]
    before: Loaded
    after: Loaded


def run(
    aggregate: Aggregate, commands: Sequence[Command], start: Loaded | None = None
) -> Iterator[Step]:
    """As the shell does: load root and named parts, decide, evolve, keep both; parts at None go."""
    kept, at_ms = start or Loaded(), 1
    for command in commands:
        loaded = load(aggregate, kept, command)
        decision = aggregate.decide(loaded, command)
        events = () if isinstance(decision, Rejection) else decision
        changed = fold(aggregate, events, loaded, at_ms)
        parts = {**kept.parts, **changed.parts}
        after = Loaded(changed.root, {k: part for k, part in parts.items() if part is not None})
        yield Step(command, loaded, decision, events, kept, after)
        kept, at_ms = after, at_ms + len(events)


def open_only(state: Loaded) -> Loaded:
    return Loaded(state.root, {k: part for k, part in state.parts.items() if part is not None})


@of_every_aggregate
@settings(max_examples=50)  # for each of seven
@given(data=st.data())
def test_the_fold_of_all_events_is_the_state_at_every_step(
    aggregate: Aggregate, data: st.DataObject
) -> None:
    history: list[Event] = []
    for step in run(aggregate, data.draw(sequences(aggregate))):
        history += step.events
        assert open_only(fold(aggregate, history)) == step.after


@of_every_aggregate
@settings(max_examples=50)  # for each of seven
@given(data=st.data())
def test_a_snapshot_and_the_tail_of_events_is_the_fold_of_all(
    aggregate: Aggregate, data: st.DataObject
) -> None:
    steps = list(run(aggregate, data.draw(sequences(aggregate))))
    history = [event for step in steps for event in step.events]
    cut = data.draw(st.integers(0, len(history)))
    snapshot = through_json(aggregate, open_only(fold(aggregate, history[:cut])))
    resumed = fold(aggregate, history[cut:], snapshot, at_ms=cut + 1)
    assert open_only(resumed) == open_only(fold(aggregate, history))


def through_json(aggregate: Aggregate, state: Loaded) -> Loaded:
    """The state, written to bytes and read into the types that the aggregate's row names."""
    if state.root is None:
        return state
    root = msgspec.json.decode(encode(state.root), type=aggregate.root_type)
    parts: dict[str, Event] = {}
    for part_id, part in state.parts.items():
        assert aggregate.part_type is not None
        parts[part_id] = msgspec.json.decode(encode(part), type=aggregate.part_type)
    return Loaded(root, parts)


@of_every_aggregate
@settings(max_examples=50)  # for each of seven
@given(data=st.data())
def test_every_state_survives_being_written_and_read(
    aggregate: Aggregate, data: st.DataObject
) -> None:
    for step in run(aggregate, data.draw(sequences(aggregate))):
        assert through_json(aggregate, step.after) == step.after


@of_every_aggregate
@settings(max_examples=50)  # for each of seven
@given(data=st.data())
def test_every_event_is_one_of_the_row_and_survives_being_written_and_read(
    aggregate: Aggregate, data: st.DataObject
) -> None:
    for step in run(aggregate, data.draw(sequences(aggregate))):
        for event in step.events:
            assert type(event) in aggregate.events
            assert msgspec.json.decode(encode(event), type=type(event)) == event


@of_every_aggregate
@settings(max_examples=50)  # for each of seven
@given(data=st.data())
def test_a_decision_depends_on_nothing_else_and_changes_nothing(
    aggregate: Aggregate, data: st.DataObject
) -> None:
    for step in run(aggregate, data.draw(sequences(aggregate))):
        read_again = through_json(aggregate, open_only(step.loaded))
        command_again = type(step.command).model_validate_json(step.command.model_dump_json())
        before = encode((step.loaded, step.command.model_dump()))
        again = aggregate.decide(read_again, command_again)
        assert encode(aggregate.decide(step.loaded, step.command)) == encode(again)
        assert encode(step.decision) == encode(again)
        assert encode((step.loaded, step.command.model_dump())) == before


@of_every_aggregate
@settings(max_examples=50)  # for each of seven
@given(data=st.data())
def test_evolving_leaves_the_former_state_as_it_was(
    aggregate: Aggregate, data: st.DataObject
) -> None:
    for step in run(aggregate, data.draw(sequences(aggregate))):
        before = encode(step.before)
        fold(aggregate, step.events, step.before)
        assert encode(step.before) == before


@of_every_aggregate
@settings(max_examples=50)  # for each of seven
@given(data=st.data())
def test_a_command_has_events_or_is_rejected_with_a_sentence_and_a_field_it_has(
    aggregate: Aggregate, data: st.DataObject
) -> None:
    for step in run(aggregate, data.draw(sequences(aggregate))):
        if not isinstance(step.decision, Rejection):
            assert step.decision or isinstance(step.command, MAY_CHANGE_NOTHING)
            continue
        assert step.after == step.before
        assert len(step.decision.message.split()) >= 5
        fields = type(step.command).model_fields
        assert step.decision.field is None or step.decision.field in fields


@of_every_aggregate_that_is_created
@given(data=st.data())
def test_an_aggregate_is_created_by_its_first_command_and_only_once(
    aggregate: Aggregate, data: st.DataObject
) -> None:
    for step in run(aggregate, data.draw(sequences(aggregate))):
        creates = type(step.command) is aggregate.commands[0]
        if creates or step.before.root is None:
            accepted = not isinstance(step.decision, Rejection)
            # An order can also be too large to be created; nothing else stands in the way.
            assert not accepted or (creates and step.before.root is None)


def sums(history: list[Event]) -> Counter[str]:
    """The books of an SKU, from the events alone and in another way than `evolve` keeps them."""
    books: Counter[str] = Counter()
    for event in history:
        match event:
            case StockReceived(quantity):
                books["received"] += quantity
            case StockAdjusted(delta):
                books["adjusted"] += delta
            case StockReserved(reservation, quantity):
                books["open/" + reservation] += quantity
            case ReservationReleased(reservation, quantity):
                books["open/" + reservation] -= quantity
            case ReservationCommitted(reservation, quantity):
                books["open/" + reservation] -= quantity
                books["shipped"] += quantity
            case _:
                assert isinstance(event, ItemRegistered)
    return books


def check_stock(level: StockLevel, parts: dict[str, Any], history: list[Event]) -> None:
    books = sums(history)
    kept = (level.received, level.adjusted, level.shipped)
    assert kept == (books["received"], books["adjusted"], books["shipped"])
    assert level.on_hand == level.received + level.adjusted - level.shipped
    assert level.reserved == sum(part.quantity for part in parts.values())
    assert {k: part.quantity for k, part in parts.items()} == {
        key.removeprefix("open/"): count
        for key, count in books.items()
        if key.startswith("open/") and count
    }
    assert level.available == level.on_hand - level.reserved >= 0
    assert level.reserved >= 0
    totals = (level.on_hand, level.reserved, level.received, level.adjusted, level.shipped)
    assert all(abs(total) <= MAX_AMOUNT for total in totals)


@settings(max_examples=300)
@given(sequences(INVENTORY))
def test_pieces_are_conserved_and_never_oversold(commands: list[Command]) -> None:
    history: list[Event] = []
    for step in run(INVENTORY, commands):
        history += step.events
        if step.after.root is not None:
            check_stock(step.after.root, dict(step.after.parts), history)


@settings(max_examples=300)
@given(
    commands=sequences(INVENTORY),
    received=st.integers(MAX_AMOUNT - 100, MAX_AMOUNT),
    shipped=st.integers(0, 100) | st.integers(MAX_AMOUNT - 100, MAX_AMOUNT),
    adjusted=st.integers(-100, 100) | st.integers(MAX_AMOUNT - 100, MAX_AMOUNT),
)
def test_pieces_are_conserved_at_the_limit_of_exact_numbers(
    commands: list[Command], received: int, shipped: int, adjusted: int
) -> None:
    shipped = min(shipped, received)
    adjusted = max(adjusted, shipped - received)
    adjusted = min(adjusted, MAX_AMOUNT - received + shipped)
    history: list[Event] = [
        *(ItemRegistered("gold", 10), StockReceived(received), StockReserved("o-0", shipped)),
        *(ReservationCommitted("o-0", shipped), StockAdjusted(adjusted, "count")),
    ]
    start = open_only(fold(INVENTORY, history))
    check_stock(start.root, {}, history)
    for step in run(INVENTORY, commands, start):
        history += step.events
        check_stock(step.after.root, dict(step.after.parts), history)


@settings(max_examples=300)
@given(sequences(PAYMENT))
def test_no_more_is_refunded_than_was_captured_and_captured_than_was_requested(
    commands: list[Command],
) -> None:
    for step in run(PAYMENT, commands):
        now = step.after.root
        if now is None:
            continue
        assert 0 <= now.refunded <= now.captured <= now.requested <= MAX_AMOUNT
        assert (now.status == "refunded") == (0 < now.refunded == now.captured)
        if now.status != "refund_requested":
            assert (now.captured == 0) == (now.status in ("requested", "failed"))
            partly = 0 < now.refunded < now.captured
            assert (now.status == "partially_refunded") == partly


@settings(max_examples=300)
@given(sequences(PAYMENT))
def test_a_payment_moves_only_along_the_table_and_is_captured_at_most_once(
    commands: list[Command],
) -> None:
    captures = 0
    for step in run(PAYMENT, commands):
        before, after = step.before.root, step.after.root
        captures += sum(isinstance(event, PaymentCaptured) for event in step.events)
        assert captures <= 1
        if before is not None and step.events:
            assert after.status in payment.MOVES[before.status]
            assert (after.requested, after.token) == (before.requested, before.token)
            assert before.captured in (after.captured, 0)


@settings(max_examples=300)
@given(sequences(PAYMENT))
def test_a_requested_refund_can_always_be_brought_to_an_end(commands: list[Command]) -> None:
    for step in run(PAYMENT, [*commands, RequestRefund(reason="x")]):
        now = step.after.root
        if now is None or now.status != "refund_requested":
            continue
        ending = FailPayment(reason="x") if now.captured == 0 else RefundPayment()
        (ended,) = run(PAYMENT, [ending], step.after)
        assert ended.after.root.status in ("failed", "refunded")


@settings(max_examples=300)
@given(sequences(ORDER))
def test_an_order_moves_only_along_the_table_and_keeps_what_was_ordered(
    commands: list[Command],
) -> None:
    for step in run(ORDER, commands):
        before, after = step.before.root, step.after.root
        if after is None:
            continue
        assert after.total == sum(line.quantity * line.unit_price for line in after.lines)
        assert after.total <= MAX_AMOUNT
        if before is None:
            assert isinstance(step.command, CreateOrder)
            assert after.status == ("confirmed" if step.command.confirm else "created")
        elif step.events:
            assert after.status in order.MOVES[before.status]
            assert (after.lines, after.total) == (before.lines, before.total)
            assert after.created_at_ms == before.created_at_ms


@settings(max_examples=300)
@given(sequences(WEBHOOK))
def test_a_webhook_moves_only_along_the_table_and_always_knows_since_when_it_follows_what(
    commands: list[Command],
) -> None:
    for step in run(WEBHOOK, commands):
        before, after = step.before.root, step.after.root
        if after is None:
            continue
        assert set(after.since) == {aggregate_of(name) for name in after.event_types}
        assert len(set(after.event_types)) == len(after.event_types)
        assert len(after.skipped) <= MOST_SKIPPED
        assert (after.pause_reason is not None) == (after.status == "paused")
        if before is not None:
            assert after.status == before.status or after.status in webhook.MOVES[before.status]
            # What is followed already goes on: nothing between two events is left out.
            for name in set(before.since) & set(after.since):
                assert after.since[name] == before.since[name]


@settings(max_examples=300)
@given(sequences(WEBHOOK))
def test_a_webhook_signs_with_one_present_secret_and_with_former_ones_until_their_time_is_up(
    commands: list[Command],
) -> None:
    for step in run(WEBHOOK, commands):
        now = step.after.root
        if now is None:
            continue
        assert (now.secrets == ()) == (now.status == "deleted")
        assert len({each.secret for each in now.secrets}) == len(now.secrets) <= MOST_SECRETS
        for number, each in enumerate(now.secrets):
            assert (each.until_ms is None) == (number == 0)
            assert each.until_ms is None or each.until_ms <= now.updated_at_ms + LONGEST_OVERLAP_MS
