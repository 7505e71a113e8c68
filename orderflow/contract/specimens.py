"""One example of each message, made from its JSON Schema: every field is there, with a value a person
could have meant. Pure, and the same each time.

A field gets the value that stands under its name below, else one that its schema allows. A new aggregate
needs a row here only where a value has to be of a certain form.
"""

from collections.abc import Mapping
from typing import Any, Final

from orderflow.contract.json_schemas import Schema
from orderflow.contract.messages import Message
from schemas.ids import ID_PATTERN

NOON_MS: Final = 1_767_268_800_000
"""2026-01-01 12:00 UTC."""

EXAMPLES: Final[Mapping[str, Any]] = {
    "accepted": False,
    "aggregate": "order",
    "aggregate_id": "order-1",
    "action": "retry",
    "after": "5d41402abc4b2a76b9719d911017c592",
    "amount": 3_998,
    "answer": "+",
    "answers": "+A",
    "asked": "A",
    "before": "7d793037a0760186574b0282f2f435e7",
    "by": "ann",
    "captured": 3_998,
    "charge": "order-1.9c3e1f2a",
    "code": "insufficient_stock",
    "command_id": "web-8c1f",
    "correlation_id": "checkout-7",
    "currency": "GBP",
    "description": "Teapot, white",
    "digest": "6a1f0c9d3b5e7788",
    "email": "ada@example.org",
    "events": [{"type": "PaymentFailed", "data": {"reason": "no cover"}}],
    "field": "lines.0.quantity",
    "headers": [["correlation-id", "Y2hlY2tvdXQtNw=="]],
    "input": {"user_id": "ada", "currency": "GBP", "lines": [], "payment_token": "tok_approve"},
    "message": "3 pieces are available",
    "name": "Ada",
    "note": "as agreed on the phone",
    "order_id": "order-1",
    "reason": "out of stock",
    "record": '{"type":"ConfirmOrder","command_id":"web-8c1f"}',
    "reference": "gw-31",
    "refunded": 0,
    "repeated": False,
    "requested": 3_998,
    "result": "accepted",
    "reservation_id": "order-1",
    "saga": "create_order",
    "saga_id": "order-1",
    "sku": "TEAPOT",
    "step": "reserveInventory",
    "steps": ["reserveInventory"],
    "timeout_ms": 30_000,
    "token": "tok_approve",
    "total": 3_998,
    "tracking": "RM-1",
    "undo_answers": "",
    "undone": ["reserveInventory"],
    "quantity": 2,
    "unit_price": 1_999,
    "url": "https://books.example/orderflow",
    "secret": "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
    "message_id": "evt_6a1f0c9d3b5e77886a1f0c9d3b5e7788",
    "event_types": ["order.OrderShipped"],
    "value": "eyJ0eXBlIjoiQ29uZmlybU9yZGVyIiwiY29tbWFuZF9pZCI6IndlYi04YzFmIn0=",
    "type": "CapturePayment",
    "user_id": "ada",
}


class NoExample(LookupError):
    """A field has to be of a form that cannot be made up; give its name a row in EXAMPLES."""


def specimen(message: Message) -> Any:
    """Its data as JSON. Raises NoExample."""
    schema = message.schema()
    return _value(schema, schema, message.name)


def _value(schema: Schema, root: Schema, name: str) -> Any:
    if "$ref" in schema:
        return _value(root["$defs"][schema["$ref"].rpartition("/")[2]], root, name)
    if "anyOf" in schema:
        return _value(schema["anyOf"][0], root, name)  # the other one is null
    if "const" in schema or "enum" in schema:
        return schema.get("const") or schema["enum"][0]
    match schema.get("type"):
        case "object" if "properties" in schema:
            fields = schema["properties"].items()
            return {field: _field(inner, root, field) for field, inner in fields}
        case "array":
            return [_field(schema["items"], root, name)]
        case "integer":
            return NOON_MS if name.endswith("_at_ms") else max(1, schema.get("minimum", 1))
        case "boolean":
            return True
        case "string" if "pattern" not in schema:
            return name
        case "string" if schema["pattern"] == ID_PATTERN:
            return f"{name}-1"
        case "object" | None:
            return {}
        case _:
            pass
    raise NoExample(f"`{name}` has to be {schema}: give it a row in EXAMPLES of {__name__}")


def _field(schema: Schema, root: Schema, name: str) -> Any:
    plain = "$ref" not in schema and "enum" not in schema and "properties" not in schema
    if plain and name in EXAMPLES and _takes(schema, EXAMPLES[name]):
        return EXAMPLES[name]
    return _value(schema, root, name)


def _takes(schema: Schema, example: Any) -> bool:
    """Whether the example is of the schema's type: a field's name may mean something else elsewhere."""
    if any("$ref" in choice for choice in (schema, schema.get("items", {}))):
        return False
    if "anyOf" in schema:
        return any(_takes(choice, example) for choice in schema["anyOf"] if "$ref" not in choice)
    kinds = {"string": str, "integer": int, "array": list, "object": dict}
    return "type" not in schema or isinstance(example, kinds.get(schema["type"], bool))
