"""`orderflow query`: the views, for people and scripts."""

from enum import StrEnum
from typing import Annotated, Final, TypeVar

import typer

from orderflow.cli.arguments import checked_id
from orderflow.cli.context import connected
from orderflow.cli.exits import Exit, Refused
from orderflow.cli.output import Output, OutputOption, answers, money, print_json, table
from orderflow.cli.shown import orders_table, stock_table, users_table
from readmodels import Queries

MOST_ROWS: Final = 1_000

app = typer.Typer(help="Ask the views.", no_args_is_help=True)

Answer = TypeVar("Answer")
Limit = Annotated[int, typer.Option(min=1, max=MOST_ROWS, help="Most rows to show.")]


class Ranking(StrEnum):
    """What makes a user a top user."""

    SPENT = "spent"
    ORDERS = "orders"


def _queries(asked_for: str | None = None) -> Queries:
    """Return the views, to be asked for the aggregate of this id. Raises Refused for what is none."""
    if asked_for is not None:
        checked_id("ID", asked_for)
    return Queries(connected(kafka=False))


@app.command()
def order(
    order_id: Annotated[str, typer.Argument(help="Id of the order.")],
    output: OutputOption = Output.TABLE,
) -> None:
    """One order with its lines."""
    with _queries(order_id) as queries:
        found = _there(queries.order(order_id), f"order {order_id}")
    if output is Output.JSON:
        print_json(found)
        return
    out = answers()
    out.show(orders_table(f"Order {order_id}", [found]))
    rows = (
        (line.sku, line.quantity, money(line.unit_price, found.currency)) for line in found.lines
    )
    out.show(table("Lines", ("sku", "quantity", "unit price"), rows))


@app.command()
def user(
    user_id: Annotated[str, typer.Argument(help="Id of the user.")],
    output: OutputOption = Output.TABLE,
) -> None:
    """One user: profile, orders by status, amount spent."""
    with _queries(user_id) as queries:
        found = _there(queries.user(user_id), f"user {user_id}")
    if output is Output.JSON:
        print_json(found)
    else:
        answers().show(users_table(f"User {user_id}", [found]))


@app.command()
def stock(
    sku: Annotated[str, typer.Argument(help="The SKU.")], output: OutputOption = Output.TABLE
) -> None:
    """The stock of one SKU."""
    with _queries(sku) as queries:
        found = _there(queries.stock(sku), f"SKU {sku}")
    if output is Output.JSON:
        print_json(found)
    else:
        answers().show(stock_table(f"Stock of {sku}", [found]))


@app.command()
def orders(
    user_id: Annotated[str, typer.Argument(help="Id of the user.")],
    cursor: Annotated[str | None, typer.Option(help="`next` of the page before.")] = None,
    limit: Limit = 50,
    output: OutputOption = Output.TABLE,
) -> None:
    """A user's orders, newest first, a page at a time."""
    with _queries(user_id) as queries:
        page = queries.orders_of(user_id, cursor, limit)
    if output is Output.JSON:
        print_json(page)
        return
    out = answers()
    out.show(orders_table(f"Orders of {user_id}", page.orders))
    if page.next is not None:
        out.say(f"More with --cursor {page.next}")


@app.command("low-stock")
def low_stock(limit: Limit = 50, output: OutputOption = Output.TABLE) -> None:
    """SKUs at or below their threshold, those with the fewest pieces first."""
    with _queries() as queries:
        found = queries.low_stock(limit)
    if output is Output.JSON:
        print_json(found)
    else:
        answers().show(stock_table("Low stock", found))


@app.command("top-users")
def top_users(
    by: Annotated[Ranking, typer.Option(help="What they are ranked by.")] = Ranking.SPENT,
    currency: Annotated[str, typer.Option(help="Of the amounts, with --by spent.")] = "GBP",
    limit: Limit = 10,
    output: OutputOption = Output.TABLE,
) -> None:
    """Who spent most in a currency, or who has most orders."""
    with _queries() as queries:
        found = queries.top_users(by.value, currency, limit)
    if output is Output.JSON:
        print_json(found)
        return
    by_amount = by is Ranking.SPENT
    rows = ((row.user_id, money(row.value, currency) if by_amount else row.value) for row in found)
    answers().show(table("Top users", ("user", by.value), rows))


def _there(found: Answer | None, what: str) -> Answer:
    if found is None:
        raise Refused(
            f"the views know no {what}",
            "If it is new, a projector may be behind: `orderflow doctor` says how far.",
            Exit.NO,
        )
    return found
