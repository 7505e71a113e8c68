"""The command and query bus: one story, in this process or over Kafka.

    python examples/bus.py            # no servers: everything in this process
    python examples/bus.py --kafka    # run `orderflow up` in another terminal first

What a service does stands in `story` and does not know which of the two it is.
"""

import asyncio
import sys
import uuid

from commands.aggregate import Command
from commands.inventory import RegisterItem
from commands.order import CreateOrder, Line
from commands.user import RegisterUser
from orderflow.bus import (
    Bus,
    Call,
    CommandCall,
    GetStock,
    InvalidMessage,
    NoHandler,
    Proceed,
    Query,
    UserOrderCount,
    in_process_bus,
    kafka_bus,
    standard,
)
from orderflow.placing import NotPlaced, Placed, StillRunning
from orderflow.servers import located
from runtime.settings import Settings
from schemas.records import Outcome


class AddToWishList(Command):
    """A command of this service's own: no aggregate of the pipeline decides it, but a function here."""

    sku: str


class WishList(Query[tuple[str, ...]]):
    """A query of this service's own; mypy knows that it is answered with a tuple of SKUs."""

    user_id: str


class WishLists:
    """What the service keeps by itself."""

    def __init__(self) -> None:
        self._wishes: dict[str, list[str]] = {}

    async def add(self, call: CommandCall[AddToWishList]) -> Outcome:
        """Repeating it changes nothing, so a call that is tried again does no harm."""
        wishes = self._wishes.setdefault(call.aggregate_id, [])
        if call.command.sku not in wishes:
            wishes.append(call.command.sku)
        return call.accepted(version=len(wishes))

    async def of(self, query: WishList) -> tuple[str, ...]:
        """In the order of wishing."""
        return tuple(self._wishes.get(query.user_id, ()))


async def narrating(call: Call, proceed: Proceed) -> object:
    """A middleware of this service's own: it sees every message, on its way in and out."""
    print(f"  → {call.kind} {call.name}")
    return await proceed(call)


async def story(bus: Bus) -> None:
    """A user, an item, an order, and what goes wrong."""
    run = uuid.uuid4().hex[:8]  # part of every id, so that each run has a new user, item and order
    user, sku = f"ada-{run}", f"lantern-{run}"

    wish_lists = WishLists()
    bus.register_command(AddToWishList, wish_lists.add, aggregate="wish-list")
    bus.register_query(WishList, wish_lists.of)
    await bus.execute_command(AddToWishList(sku=sku), aggregate_id=user)
    print("wished for:", len(await bus.execute_query(WishList(user_id=user))))

    ada = RegisterUser(name="Ada")
    outcome = await bus.execute_command(ada, aggregate_id=user, command_id=f"signup-{run}")
    again = await bus.execute_command(ada, aggregate_id=user, command_id=f"signup-{run}")
    print("the same command id, the same outcome:", outcome == again)

    item = RegisterItem(description="White metal lantern", opening_stock=10)
    stocked = await bus.execute_command(item, aggregate_id=sku)
    stock = await bus.execute_query(GetStock(sku=sku), at_least=stocked)  # reads its own write
    print("available:", stock.available if stock else None)

    refused = await bus.execute_command(ada, aggregate_id=user)
    print("refused:", refused.code)

    line = Line(sku=sku, quantity=1, unit_price=339)
    order = CreateOrder(user_id=user, currency="GBP", lines=(line,))
    created = await bus.execute_command(order, aggregate_id=f"order-{run}")
    count = await bus.execute_query(UserOrderCount(user_id=user), at_least=created)
    print("orders:", count)

    for token in ("tok_approve", "tok_decline"):
        placement = await bus.place_order(
            f"{token}-{run}",
            user_id=user,
            currency="GBP",
            lines=[{"sku": sku, "quantity": 2, "unit_price": 339}],
            payment_token=token,
        )
        match placement:
            case Placed():
                print("placed")
            case NotPlaced(status=status, code=code):
                print(f"not placed: {status}, {code}")
            case StillRunning(message=message):
                print(message)

    for name, data in (("RegisterUsr", {}), ("RegisterUser", {"name": "", "age": 36})):
        try:
            bus.command(name, data)
        except (NoHandler, InvalidMessage) as error:
            print(f"{error.code}: {error}")


async def main() -> None:
    """On the bus that the command line names."""
    middleware = (narrating, *standard())
    if "--kafka" in sys.argv[1:]:
        async with kafka_bus(located(Settings()), middleware) as bus:
            await story(bus)
    else:
        async with in_process_bus(middleware) as bus:
            await story(bus)


if __name__ == "__main__":
    asyncio.run(main())
