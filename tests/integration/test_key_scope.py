"""Two pipelines at one gateway, and a payment failed by hand while the gateway charges: on a real Kafka."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import Any

from runtime import topic_admin
from runtime.client import CommandClient
from runtime.embedded import ServersAddress
from runtime.settings import Settings
from schemas.payment import PaymentState, PaymentStatus
from schemas.records import decode_event
from schemas.upcasting import StateReader
from tests.support.commanding import command, eventually
from tests.support.gateway import GatewayProcess
from tests.support.processes import RoleProcess, environment
from tests.support.sagas import READY_WITHIN_S
from tests.support.topics import read_topic

WITHIN_S = 90.0
_state = StateReader(PaymentState)


class Pipeline:
    """Processors and an outbox of payments under a prefix of their own, at a gateway of others."""

    def __init__(
        self, servers: ServersAddress, prefix: str, folder: Path, gateway: GatewayProcess
    ) -> None:
        self._env = environment(servers, prefix, folder, ORDERFLOW_GATEWAY_URL=gateway.url)
        self.settings = Settings.model_validate(self._env)
        self._folder = folder
        topic_admin.apply(self.settings)

    def start(self, stack: ExitStack) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)
        for name, words in {
            "commands": ("processors", "commands"),
            "payments": ("payments",),
        }.items():
            module, *more = words
            log = self._folder / f"{name}.log"
            stack.enter_context(RoleProcess(module, self._env, log, *more))

    def order(self, client: CommandClient, kind: str, **data: Any) -> None:
        outcome = client.execute(command("p-1", kind, **data), READY_WITHIN_S)
        assert outcome.accepted, outcome

    def payment(self) -> PaymentState:
        topic = topic_admin.topics_of(self.settings).events("payment")
        *_, newest = read_topic(self.settings, topic)
        _, state = _state.read(newest.value or b"")
        assert isinstance(state, PaymentState)
        return state

    def until(self, status: PaymentStatus) -> None:
        eventually(lambda: self.payment().status is status, WITHIN_S, every=0.3)


def requested(amount: int, token: str) -> dict[str, object]:
    return {"order_id": "o-1", "amount": amount, "currency": "EUR", "token": token}


def test_payments_of_one_id_under_two_prefixes_share_no_charge_and_no_refund(
    servers: ServersAddress, prefix: str, tmp_path: Path
) -> None:
    with ExitStack() as stack:
        gateway = stack.enter_context(GatewayProcess(tmp_path / "home", tmp_path / "gateway.log"))
        names = (f"{prefix}-a", f"{prefix}-b")
        one, two = (Pipeline(servers, name, tmp_path / name, gateway) for name in names)
        for pipeline, amount in ((one, 100), (two, 250)):
            pipeline.start(stack)
            client = stack.enter_context(CommandClient(pipeline.settings))
            pipeline.order(client, "RequestPayment", **requested(amount, "tok_approve"))
            pipeline.until(PaymentStatus.CAPTURED)
        pipeline.order(client, "RequestRefund", reason="late")
        two.until(PaymentStatus.REFUNDED)
        assert one.payment().status is PaymentStatus.CAPTURED
        book = gateway.book()
        keys = {pipeline.payment().gateway_key for pipeline in (one, two)}
        assert keys == {entry.key for entry in book.charges}
        assert len(keys) == 2
        assert [entry.amount for entry in book.charges] == [100, 250]
        assert [(entry.key, entry.amount) for entry in book.refunds] == [
            (two.payment().gateway_key, 250)
        ]
        letters = [topic_admin.topics_of(each.settings).dead_letters for each in (one, two)]
        assert not read_topic(one.settings, letters[0])
        assert not read_topic(two.settings, letters[1])


def test_a_payment_failed_by_hand_while_the_gateway_charges_is_given_back(
    servers: ServersAddress, prefix: str, tmp_path: Path
) -> None:
    with ExitStack() as stack:
        gateway = stack.enter_context(GatewayProcess(tmp_path / "home", tmp_path / "gateway.log"))
        pipeline = Pipeline(servers, prefix, tmp_path / "roles", gateway)
        pipeline.start(stack)
        client = stack.enter_context(CommandClient(pipeline.settings))
        pipeline.order(client, "RequestPayment", **requested(100, "tok_slow_4000"))
        eventually(lambda: gateway.book().charges, WITHIN_S)
        pipeline.order(client, "FailPayment", reason="the customer has called")
        pipeline.until(PaymentStatus.REFUNDED)
        state = pipeline.payment()
        assert (state.captured, state.refunded) == (100, 100)
        assert [entry.amount for entry in gateway.book().refunds] == [100]
        history = read_topic(
            pipeline.settings, topic_admin.topics_of(pipeline.settings).history("payment")
        )
        assert [decode_event(record.value or b"").type for record in history] == [
            *("PaymentRequested", "PaymentFailed"),
            *("PaymentRefundRequested", "PaymentCaptured", "PaymentRefunded"),
        ]
