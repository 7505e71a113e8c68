"""The port without a network, for tests of what uses it: the simulated gateway on a ledger in memory."""

from payments.ledger import Ledger
from payments.simulation import SimulatedGateway


class MemoryGateway(SimulatedGateway):
    """The same tokens and the same suite as the process; it forgets all when it goes."""

    def __init__(self) -> None:
        super().__init__(Ledger.in_memory())
