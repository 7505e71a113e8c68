"""What the bus needs of a transport: a client that sends commands, and somebody who asks the views.

`runtime.client.CommandClient` and `readmodels.AsyncQueries` are the real ones, `in_process` has others.
"""

from concurrent.futures import Future
from typing import Protocol, TypeAlias

from readmodels.queries import AsyncAsking
from runtime.client import OutgoingCommand
from schemas.records import Outcome
from schemas.saga import SagaEnd

Views: TypeAlias = AsyncAsking


class Commands(Protocol):
    """Sends commands; see `runtime.client.CommandClient`, whose methods these are. Each future belongs to one
    caller, who cancels it to stop waiting.
    """

    @property
    def crowded(self) -> bool: ...

    def submit(self, command: OutgoingCommand) -> Future[Outcome]: ...

    def submit_and_follow(
        self, command: OutgoingCommand
    ) -> tuple[Future[Outcome], Future[SagaEnd]]: ...
