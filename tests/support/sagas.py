"""All that an order placed by one call needs, as processes of a test."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from orderflow.placing import SAGA_OF
from runtime import topic_admin
from runtime.client import CommandClient
from runtime.embedded import ServersAddress
from runtime.settings import Settings
from sagas.create_order import Coordination
from tests.support.commanding import command
from tests.support.gateway import GatewayProcess
from tests.support.processes import RoleProcess, environment

COORDINATIONS: tuple[Coordination, ...] = tuple(SAGA_OF)

READY_WITHIN_S = 120.0
"""For the first command of a test: its processes have to start first, on a machine that may be busy."""

ROLES = {
    "commands": ("processors", "commands"),
    "sagas": ("processors", "sagas"),
    "reactor": ("processors", "reactor"),
    "payments": ("payments",),
}


@dataclass(frozen=True)
class SagaStack:
    """Settings, processes by role, and the gateway."""

    settings: Settings
    env: dict[str, str]
    roles: dict[str, RoleProcess]
    gateway: GatewayProcess
    directory: Path
    more: list[RoleProcess]

    def start(self, role: str) -> None:
        """Starts a role, again if it has ended."""
        module, *arguments = ROLES[role]
        self.roles[role] = RoleProcess(module, self.env, self.directory / f"{role}.log", *arguments)

    def start_another(self, role: str) -> None:
        """Starts a second process of a role; it ends with the first."""
        module, *arguments = ROLES[role]
        log = self.directory / f"{role}-2.log"
        self.more.append(RoleProcess(module, self.env, log, *arguments))

    def stop(self, role: str) -> None:
        """Ends a role with SIGKILL, if it runs."""
        self.roles[role].__exit__(None, None, None)

    def stop_more(self) -> None:
        """Ends the second processes."""
        for process in self.more:
            process.__exit__(None, None, None)

    def restart(self, role: str) -> None:
        """Kills a role with SIGKILL and starts it anew."""
        self.stop(role)
        self.start(role)

    def stock(self, **pieces: int) -> None:
        """Registers a user `ada` and SKUs with so many pieces each."""
        with CommandClient(self.settings) as client:
            ada = command("ada", "RegisterUser", name="Ada")
            assert client.execute(ada, READY_WITHIN_S).accepted
            for sku, count in pieces.items():
                register = command(sku, "RegisterItem", description="item", opening_stock=count)
                assert client.execute(register).accepted

    def take(self, *order_ids: str) -> None:
        """Creates orders by hand, so that no saga can create one of these ids."""
        line = {"sku": "A", "quantity": 1, "unit_price": 1}
        with CommandClient(self.settings) as client:
            for one in order_ids:
                taken = command(one, "CreateOrder", user_id="ada", currency="GBP", lines=[line])
                assert client.execute(taken, timeout=60).accepted


@contextmanager
def saga_stack(
    servers: ServersAddress, prefix: str, directory: Path, **more: str
) -> Iterator[SagaStack]:
    """Everything runs until the end of the block, and nothing after it."""
    with ExitStack() as stack:
        gateway = stack.enter_context(GatewayProcess(directory / "home", directory / "gateway.log"))
        env = environment(
            servers, prefix, directory / "home", ORDERFLOW_GATEWAY_URL=gateway.url, **more
        )
        settings = Settings.model_validate(env)
        topic_admin.apply(settings)
        running = SagaStack(settings, env, {}, gateway, directory, [])
        for role in ROLES:
            running.start(role)
            stack.callback(running.stop, role)
        stack.callback(running.stop_more)
        yield running


def order(token: str = "tok_approve", *, user: str = "ada", **pieces: int) -> dict[str, Any]:
    """Arguments of ``place_order``: so many pieces of each SKU, at 100 each."""
    lines = [{"sku": sku, "quantity": n, "unit_price": 100} for sku, n in pieces.items()]
    return {"user_id": user, "currency": "GBP", "payment_token": token, "lines": lines}
