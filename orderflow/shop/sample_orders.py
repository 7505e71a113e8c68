"""Three orders placed by one call, which end in three ways; for `orderflow demo`."""

import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Final

from commands.inventory import RegisterItem
from commands.user import RegisterUser
from orderflow.commanding import outgoing
from orderflow.placing import NotPlaced, OrderClient, Placed, Placement
from readmodels import Queries
from readmodels.answers import SagaAnswer
from runtime.client import CommandClient
from runtime.settings import Settings
from schemas.saga import ENDED

WITHIN_S: Final = 60.0
SEEN_WITHIN_S: Final = 10.0
USER: Final = "demo-user"
SKUS: Final = ("demo-teapot", "demo-mug")


@dataclass(frozen=True, slots=True)
class Sample:
    """An order, how it has to end, and how it did. ``saga``: as the view has it."""

    title: str
    placement: Placement
    saga: SagaAnswer | None
    expected: str

    @property
    def good(self) -> bool:
        """Whether it ended as it had to, also in the view."""
        match self.placement:
            case Placed():
                return self.expected == "placed" and self._is_shown("completed")
            case NotPlaced(code=code, undone=undone):
                return code == self.expected and bool(undone) and self._is_shown("compensated")
            case _:
                return False

    def _is_shown(self, status: str) -> bool:
        return self.saga is not None and self.saga.status == status


_SAMPLES: Final = (
    ("a completed order", "tok_approve", "placed"),
    ("a declined payment, and what was undone", "tok_decline", "payment_declined"),
    ("a gateway that does not answer: a timeout", "tok_down", "timed_out"),
)


def place_samples(
    settings: Settings, look_after: Callable[[], None], on_progress: Callable[[str], None]
) -> list[Sample]:
    """Places them all at once and waits for their ends. Raises NotDelivered, RedisError."""
    _stock(settings)
    ids = [f"sample-{number}-{uuid.uuid4().hex[:6]}" for number in range(len(_SAMPLES))]
    with OrderClient(settings) as orders, ThreadPoolExecutor(len(_SAMPLES)) as threads:
        futures = [
            threads.submit(_place, orders, order_id, token)
            for order_id, (_, token, _) in zip(ids, _SAMPLES, strict=True)
        ]
        placements = []
        for (title, _, _), future in zip(_SAMPLES, futures, strict=True):
            on_progress(title)
            look_after()
            placements.append(future.result())
    with Queries(settings) as queries:
        return [
            Sample(title, placement, _seen(queries, order_id), expected)
            for order_id, placement, (title, _, expected) in zip(
                ids, placements, _SAMPLES, strict=True
            )
        ]


def _place(orders: OrderClient, order_id: str, token: str) -> Placement:
    lines = [{"sku": sku, "quantity": 1, "unit_price": 1_999} for sku in SKUS]
    return orders.place_order(
        order_id, timeout=WITHIN_S, user_id=USER, lines=lines, currency="GBP", payment_token=token
    )


def _stock(settings: Settings) -> None:
    with CommandClient(settings) as client:
        client.execute(outgoing(USER, RegisterUser(name="Ada")))
        for sku in SKUS:
            item = RegisterItem(description=sku, opening_stock=10, low_stock_threshold=0)
            client.execute(outgoing(sku, item))


def _seen(queries: Queries, order_id: str) -> SagaAnswer | None:
    """The saga in the view, once it has ended there, too."""
    version = 0
    while True:
        version = queries.wait_for("sagas", order_id, version + 1, SEEN_WITHIN_S)
        saga = queries.saga(order_id)
        if saga is not None and saga.status in ENDED:
            return saga
