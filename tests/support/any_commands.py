"""Any command there is, with any data that its model takes: what anybody may send, drawn from the schemas."""

from __future__ import annotations

from typing import Any, Final

import hypothesis.strategies as st

from commands.aggregate import Command
from commands.parking import ORDERS
from orderflow.memory_pipeline import SCOPE
from runtime.client import OutgoingCommand
from sagas import AGGREGATES
from sagas.choreography import PARTS
from sagas.create_order import SAGA
from schemas.records import encode
from tests.support.saga_stories import order

ORDER_IDS: Final = ("o-1", "o-2", "o-3")
IDS: Final = {
    "user": ("ada", "bob"),
    "inventory": ("A", "B"),
    "order": ORDER_IDS,
    "payment": ORDER_IDS,
    "saga": (*ORDER_IDS, *(f"o-1{part.suffix}" for part in PARTS)),
}
"""Few, so that commands meet each other's aggregates; of other aggregates any."""

STEPS: Final = ("validateUser", "reserveInventory", "processPayment", "createOrder")
TOKENS: Final = tuple(
    f"{undo}{step}/0{mark}" for undo in ("", "undo/") for step in STEPS for mark in ("", "A")
)
SIGNATURES: Final = tuple(f"{one}.{SCOPE}" for one in IDS["saga"])
SAGAS: Final = (SAGA.name, "order.create", *(part.saga for part in PARTS))
KNOWN: Final[dict[str, tuple[Any, ...]]] = {
    "user_id": IDS["user"],
    "sku": IDS["inventory"],
    "reservation_id": ORDER_IDS,
    "order_id": ORDER_IDS,
    "currency": ("GBP",),
    "token": (*TOKENS, "tok_approve", "tok_decline", "tok_refund_down"),
    "charge": tuple(f"{one}.{SCOPE}" for one in ORDER_IDS),
    "made_by": SIGNATURES,
    "only_if_made_by": SIGNATURES,
    "saga": SAGAS,
    "type": (*SAGAS, "ReserveStock", "RequestPayment", "CapturePayment", "CreateOrder"),
    "timer": tuple(range(6)),
    "input": tuple(order(*about) for about in ((), ("tok_decline",), ("tok_approve", "bob"))),
    "url": ("https://example.org/hook",),
    "event_types": (("order.*",), ("user.*", "inventory.*")),
}
"""Values by the name of their field with which something happens."""

TEXTS: Final = (*ORDER_IDS, *TOKENS, *SAGAS, "GBP", "made.up", "x")

free = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats() | st.sampled_from(TEXTS),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(TEXTS), inner),
    max_leaves=8,
)
objects = st.sampled_from(
    [
        {"type": "PaymentCaptured", "data": {"amount": 5}},
        {"type": "SagaCompensated"},
    ]
) | st.dictionaries(st.sampled_from(TEXTS), free, max_size=3)


def of_schema(schema: dict[str, Any], defs: dict[str, Any]) -> st.SearchStrategy[Any]:
    """Values of a JSON Schema as pydantic makes them; those that are well known, the more often."""
    if "$ref" in schema:
        return of_schema(defs[schema["$ref"].rpartition("/")[2]], defs)
    if "anyOf" in schema:
        return st.one_of([of_schema(each, defs) for each in schema["anyOf"]])
    if "enum" in schema:
        return st.sampled_from(schema["enum"])
    match schema.get("type"):
        case "null":
            return st.none()
        case "boolean":
            return st.booleans()
        case "integer":
            least = schema.get("minimum", schema.get("exclusiveMinimum", -5))
            most = schema.get("maximum", schema.get("exclusiveMaximum", 2**53))
            return st.integers(least, min(most, least + 5)) | st.sampled_from([least, most])
        case "string":
            known = st.sampled_from(TEXTS)
            return known | st.from_regex(schema["pattern"]) if "pattern" in schema else known
        case "array":
            return st.lists(of_schema(schema["items"], defs), max_size=2)
        case "object" if "properties" in schema:
            fields = {name: _field(name, each, defs) for name, each in schema["properties"].items()}
            needed = {name: fields.pop(name) for name in schema.get("required", ())}
            return st.fixed_dictionaries(needed, optional=fields)
        case _:
            return objects


def _field(name: str, schema: dict[str, Any], defs: dict[str, Any]) -> st.SearchStrategy[Any]:
    some = of_schema(schema, defs)
    if name not in KNOWN:
        return some
    known = st.sampled_from(KNOWN[name])
    return st.one_of(known, known, known, some)


def _data_of(model: type[Command]) -> st.SearchStrategy[dict[str, Any]]:
    schema = model.model_json_schema()
    return of_schema(schema, schema.get("$defs", {}))


_KINDS: Final[list[tuple[str, type[Command]]]] = [
    *((aggregate.name, model) for aggregate in AGGREGATES for model in aggregate.commands),
    *((aggregate.name, model) for aggregate in AGGREGATES for model in ORDERS),
]
_OFTEN: Final = [
    (name, model) for name, model in _KINDS if name in {"saga", "payment"} and model not in ORDERS
]


@st.composite
def commands(draw: st.DrawFn) -> OutgoingCommand:
    """One of any aggregate; most of its data is valid."""
    often = st.sampled_from(_OFTEN)
    name, model = draw(st.one_of(st.sampled_from(_KINDS), often, often))
    data = draw(_data_of(model))
    return OutgoingCommand(
        name,
        draw(st.sampled_from(IDS.get(name, ORDER_IDS))),
        model.__name__,
        encode(data),
        draw(st.sampled_from([f"c-{number}" for number in range(200)])),
        expected_version=draw(st.none() | st.none() | st.integers(0, 3)),
    )


def waiting_sagas() -> st.SearchStrategy[tuple[tuple[str, bytes], ...]]:
    """Headers, most often none: a saga that is to hear of the outcome."""
    token = st.sampled_from([*TOKENS, "", "/", "x"])
    heard = st.tuples(st.sampled_from(IDS["saga"]), token).map(
        lambda to: (("answer-to", "/".join(to).encode()),)
    )
    return st.just(()) | st.just(()) | heard
