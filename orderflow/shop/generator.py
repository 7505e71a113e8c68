"""A shop that never was: users, Zipf-popular SKUs, orders with their whole lives, bad commands
among the good.

Pure and lazy: the same `ShopPlan` gives the same commands in the same order, one at a time. As many
orders as the plan's ``open_orders`` live at once, so the commands of different aggregates mix as
they do in a real shop. What a command comes to depends on nothing but earlier commands of its own
aggregate, because those of different aggregates are decided at the same time.
"""

from collections.abc import Iterator

from orderflow.shop.mischief import Mischief
from orderflow.shop.planned import PlannedCommand
from orderflow.shop.stories import Shop, ShopPlan

__all__ = ["ShopPlan", "generate"]


def generate(plan: ShopPlan) -> Iterator[PlannedCommand]:
    """All commands of the shop, in the order in which they have to be sent."""
    shop = Shop(plan)
    mischief = Mischief(shop)
    bad_for_each_good = plan.bad_share / (1 - plan.bad_share)
    owed = 0.0
    for command in _good(shop):
        shop.recent.append(command)
        yield command
        owed += bad_for_each_good * shop.random.uniform(0, 2)
        while owed >= 1:
            owed -= 1
            yield mischief.next()


def _good(shop: Shop) -> Iterator[PlannedCommand]:
    """The opening, then all orders, a random one of the open ones at each step, then the closing."""
    yield from shop.opening()
    numbers = iter(range(1, shop.plan.orders + 1))
    open_: list[Iterator[PlannedCommand]] = []
    while True:
        while len(open_) < shop.plan.open_orders and (number := next(numbers, None)) is not None:
            open_.append(shop.order(number))
        if not open_:
            break
        chosen = shop.random.randrange(len(open_))
        command = next(open_[chosen], None)
        if command is not None:
            yield command
        else:  # the story is told; the last one takes its place
            open_[chosen] = open_[-1]
            open_.pop()
    yield from shop.closing()
