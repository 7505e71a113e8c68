"""What a bus has to do, whatever carries it: one suite, run on every transport.

A module that has a transport subclasses `BusSuite` and gives it the fixture `opened`.
"""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from typing import Any, Final

import msgspec
import pytest
from pydantic import Field

from commands.aggregate import Command
from commands.inventory import ReceiveStock, RegisterItem, ReserveStock
from commands.order import CreateOrder, Line
from commands.user import RegisterUser
from orderflow.bus import (
    BlockingBus,
    BusCode,
    Call,
    CallTimeout,
    CommandCall,
    DuplicateHandler,
    GetOrder,
    GetSaga,
    GetStock,
    GetUser,
    InvalidMessage,
    LowStock,
    Middleware,
    NoHandler,
    Proceed,
    Query,
    Retrying,
    Sagas,
    TopUsers,
    Unavailable,
    UserOrderCount,
    UserOrders,
    standard,
)
from orderflow.placing import NotPlaced, Placed, StillRunning
from sagas.messages import StartSaga
from schemas.ids import Id
from schemas.records import Outcome
from schemas.rejections import Code
from schemas.saga import SagaStatus
from tests.support.commanding import eventually

Opened = Callable[..., AbstractContextManager[BlockingBus[Any]]]
"""Opens a bus; takes its middleware, outermost first."""

ROOMY_S: Final = 60.0
"""For what takes as long as it takes."""


class GreetUser(Command):
    """A command of a service's own."""

    greeting: str = Field(min_length=1, max_length=40)


class Greetings(Query[tuple[str, ...]]):
    """A query of a service's own."""

    user_id: Id


class GetOrdr(Query[int]):
    """Nobody answers it."""

    order_id: Id


class Counting:
    """A middleware that counts what passes."""

    def __init__(self) -> None:
        self.calls: list[Call] = []

    async def __call__(self, call: Call, proceed: Proceed) -> Any:
        self.calls.append(call)
        return await proceed(call)


class Losing(Counting):
    """One that loses the first answers, after what they answer has happened; or the messages, ``before``."""

    def __init__(self, times: int, error: Exception, *, before: bool = False) -> None:
        super().__init__()
        self._left, self._error, self._before = times, error, before

    async def __call__(self, call: Call, proceed: Proceed) -> Any:
        if self._left and self._before:
            self.calls.append(call)
            self._left -= 1
            raise self._error
        answer = await super().__call__(call, proceed)
        if self._left:
            self._left -= 1
            raise self._error
        return answer


def with_inner(*middleware: Middleware) -> Sequence[Middleware]:
    """The standard ones, and these between them and the handler."""
    return (*standard(), *middleware)


@pytest.fixture
def run() -> str:
    """Ends every id of a test, so that tests can share a pipeline."""
    return uuid.uuid4().hex[:8]


def user(bus: BlockingBus[Any], user_id: str, **call: Any) -> Outcome:
    return bus.execute_command(RegisterUser(name="Ada"), aggregate_id=user_id, **call)


def item(bus: BlockingBus[Any], sku: str, stock: int = 10) -> Outcome:
    register = RegisterItem(description="a lantern", opening_stock=stock, low_stock_threshold=3)
    return bus.execute_command(register, aggregate_id=sku)


def order(user_id: str, sku: str, price: int = 100, currency: str = "GBP") -> CreateOrder:
    line = Line(sku=sku, quantity=2, unit_price=price)
    return CreateOrder(user_id=user_id, currency=currency, lines=(line,))


class BusSuite:
    """The laws."""

    # Commands.

    def test_an_accepted_command_says_which_version_it_led_to(
        self, bus: BlockingBus[Any], run: str
    ) -> None:
        outcome = user(bus, f"ada-{run}", command_id=f"signup-{run}")

        assert outcome.accepted
        assert (outcome.type, outcome.aggregate, outcome.aggregate_id, outcome.version) == (
            "RegisterUser", "user", f"ada-{run}", 1,
        )  # fmt: skip
        assert outcome.command_id == f"signup-{run}"

    def test_a_rejection_is_an_answer_and_is_not_tried_again(
        self, opened: Opened, run: str
    ) -> None:
        counting = Counting()
        with opened(with_inner(counting)) as bus:
            outcome = bus.execute_command(ReceiveStock(quantity=1), aggregate_id=f"none-{run}")

        assert (outcome.accepted, outcome.code) == (False, Code.ITEM_NOT_FOUND)
        assert len(counting.calls) == 1

    def test_the_same_command_id_gets_the_first_outcome_again(
        self, bus: BlockingBus[Any], run: str
    ) -> None:
        first = user(bus, f"ada-{run}", command_id=f"c-{run}")

        assert user(bus, f"ada-{run}", command_id=f"c-{run}") == first

    def test_the_same_command_id_with_another_payload_is_refused(
        self, bus: BlockingBus[Any], run: str
    ) -> None:
        user(bus, f"ada-{run}", command_id=f"c-{run}")
        other = RegisterUser(name="Bob")
        outcome = bus.execute_command(other, aggregate_id=f"ada-{run}", command_id=f"c-{run}")

        assert (outcome.code, outcome.field) == (Code.COMMAND_ID_REUSED, "command_id")

    def test_many_threads_with_one_command_id_do_it_once(
        self, bus: BlockingBus[Any], run: str
    ) -> None:
        item(bus, f"sku-{run}")
        receive = ReceiveStock(quantity=5)

        def send(_: int) -> Outcome:
            return bus.execute_command(receive, aggregate_id=f"sku-{run}", command_id=f"c-{run}")

        with ThreadPoolExecutor(8) as pool:
            outcomes = list(pool.map(send, range(24)))

        assert {outcome.version for outcome in outcomes} == {3}
        stock = bus.execute_query(GetStock(sku=f"sku-{run}"), at_least=outcomes[0])
        assert stock is not None
        assert stock.on_hand == 15

    def test_a_command_for_another_version_is_refused(
        self, bus: BlockingBus[Any], run: str
    ) -> None:
        item(bus, f"sku-{run}")
        receive = ReceiveStock(quantity=1)
        late = bus.execute_command(receive, aggregate_id=f"sku-{run}", expected_version=7)
        right = bus.execute_command(receive, aggregate_id=f"sku-{run}", expected_version=2)

        assert (late.code, late.field) == (Code.VERSION_CONFLICT, "expected_version")
        assert late.version == 2
        assert (right.accepted, right.version) == (True, 3)

    def test_a_lost_outcome_is_asked_for_again_and_the_command_takes_effect_once(
        self, opened: Opened, run: str
    ) -> None:
        losing = Losing(2, CallTimeout("the answer was lost"))
        with opened(with_inner(losing)) as bus:
            bus.execute_command(
                RegisterItem(description="a lantern", opening_stock=1), aggregate_id=f"sku-{run}"
            )
            losing.calls.clear()
            losing._left = 2
            outcome = bus.execute_command(ReceiveStock(quantity=5), aggregate_id=f"sku-{run}")
            stock = bus.execute_query(GetStock(sku=f"sku-{run}"), at_least=outcome)

        sent = [call for call in losing.calls if isinstance(call, CommandCall)]
        assert len(sent) == 3
        assert len({call.command_id for call in sent}) == 1
        assert outcome.accepted
        assert stock is not None
        assert stock.on_hand == 6

    def test_a_call_that_was_given_up_can_be_made_again(
        self, bus: BlockingBus[Any], run: str
    ) -> None:
        async def asking() -> Outcome:
            ada = RegisterUser(name="Ada")
            call = {"aggregate_id": f"ada-{run}", "command_id": f"c-{run}"}
            outcome: Outcome = await bus.bus.execute_command(ada, **call)
            return outcome

        async def give_up_and_ask_again() -> Outcome:
            given_up = asyncio.ensure_future(asking())
            await asyncio.sleep(0)
            given_up.cancel()
            await asyncio.wait([given_up])
            return await asking()

        assert bus._run(give_up_and_ask_again()).version == 1

    def test_servers_that_come_back_are_asked_again(self, opened: Opened, run: str) -> None:
        losing = Losing(3, Unavailable("away"), before=True)
        with opened(with_inner(losing)) as bus:
            assert user(bus, f"ada-{run}").accepted
        assert len(losing.calls) == 4

    def test_servers_that_stay_away_are_said_to_be_away(self, opened: Opened, run: str) -> None:
        losing = Losing(10**6, Unavailable("away"), before=True)
        with opened(with_inner(losing)) as bus, pytest.raises(Unavailable) as raised:
            user(bus, f"ada-{run}", timeout=0.4)
        assert raised.value.code == BusCode.UNAVAILABLE
        assert len(losing.calls) > 1

    # What is refused before anything is sent.

    def test_an_unknown_command_is_answered_with_those_it_may_be_meant_for(
        self, bus: BlockingBus[Any]
    ) -> None:
        with pytest.raises(NoHandler) as raised:
            bus.bus.command("register_usr", {})
        assert str(raised.value) == (
            "no handler for command 'register_usr', did you mean RegisterUser or RegisterItem?"
        )
        assert raised.value.code == BusCode.NO_HANDLER
        assert raised.value.similar == ("RegisterUser", "RegisterItem")

    def test_a_name_like_no_other_is_answered_with_all_there_are(
        self, bus: BlockingBus[Any]
    ) -> None:
        with pytest.raises(NoHandler, match="no handler for query 'Zzz'; there are: GetOrder, "):
            bus.bus.query("Zzz", {})

    def test_a_query_that_nobody_answers_is_refused(self, bus: BlockingBus[Any]) -> None:
        with pytest.raises(NoHandler, match="query 'GetOrdr', did you mean GetOrder"):
            bus.execute_query(GetOrdr(order_id="o-1"))

    def test_a_query_sent_as_a_command_is_told_apart(self, bus: BlockingBus[Any]) -> None:
        with pytest.raises(NoHandler, match="it is a query: use execute_query"):
            bus.bus.command("GetOrder", {"order_id": "o-1"})
        with pytest.raises(NoHandler, match="it is a command: use execute_command"):
            bus.bus.query("CreateOrder", {})

    def test_every_invalid_field_is_named(self, bus: BlockingBus[Any]) -> None:
        good = {"sku": "A", "quantity": 1, "unit_price": 1}
        bad = {"sku": "A", "quantity": 0, "unit_price": 1.5}
        data = {"user_id": "ada", "currency": "pounds", "lines": [good, bad], "colour": "?"}
        with pytest.raises(InvalidMessage) as raised:
            bus.bus.command("CreateOrder", data)
        fields = {problem.field for problem in raised.value.problems}
        assert fields == {"currency", "lines.1.quantity", "lines.1.unit_price", "colour"}
        assert raised.value.code == BusCode.INVALID_DATA

    def test_what_is_invalid_is_never_sent(self, opened: Opened, run: str) -> None:
        counting = Counting()
        with opened(with_inner(counting)) as bus:
            with pytest.raises(InvalidMessage) as raised:
                bus.execute_command(
                    RegisterUser.model_construct(name=""),
                    aggregate_id="no/id",
                    command_id="{}",
                    expected_version=-1,
                    timeout=0.0,
                )
            assert [problem.field for problem in raised.value.problems] == [
                "timeout", "aggregate_id", "command_id", "expected_version", "name",
            ]  # fmt: skip
            with pytest.raises(InvalidMessage, match="order_id"):
                bus.execute_query(GetOrder.model_construct(order_id="no/id"))
        assert counting.calls == []

    def test_a_command_that_is_too_large_is_refused(self, bus: BlockingBus[Any], run: str) -> None:
        start = StartSaga(saga="create_order", input={"note": "x" * 600_000})
        with pytest.raises(InvalidMessage, match="at most 524288 are accepted"):
            bus.execute_command(start, aggregate_id=f"o-{run}")

    # Queries.

    def test_one_reads_what_one_has_written(self, bus: BlockingBus[Any], run: str) -> None:
        for number in range(5):
            outcome = bus.execute_command(
                order(f"ada-{run}", "A"), aggregate_id=f"o-{number}-{run}"
            )
            found = bus.execute_query(GetOrder(order_id=f"o-{number}-{run}"), at_least=outcome)
            assert found is not None
            assert (found.total, found.version) == (200, 1)
            count = bus.execute_query(UserOrderCount(user_id=f"ada-{run}"), at_least=outcome)
            assert count == number + 1

    def test_a_version_that_does_not_come_is_not_waited_for_longer_than_asked(
        self, bus: BlockingBus[Any], run: str
    ) -> None:
        outcome = msgspec.structs.replace(user(bus, f"ada-{run}"), version=99)
        with pytest.raises(CallTimeout) as raised:
            bus.execute_query(GetUser(user_id=f"ada-{run}"), at_least=outcome, timeout=0.4)
        assert raised.value.code == BusCode.TIMEOUT

    def test_what_a_query_does_not_read_cannot_be_waited_for(
        self, bus: BlockingBus[Any], run: str
    ) -> None:
        outcome = user(bus, f"ada-{run}")
        with pytest.raises(InvalidMessage, match="GetStock reads nothing that follows user"):
            bus.execute_query(GetStock(sku="A"), at_least=outcome)

    def test_what_does_not_exist_is_none(self, bus: BlockingBus[Any], run: str) -> None:
        assert bus.execute_query(GetOrder(order_id=f"none-{run}")) is None
        assert bus.execute_query(GetUser(user_id=f"none-{run}")) is None
        assert bus.execute_query(GetStock(sku=f"none-{run}")) is None
        assert bus.execute_query(GetSaga(saga_id=f"none-{run}")) is None
        assert bus.execute_query(UserOrderCount(user_id=f"none-{run}")) == 0

    def test_lists_come_in_their_order_and_by_pages(self, bus: BlockingBus[Any], run: str) -> None:
        ids = [f"o-{number}-{run}" for number in range(5)]
        done = [bus.execute_command(order(f"ada-{run}", "A"), aggregate_id=one) for one in ids]
        query = UserOrders(user_id=f"ada-{run}", limit=3)
        first = bus.execute_query(query, at_least=done)
        second = bus.execute_query(query.model_copy(update={"cursor": first.next}))

        assert [one.order_id for one in (*first.orders, *second.orders)] == ids[::-1]
        assert second.next is None

    def test_rankings_are_right(self, bus: BlockingBus[Any], run: str) -> None:
        currency = "".join(chr(ord("A") + int(digit, 16)) for digit in run[:3])
        done = [
            bus.execute_command(
                order(f"{name}-{run}", "A", price, currency), aggregate_id=f"{name}-o-{run}"
            )
            for name, price in (("ada", 10), ("bob", 30), ("cy", 20))
        ]
        top = bus.execute_query(TopUsers(currency=currency, limit=2), at_least=done)
        item(bus, f"many-{run}", 10)
        few = item(bus, f"few-{run}", 2)
        low = bus.execute_query(LowStock(limit=1_000), at_least=few)

        assert [(one.user_id, one.value) for one in top] == [(f"bob-{run}", 60), (f"cy-{run}", 40)]
        assert f"few-{run}" in [level.sku for level in low]
        assert f"many-{run}" not in [level.sku for level in low]

    # A service's own.

    def test_a_command_and_a_query_of_ones_own(self, opened: Opened) -> None:
        said: dict[str, list[str]] = {}

        async def greet(call: CommandCall[GreetUser]) -> Outcome:
            if call.aggregate_id == "nobody":
                return call.rejected(Code.USER_NOT_FOUND, "there is no such user")
            said.setdefault(call.aggregate_id, []).append(call.command.greeting)
            return call.accepted(len(said[call.aggregate_id]))

        async def greetings(query: Greetings) -> tuple[str, ...]:
            return tuple(said.get(query.user_id, ()))

        async def wait_for(aggregate_id: str, version: int, timeout: float) -> int:
            if version > len(said.get(aggregate_id, ())):
                raise TimeoutError(f"not within {timeout:g} s")
            return version

        with opened() as bus:
            bus.bus.register_command(GreetUser, greet, aggregate="greeting")
            bus.bus.register_read_model("greetings", aggregate="greeting", wait_for=wait_for)
            bus.bus.register_query(Greetings, greetings, reads=["greetings"])

            hello = bus.bus.command("GreetUser", {"greeting": "hello"})
            outcome = bus.execute_command(hello, aggregate_id="ada")
            refused = bus.execute_command(hello, aggregate_id="nobody")
            found = bus.execute_query(Greetings(user_id="ada"), at_least=outcome)
            later = msgspec.structs.replace(outcome, version=2)
            with pytest.raises(CallTimeout):
                bus.execute_query(Greetings(user_id="ada"), at_least=later, timeout=0.2)

        assert (outcome.accepted, outcome.version, outcome.type) == (True, 1, "GreetUser")
        assert (refused.accepted, refused.code) == (False, Code.USER_NOT_FOUND)
        assert found == ("hello",)

    def test_a_message_has_one_handler(self, opened: Opened) -> None:
        async def handler(_: Any) -> Any: ...

        with opened() as bus:
            with pytest.raises(DuplicateHandler, match="command 'RegisterUser' is registered"):
                bus.bus.register_command(RegisterUser, handler, aggregate="user")
            with pytest.raises(DuplicateHandler, match="query 'GetOrder' is registered"):
                bus.bus.register_query(GetOrder, handler)
            with pytest.raises(DuplicateHandler, match="read model 'orders' is registered") as e:
                bus.bus.register_read_model("orders", aggregate="order", wait_for=handler)
            assert e.value.code == BusCode.DUPLICATE_HANDLER
            with pytest.raises(NoHandler, match="read model 'order', did you mean orders"):
                bus.bus.register_query(Greetings, handler, reads=["order"])

    def test_a_handler_that_does_not_answer_is_asked_again_until_the_time_is_up(
        self, opened: Opened
    ) -> None:
        seen: list[str] = []

        async def hang(call: CommandCall[GreetUser]) -> Outcome:
            seen.append(call.command_id)
            await asyncio.sleep(ROOMY_S)
            raise AssertionError

        steps = [Retrying(0.1) if isinstance(step, Retrying) else step for step in standard()]
        with opened(steps) as bus:
            bus.bus.register_command(GreetUser, hang, aggregate="greeting")
            with pytest.raises(
                CallTimeout, match=r"no outcome of GreetUser ada .* within 0\.5 s"
            ) as e:
                bus.execute_command(GreetUser(greeting="?"), aggregate_id="ada", timeout=0.5)
        assert e.value.code == BusCode.TIMEOUT
        assert len(seen) > 1
        assert len(set(seen)) == 1

    def test_a_bug_in_a_handler_is_not_tried_again(self, opened: Opened) -> None:
        seen: list[str] = []

        async def bug(call: CommandCall[GreetUser]) -> Outcome:
            seen.append(call.command_id)
            raise ZeroDivisionError

        with opened() as bus:
            bus.bus.register_command(GreetUser, bug, aggregate="greeting")
            with pytest.raises(ZeroDivisionError):
                bus.execute_command(GreetUser(greeting="?"), aggregate_id="ada")
        assert len(seen) == 1

    # Sagas.

    def test_an_order_is_placed_once_over_all_services(
        self, bus: BlockingBus[Any], run: str
    ) -> None:
        user(bus, f"ada-{run}")
        item(bus, f"sku-{run}", 10)
        wanted: dict[str, Any] = {
            "user_id": f"ada-{run}",
            "currency": "GBP",
            "lines": [{"sku": f"sku-{run}", "quantity": 3, "unit_price": 100}],
            "payment_token": "tok_approve",
        }
        placed = bus.place_order(f"o-{run}", timeout=ROOMY_S, **wanted)

        assert isinstance(placed, Placed)
        assert bus.place_order(f"o-{run}", timeout=ROOMY_S, **wanted) == placed
        eventually(lambda: _status(bus, f"o-{run}") == "confirmed")
        eventually(lambda: _available(bus, f"sku-{run}") == 7)
        eventually(lambda: _saga_status(bus, f"o-{run}") == SagaStatus.COMPLETED)
        listed = bus.execute_query(Sagas(status=SagaStatus.COMPLETED, limit=1_000))
        assert f"o-{run}" in [saga.saga_id for saga in listed]

    @pytest.mark.parametrize("coordination", ["orchestration", "choreography"])
    def test_an_order_that_cannot_be_paid_is_undone(
        self, bus: BlockingBus[Any], run: str, coordination: str
    ) -> None:
        user(bus, f"ada-{run}")
        item(bus, f"sku-{run}", 10)
        placement = bus.place_order(
            f"o-{run}",
            timeout=ROOMY_S,
            user_id=f"ada-{run}",
            currency="GBP",
            lines=[{"sku": f"sku-{run}", "quantity": 3, "unit_price": 100}],
            payment_token="tok_decline",
            coordination=coordination,
        )

        assert isinstance(placement, NotPlaced)
        assert (placement.status, placement.code) == ("compensated", "payment_declined")
        assert "reserveInventory" in placement.undone
        eventually(lambda: _available(bus, f"sku-{run}") == 10)

    def test_an_order_that_is_none_is_not_begun(self, bus: BlockingBus[Any], run: str) -> None:
        placement = bus.place_order(
            f"o-{run}", user_id="ada", currency="?", lines=[], payment_token="tok_approve"
        )
        assert isinstance(placement, NotPlaced)
        assert (placement.status, placement.code) == ("rejected", "invalid_data")

    def test_an_order_without_an_end_in_time_goes_on_by_itself(
        self, bus: BlockingBus[Any], run: str
    ) -> None:
        user(bus, f"ada-{run}")
        item(bus, f"sku-{run}", 10)
        placement = bus.place_order(
            f"o-{run}",
            timeout=1.0,
            user_id=f"ada-{run}",
            currency="GBP",
            lines=[{"sku": f"sku-{run}", "quantity": 3, "unit_price": 100}],
            payment_token="tok_down",
        )
        assert isinstance(placement, StillRunning)
        assert f"orderflow sagas show o-{run}" in placement.message

    def test_a_command_of_a_saga_can_be_sent_like_any_other(
        self, bus: BlockingBus[Any], run: str
    ) -> None:
        retry = bus.bus.command("RetrySaga", {"by": "ann"})
        outcome = bus.execute_command(retry, aggregate_id=f"none-{run}")
        assert outcome.code == Code.SAGA_NOT_FOUND

    def test_reservations_are_parts_of_their_item(self, bus: BlockingBus[Any], run: str) -> None:
        item(bus, f"sku-{run}", 10)
        reserve = ReserveStock(reservation_id=f"r-{run}", quantity=4)
        outcome = bus.execute_command(reserve, aggregate_id=f"sku-{run}")
        stock = bus.execute_query(GetStock(sku=f"sku-{run}"), at_least=outcome)
        assert stock is not None
        assert (stock.reserved, stock.available) == (4, 6)


def _status(bus: BlockingBus[Any], order_id: str) -> str | None:
    found = bus.execute_query(GetOrder(order_id=order_id))
    return None if found is None else found.status


def _available(bus: BlockingBus[Any], sku: str) -> int | None:
    found = bus.execute_query(GetStock(sku=sku))
    return None if found is None else found.available


def _saga_status(bus: BlockingBus[Any], saga_id: str) -> str | None:
    found = bus.execute_query(GetSaga(saga_id=saga_id))
    return None if found is None else found.status


__all__ = ["BusSuite", "Opened", "run"]
