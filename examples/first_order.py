"""A first order, from the command to the view. Run `orderflow up` in another terminal, then this.

Servers are found as the command line finds them: in the environment, else under ORDERFLOW_HOME.
"""

import uuid

from commands.aggregate import Command
from commands.inventory import ReceiveStock, RegisterItem
from commands.order import CreateOrder, Line
from commands.user import RegisterUser
from orderflow.commanding import outgoing
from orderflow.servers import located
from readmodels import Queries
from runtime.client import CommandClient
from runtime.settings import Settings

settings = located(Settings())
run = uuid.uuid4().hex[:8]  # part of every id, so that each run has a new user, item and order
user, sku, order = f"ada-{run}", f"lantern-{run}", f"order-{run}"

todo: list[tuple[str, Command]] = [
    (user, RegisterUser(name="Ada")),
    (sku, RegisterItem(description="White metal lantern")),
    (sku, ReceiveStock(quantity=10)),
    (
        order,
        CreateOrder(
            user_id=user, currency="GBP", lines=(Line(sku=sku, quantity=2, unit_price=339),)
        ),
    ),
]

with CommandClient(settings) as client, Queries(settings) as queries:
    for aggregate_id, command in todo:
        outcome = client.execute(outgoing(aggregate_id, command))
        print(f"{outcome.type} {aggregate_id}: {outcome.status}, version {outcome.version}")
    # An outcome is a decision; the view follows a moment later. Wait for it to read your own write.
    queries.wait_for("orders", order, outcome.version)
    print(queries.order(order))
