"""The command and query bus: one place a service talks to, in one process or over Kafka.

    async with kafka_bus(settings) as bus:          # in a test: in_process_bus()
        outcome = await bus.execute_command(RegisterUser(name="Ada"), aggregate_id="ada")
        user = await bus.execute_query(GetUser(user_id="ada"), at_least=outcome)

docs/BUS.md is the way in. Rooms: `bus` and its `registry`, the messages (`calls`, `queries`, `errors`), what
they pass (`middleware`), what is registered from the start (`pipeline`), and the transports (`ports`,
`kafka`, `in_process`, `blocking`).
"""

from orderflow.bus.blocking import BlockingBus, blocking
from orderflow.bus.bus import Bus
from orderflow.bus.calls import Call, CommandCall, Middleware, Proceed, QueryCall
from orderflow.bus.errors import (
    BusCode,
    BusError,
    CallParked,
    CallTimeout,
    DuplicateHandler,
    InvalidMessage,
    NoHandler,
    Problem,
    Unavailable,
)
from orderflow.bus.in_process import InProcessBus, in_process_bus
from orderflow.bus.kafka import kafka_bus
from orderflow.bus.middleware import (
    Limiting,
    Observing,
    Retrying,
    Tracing,
    Validating,
    standard,
)
from orderflow.bus.queries import (
    GetOrder,
    GetSaga,
    GetStock,
    GetUser,
    LowStock,
    Query,
    Sagas,
    TopUsers,
    UserOrderCount,
    UserOrders,
)

__all__ = [
    "Bus",
    "kafka_bus",
    "in_process_bus",
    "InProcessBus",
    "blocking",
    "BlockingBus",
    "Query",
    "GetOrder",
    "UserOrders",
    "UserOrderCount",
    "GetUser",
    "GetStock",
    "LowStock",
    "TopUsers",
    "GetSaga",
    "Sagas",
    "Call",
    "CommandCall",
    "QueryCall",
    "Middleware",
    "Proceed",
    "Tracing",
    "Observing",
    "Validating",
    "Retrying",
    "Limiting",
    "standard",
    "BusCode",
    "BusError",
    "NoHandler",
    "DuplicateHandler",
    "InvalidMessage",
    "Problem",
    "Unavailable",
    "CallParked",
    "CallTimeout",
]
