"""Which changes of a message are refused, why, and that what is let through can really be read."""

import json
from copy import deepcopy
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import event, given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator as Validator

from commands.order import CreateOrder
from orderflow import schema_files
from orderflow.contract import messages as table
from orderflow.contract import released
from orderflow.contract.compatibility import Promise, UnknownKeyword, problems
from orderflow.contract.messages import Kind, Message, current, messages
from orderflow.contract.revisions import message_in
from schemas.order import OrderCancelled, OrderState

TEXT = {"type": "string"}
NUMBER = {"type": "integer"}
MAYBE = {"anyOf": [TEXT, {"type": "null"}], "default": None}


def fields(*required: str, **properties: Any) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "required": list(required)}


BASE = fields("a", a=TEXT, b=MAYBE)


@pytest.mark.parametrize(
    ("new", "promise", "says"),
    [
        (BASE, Promise.FULL, []),
        (fields("a", a=TEXT, b=MAYBE, c=MAYBE), Promise.FULL, []),
        (fields("a", "c", a=TEXT, b=MAYBE, c=TEXT), Promise.BACKWARD, ["`c` is required"]),
        (fields("a", "c", a=TEXT, b=MAYBE, c=TEXT), Promise.FULL, ["`c` is required"]),
        (fields("a", a=TEXT), Promise.BACKWARD, ["`b` is not known any more"]),
        (fields(b=MAYBE), Promise.BACKWARD, ["`a` is not known any more"]),
        (
            fields("z", z=TEXT, b=MAYBE),
            Promise.FULL,
            ["`a` is not known any more", "`z` is required", "`a` is required, but need not be"],
        ),
        (
            fields("a", a=NUMBER, b=MAYBE),
            Promise.BACKWARD,
            ["`a` is string in the one and integer"],
        ),
        (fields(a=TEXT, b=MAYBE), Promise.BACKWARD, []),
        (
            fields(a=TEXT, b=MAYBE),
            Promise.FULL,
            ["`a` is required, but need not be there, for who"],
        ),
        (fields("a", a=TEXT, b=TEXT), Promise.BACKWARD, ["`b` is null"]),
        (fields("a", a=MAYBE, b=MAYBE), Promise.BACKWARD, []),
        (fields("a", a=MAYBE, b=MAYBE), Promise.FULL, ["`a` is null", "for who reads"]),
        (
            fields("a", a=TEXT, b=MAYBE | {"default": "x"}),
            Promise.BACKWARD,
            ["`b` left out means 'x', and meant None"],
        ),
        (BASE | {"additionalProperties": False}, Promise.BACKWARD, []),
    ],
)
def test_a_change_of_fields(new: dict[str, Any], promise: Promise, says: list[str]) -> None:
    found = " | ".join(problems(BASE, new, promise))
    assert all(words in found for words in says)
    assert bool(found) == bool(says)


@pytest.mark.parametrize(
    ("old", "new", "backward", "forward"),
    [
        ({"enum": ["a", "b"]}, {"enum": ["a", "b", "c"]}, True, False),
        ({"enum": ["a", "b"]}, {"enum": ["a"]}, False, True),
        ({"enum": ["a"]}, TEXT, True, False),
        ({"const": "a"}, {"enum": ["a", "b"]}, True, False),
        ({"enum": ["a"]}, TEXT | {"maxLength": 9}, False, False),
        (NUMBER, {"type": "number"}, True, False),
        (NUMBER | {"minimum": 0}, NUMBER, True, False),
        (NUMBER | {"maximum": 9}, NUMBER | {"maximum": 10}, True, False),
        (NUMBER | {"exclusiveMinimum": 0}, NUMBER | {"exclusiveMinimum": 1}, False, True),
        (TEXT | {"pattern": "^a"}, TEXT, True, False),
        (TEXT | {"pattern": "^a"}, TEXT | {"pattern": "^b"}, False, False),
        (TEXT | {"minLength": 1}, TEXT | {"minLength": 2}, False, True),
        (NUMBER | {"not": {"const": 0}}, NUMBER, True, False),
        ({"type": "array", "items": TEXT}, {"type": "array", "items": NUMBER}, False, False),
        (
            {"type": "array", "items": TEXT, "maxItems": 3},
            {"type": "array", "items": TEXT, "maxItems": 2},
            False,
            True,
        ),
        (TEXT, {}, True, False),
        ({"type": "object"}, fields("a", a=TEXT), False, True),
        ({"type": ["string", "null"]}, MAYBE, True, True),
        (fields("a", a=TEXT), {"type": "object", "additionalProperties": NUMBER}, False, False),
        (
            {"type": "object", "additionalProperties": NUMBER},
            {"type": "object", "additionalProperties": {"type": "number"}},
            True,
            False,
        ),
    ],
)
def test_a_change_of_one_field(
    old: dict[str, Any], new: dict[str, Any], backward: bool, forward: bool
) -> None:
    before, after = fields("x", x=old), fields("x", x=new)
    assert (not problems(before, after, Promise.BACKWARD)) is backward
    assert (not problems(after, before, Promise.BACKWARD)) is forward
    assert (not problems(before, after, Promise.FULL)) is (backward and forward)


def test_a_problem_deep_inside_is_named_with_its_path() -> None:
    def nested(line: dict[str, Any]) -> dict[str, Any]:
        whole = fields("lines", lines={"type": "array", "items": {"$ref": "#/$defs/Line"}})
        return whole | {"$defs": {"Line": line}}

    (problem,) = problems(
        nested(fields("sku", sku=TEXT)), nested(fields("sku", sku=NUMBER)), Promise.BACKWARD
    )[:1]
    assert problem.startswith("`lines[].sku` is string")


def test_a_reader_that_refuses_unknown_fields_has_to_know_all_of_them() -> None:
    closed = {"additionalProperties": False}
    assert problems(BASE | closed, fields("a", a=TEXT) | closed, Promise.BACKWARD)
    free = {"type": "object", "additionalProperties": True}
    assert problems(fields("x", x=free), fields("x", x=fields() | closed), Promise.BACKWARD)


def test_a_keyword_that_the_check_does_not_know_is_not_passed_over() -> None:
    with pytest.raises(UnknownKeyword, match=r"`a`: multipleOf cannot be judged"):
        problems(BASE, fields("a", a=NUMBER | {"multipleOf": 5}, b=MAYBE), Promise.BACKWARD)


# Any two schemas, and any value.


def scalars() -> st.SearchStrategy[dict[str, Any]]:
    bounds = st.integers(-3, 3)
    return st.one_of(
        st.just(TEXT),
        st.builds(lambda n: TEXT | {"maxLength": n}, st.integers(1, 4)),
        st.builds(lambda n: TEXT | {"minLength": n}, st.integers(0, 2)),
        st.just(NUMBER),
        st.builds(lambda low: NUMBER | {"minimum": low}, bounds),
        st.builds(lambda low: NUMBER | {"exclusiveMaximum": low}, bounds),
        st.just({"type": "number"}),
        st.just({"type": "boolean"}),
        st.just({}),
        st.sets(st.sampled_from("abc"), min_size=1).map(lambda s: {"enum": sorted(s)}),
    )


def objects(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    names = st.dictionaries(st.sampled_from("pqr"), inner, min_size=1, max_size=3)
    return st.builds(
        lambda known, always, closed: (
            fields(*sorted(always & set(known)), **known)
            | ({"additionalProperties": False} if closed else {})
        ),
        names,
        st.sets(st.sampled_from("pqr")),
        st.booleans(),
    )


def any_schema() -> st.SearchStrategy[dict[str, Any]]:
    return st.recursive(
        scalars(),
        lambda inner: st.one_of(
            objects(inner),
            st.builds(lambda items: {"type": "array", "items": items}, inner),
            st.builds(lambda one: {"anyOf": [one, {"type": "null"}]}, inner),
        ),
        max_leaves=5,
    )


def changed(schema: Any, draw: Any) -> Any:
    """The schema, with a change here or there."""
    schema = deepcopy(schema)
    if "properties" in schema:
        for name in list(schema["properties"]):
            schema["properties"][name] = changed(schema["properties"][name], draw)
        if draw(st.booleans()):
            schema["properties"].setdefault(draw(st.sampled_from("pqrs")), draw(scalars()))
        if schema["required"] and draw(st.booleans()):
            schema["required"].pop()
        return schema
    return draw(
        st.one_of(st.just(schema), st.just({"anyOf": [schema, {"type": "null"}]}), scalars())
    )


def values_of(schema: dict[str, Any]) -> st.SearchStrategy[Any]:
    """What a writer that knows only this schema may write."""
    if "anyOf" in schema:
        return st.one_of(*map(values_of, schema["anyOf"]))
    if "enum" in schema:
        return st.sampled_from(schema["enum"])
    match schema.get("type"):
        case "string":
            return st.text(
                "ab", min_size=schema.get("minLength", 0), max_size=schema.get("maxLength", 5)
            )
        case "integer":
            high = schema.get("exclusiveMaximum", 10) - 1
            return st.integers(schema.get("minimum", -10), high)
        case "number":
            return st.one_of(st.integers(-9, 9), st.floats(-9, 9))
        case "boolean":
            return st.booleans()
        case "null":
            return st.none()
        case "array":
            return st.lists(values_of(schema["items"]), max_size=3)
        case "object":
            every = {name: values_of(inner) for name, inner in schema["properties"].items()}
            always = {name: every.pop(name) for name in schema["required"]}
            return st.fixed_dictionaries(always, optional=every)
        case _:
            return st.one_of(st.none(), st.integers(-3, 3), st.text("ab", max_size=2))


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_what_is_let_through_can_be_read(data: st.DataObject) -> None:
    old = data.draw(objects(any_schema()))
    new = changed(old, data.draw)
    value = data.draw(values_of(old))
    Validator(old).validate(value)
    if not problems(old, new, Promise.BACKWARD):
        event("backward")
        Validator(new).validate(value)
    if not problems(old, new, Promise.FULL):
        event("full")
        later = data.draw(values_of(new))
        Validator(old).validate(later)


@given(any_schema())
def test_a_schema_is_compatible_with_itself(schema: dict[str, Any]) -> None:
    assert not problems(schema, schema, Promise.FULL)


# The messages that there are.


def test_nothing_that_was_released_is_broken() -> None:
    assert not released.incompatibilities(schema_files.ROOT)
    assert not released.missing(schema_files.ROOT), "run: python -m orderflow.schema_files"


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A folder in which the present schemas are released."""
    schema_files.write(dict(released.missing(tmp_path)))
    return tmp_path


def with_type(monkeypatch: pytest.MonkeyPatch, old: type, new: Any) -> None:
    """The table as if the type were another one."""
    found = [
        Message(m.owner, m.kind, m.name, m.version, new) if m.type is old else m for m in messages()
    ]
    monkeypatch.setattr(released, "messages", lambda: tuple(found))


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        (
            OrderCancelled,
            msgspec.defstruct("OrderCancelled", [("why", str)]),
            ["`reason` is not known any more", "`why` is required"],
        ),
        (OrderCancelled, msgspec.defstruct("OrderCancelled", [("reason", int)]), ["string in the"]),
        (
            OrderCancelled,
            msgspec.defstruct("OrderCancelled", [("reason", str), ("by", str)]),
            ["`by` is required"],
        ),
        (CreateOrder, type("CreateOrder", (CreateOrder,), {}), []),
    ],
)
def test_an_incompatible_change_is_told_with_its_file(
    checkout: Path, monkeypatch: pytest.MonkeyPatch, old: type, new: Any, says: list[str]
) -> None:
    with_type(monkeypatch, old, new)
    found = released.incompatibilities(checkout)
    assert all(line.startswith("schemas/released/order/OrderCancelled.v1.json: ") for line in found)
    assert all(any(words in line for line in found) for words in says)
    assert bool(found) == bool(says)


def test_every_form_of_a_version_counts_and_not_only_the_newest(
    checkout: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    optional = msgspec.defstruct("OrderCancelled", [("reason", str), ("by", str | None, None)])
    with_type(monkeypatch, OrderCancelled, optional)
    assert not released.incompatibilities(checkout)
    added = released.missing(checkout)
    assert [path.name for path in added] == ["OrderCancelled.v1.2.json"]
    schema_files.write(dict(added))
    retyped = msgspec.defstruct("OrderCancelled", [("reason", str), ("by", int | None, None)])
    with_type(monkeypatch, OrderCancelled, retyped)
    (first, *_) = released.incompatibilities(checkout)
    assert first.startswith("schemas/released/order/OrderCancelled.v1.2.json: `by` is")


def test_a_type_that_is_gone_and_a_version_that_went_back_are_told(checkout: Path) -> None:
    folder = checkout / released.FOLDER / "order"
    (folder / "OrderLost.v1.json").write_text("{}", "utf-8")
    (folder / "OrderShipped.v2.json").write_text("{}", "utf-8")
    found = " | ".join(released.incompatibilities(checkout))
    assert "order/OrderLost.v1: OrderLost is gone" in found
    assert "order/OrderShipped.v2: the code has gone back to version 1" in found


def test_words_for_people_are_no_change() -> None:
    (state,) = (m for m in current() if m.type is OrderState)
    texts = json.dumps(released.bare(state.schema()))
    assert "description" not in texts
    (item,) = (m for m in current() if m.name == "ItemRegistered")
    assert '"description": {"type": "string"}' in json.dumps(released.bare(item.schema()))


def test_the_command_refuses_an_incompatible_change_and_writes_nothing(
    checkout: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with_type(monkeypatch, OrderCancelled, msgspec.defstruct("OrderCancelled", [("why", str)]))
    before = sorted(checkout.rglob("*"))
    for arguments in (["--check"], []):
        assert schema_files.main(arguments, checkout) == 1
        said = capsys.readouterr().err
        assert "`reason` is not known any more" in said
        assert "UPCASTERS" in said
    assert sorted(checkout.rglob("*")) == before


def test_each_kind_of_message_has_a_promise() -> None:
    assert set(released.PROMISES) == set(Kind)
    assert {m.kind for m in table.messages()} == set(Kind)
    assert message_in("order/OrderCreated.v12.3.json", ".json") == ("order/OrderCreated.v12", 3)
