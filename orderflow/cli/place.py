"""`orderflow place-order`: one order across all services, and how it ended."""

import re
from typing import Annotated, Any, Final

import typer

from orderflow.cli.arguments import MAX_SECONDS, checked_id, shortened
from orderflow.cli.context import connected
from orderflow.cli.exits import Exit, Refused, quit_with
from orderflow.cli.output import Output, OutputOption, Styled, answers, plain, print_json
from orderflow.placing import NotPlaced, OrderClient, Placed, Placement, StillRunning
from sagas.create_order import Coordination
from schemas.decoding import whole_number
from schemas.ids import is_id

LINE: Final = "SKU:QUANTITY:UNIT_PRICE"

_is_currency: Final = re.compile(r"[A-Z]{3}").fullmatch

CoordinationOption = Annotated[
    Coordination, typer.Option(help="One saga, or services that react to each other.")
]
"""How the services work together on an order, as an option of a command."""


def place_order(
    order_id: Annotated[
        str, typer.Argument(metavar="ORDER_ID", help="The same again places no second order.")
    ],
    lines: Annotated[list[str], typer.Argument(metavar=LINE, help="Price in minor units.")],
    *,
    user: Annotated[str, typer.Option(help="Id of the user who orders.")],
    currency: Annotated[str, typer.Option(help="ISO 4217.")] = "GBP",
    payment_token: Annotated[
        str, typer.Option(help="Payment method, as the gateway knows it; see docs/PAYMENTS.md.")
    ] = "tok_approve",
    coordination: CoordinationOption = "orchestration",
    timeout: Annotated[
        float, typer.Option(min=0.1, max=MAX_SECONDS, help="Seconds to wait for the end.")
    ] = 30.0,
    correlation_id: Annotated[
        str | None, typer.Option(help="Id of the conversation; the order's id if left out.")
    ] = None,
    output: OutputOption = Output.TABLE,
) -> None:
    """Place an order: check the user, reserve stock, take the payment, create the order; or undo it all.

    Exit code 1: there is no order. Exit code 4: no end in time; it goes on by itself.
    """
    checked_id("ORDER_ID", order_id)
    checked_id("--user", user)
    if not _is_currency(currency):
        raise Refused(f"{shortened(currency)} is no currency", "Write its ISO 4217 code, e.g. GBP.")
    wanted = [_line(text) for text in lines]
    with OrderClient(connected(redis=False)) as orders:
        placement = orders.place_order(
            order_id,
            timeout=timeout,
            user_id=user,
            lines=wanted,
            currency=currency,
            payment_token=payment_token,
            coordination=coordination,
            correlation_id=correlation_id,
        )
    _show(placement, output)


def _line(text: str) -> dict[str, Any]:
    rest, _, price = text.rpartition(":")
    sku, _, quantity = rest.rpartition(":")  # a SKU may have a colon
    pieces, minor_units = whole_number(quantity), whole_number(price)
    if not is_id(sku) or pieces is None or minor_units is None:
        raise Refused(f"{shortened(text)} is no line of an order", f"Write {LINE}, e.g. MUG:2:499.")
    return {"sku": sku, "quantity": pieces, "unit_price": minor_units}


def _show(placement: Placement, output: Output) -> None:
    if output is Output.JSON:
        print_json({"result": _RESULT[type(placement)], **plain(placement)})
    else:
        answers().say(*_sentence(placement))
    match placement:
        case NotPlaced():
            raise quit_with(Exit.NO)
        case StillRunning():
            raise quit_with(Exit.TIMEOUT)
        case Placed():
            return


_RESULT: Final = {Placed: "placed", NotPlaced: "not_placed", StillRunning: "still_running"}


def _sentence(placement: Placement) -> tuple[Styled, str]:
    match placement:
        case Placed(order_id):
            return Styled("placed", "green"), f" order {order_id}"
        case NotPlaced(order_id, status, code, message, undone):
            back = f" Undone: {', '.join(undone)}." if undone else ""
            end = f" order {order_id}, {status}: {code}. {message}.{back}"
            return Styled("not placed", "red"), end
        case StillRunning(_, message):
            return Styled("still running", "yellow"), f" {message}"
