"""What processors may write for the views, drawn by hypothesis."""

from __future__ import annotations

from hypothesis import strategies as st

from schemas.money import MAX_AMOUNT
from schemas.order import OrderStatus
from schemas.saga import SagaStatus
from tests.support import events
from tests.support.events import Record

PARTITIONS = 2
IDS = st.sampled_from(["a", "b", "c", "d"])
SAGA_FIELDS = st.fixed_dictionaries(
    {},
    optional={
        "correlation_id": st.just("c-1"),
        "code": st.just("timed_out"),
        "message": st.sampled_from(["", "no answer"]),
        "wakes_at_ms": st.sampled_from([0, events.NOON_MS]),
        "undone": st.sampled_from([("one",), ("two", "one")]),
        "resolved_by": st.just("ann"),
    },
)
USERS = st.sampled_from(["u-1", "u-2", "u-3"])
OWNERS = {"a": ("u-1", "EUR"), "b": ("u-2", "USD"), "c": ("u-3", "EUR"), "d": ("u-1", "USD")}
"""First letters of orders, and their users and currencies where these stay."""

DELETED_BY_OTHERS = ("a", "b")
"""First letters of orders that somebody else deletes, without a version (docs/ARCHITECTURE.md, Limits)."""


@st.composite
def histories(draw: st.DrawFn, *, orders_stay: bool = False) -> list[list[Record]]:
    """Per partition: records as processors write them: versions 1..n of each key, deletions, debris.

    ``orders_stay``: none is deleted, and each keeps its user and its currency.
    """
    partitions: list[list[Record]] = []
    for number in range(PARTITIONS):
        versions: dict[tuple[str, str], int] = {}
        deleted: set[tuple[str, str]] = set()
        log: list[Record] = []
        for _ in range(draw(st.integers(0, 25))):
            aggregate = draw(
                st.sampled_from(["order", "order", "order", "inventory", "user", "saga"])
            )
            key = f"{draw(IDS)}{number}"
            version = versions.get((aggregate, key), 0) + 1
            what = draw(st.integers(0, 19))
            if what == 0:
                log.append(Record(aggregate, key, b"{not json"))
                continue
            if what == 1:
                log.append(Record(aggregate, f"{key}/part", None))
                continue
            # An order that somebody else deletes is always one user's, and was not deleted at a version
            # before: else a marker stays at a user of whom nothing is known any more.
            by_others = key.startswith(DELETED_BY_OTHERS) and (aggregate, key) not in deleted
            if what == 2 and (aggregate != "order" or (by_others and not orders_stay)):
                versions[aggregate, key] = 0
                log.append(events.tombstone(aggregate, key, None))
                continue
            versions[aggregate, key] = version
            stays = orders_stay and aggregate == "order"
            if what in (3, 4) and not stays:
                deleted.add((aggregate, key))
                log.append(events.tombstone(aggregate, key, version))
            else:
                owner = OWNERS[key[0]] if stays else None
                log.append(draw(an_event(aggregate, key, version, owner)))
        partitions.append(log)
    return partitions


@st.composite
def an_event(
    draw: st.DrawFn,
    aggregate: str,
    key: str,
    version: int,
    owner: tuple[str, str] | None = None,
) -> Record:
    """Any state of an aggregate at a version. ``owner``: user and currency of an order, if they are known."""
    if aggregate == "inventory":
        on_hand = draw(st.integers(0, 12))
        reserved = draw(st.integers(0, on_hand))
        return events.stock(key, version, on_hand=on_hand, reserved=reserved)
    if aggregate == "user":
        email = draw(st.none() | st.just("a@b.c"))
        return events.user(key, version, email=email, active=draw(st.booleans()))
    if aggregate == "saga":
        status = draw(st.sampled_from(SagaStatus))
        answers = draw(st.sampled_from(["A", "+", "+-", "++=", "Ab"]))
        moved = draw(st.integers(0, 2))
        undo_answers = draw(st.sampled_from(["", "A", "+ ", "+-= a"]))
        return events.saga(
            key,
            version,
            status=status,
            moved=moved,
            answers=answers,
            undo_answers=undo_answers,
            **draw(SAGA_FIELDS),
        )
    user = "u-1" if key.startswith(DELETED_BY_OTHERS) else draw(USERS)
    user, currency = owner or (user, draw(st.sampled_from(["EUR", "USD"])))
    return events.order(
        key,
        version,
        user=user,
        status=draw(st.sampled_from(OrderStatus)),
        total=draw(st.sampled_from([0, 1, 999, MAX_AMOUNT - 1, MAX_AMOUNT])),
        currency=currency,
        created=events.NOON_MS + draw(st.integers(0, 2)),
    )


@st.composite
def late_and_repeated(draw: st.DrawFn) -> tuple[list[Record], list[Record]]:
    """The records of some sagas as they were written, and as halted workers may bring them."""
    written: list[Record] = []
    for key in ("a", "b", "c"):
        for version in range(1, draw(st.integers(1, 6))):
            deleted = draw(st.integers(0, 4)) == 0
            written.append(
                events.tombstone("saga", key, version)
                if deleted
                else draw(an_event("saga", key, version))
            )
    again = draw(st.lists(st.sampled_from(written), max_size=6)) if written else []
    return written, draw(st.permutations([*written, *again]))
