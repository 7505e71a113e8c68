"""An aggregate that has changed: parcels, whose event, state, part and command each have old versions.

Version 1 of the event had no carrier, version 2 a weight in kilograms; the present one has grams.
"""

from typing import ClassVar

import msgspec

from commands.aggregate import Aggregate, Command, Decision, Loaded, OldForm
from schemas.upcasting import Json


def _with_a_carrier(data: Json) -> Json:
    return data | {"carrier": "unknown"}


def _in_grams(data: Json) -> Json:
    return {"carrier": data["carrier"], "grams": data["kilograms"] * 1_000}


class ParcelSent(msgspec.Struct, frozen=True):
    """Third version."""

    UPCASTERS: ClassVar = (_with_a_carrier, _in_grams)

    carrier: str
    grams: int


def _total_in_grams(data: Json) -> Json:
    return {"grams": data["kilograms"] * 1_000, "parcels": data["parcels"]}


class Depot(msgspec.Struct, frozen=True):
    """Second version."""

    UPCASTERS: ClassVar = (_total_in_grams,)

    grams: int
    parcels: int


class Label(msgspec.Struct, frozen=True):
    """A part; second version: it had no colour."""

    UPCASTERS: ClassVar = (lambda data: data | {"colour": "white"},)

    text: str
    colour: str


class SendParcelV1(Command):
    """What clients of an older release send."""

    kilograms: int
    label: str = "none"


def _command_in_grams(data: Json) -> Json:
    return {"grams": data["kilograms"] * 1_000, "label": data["label"]}


class SendParcel(Command):
    """Second version."""

    UPCASTERS: ClassVar = (OldForm(SendParcelV1, _command_in_grams),)

    grams: int
    label: str = "none"


def _decide(_: Loaded, command: SendParcel) -> Decision:
    return (ParcelSent("post", command.grams),)


def _evolve(loaded: Loaded, event: ParcelSent, _at_ms: int) -> Loaded:
    before = loaded.root or Depot(0, 0)
    return Loaded(Depot(before.grams + event.grams, before.parcels + 1), loaded.parts)


PARCEL = Aggregate(
    name="parcel",
    commands=(SendParcel,),
    events=(ParcelSent,),
    root_type=Depot,
    decide=_decide,
    evolve=_evolve,
    part_type=Label,
    parts_of=lambda command: (command.label,),
)
