"""One, two and four processes of a role: that the work splits by partition, and how long everybody waits when
one joins or leaves. On two cores, broker and all, more processes do not do more; each does its share.
"""

import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager
from typing import Final

import psutil
from confluent_kafka.admin import AdminClient

from benchmarks import workload
from benchmarks.bench import Bench, Found, Place
from benchmarks.curves import follow, rate
from benchmarks.processing import committed
from benchmarks.projecting import progress
from benchmarks.roles import Process, running
from benchmarks.visible import measure, new_watcher, wait_for_both
from processors.command_processor import WORK
from readmodels.views import ORDERS
from runtime import kafka
from runtime.client import CommandClient
from runtime.redis import connect
from runtime.settings import Settings

PROCESSES: Final = (1, 2, 4)
PARTITIONS: Final = 8
ROLES: Final = {"processors": "processor", "readmodels": "projector"}
"""Module and name of a role."""

PER_SECOND: Final = 200
QUIET_S: Final = 6.0
"""Before a process joins, and between that and its leaving, and after that."""

ANSWER_S: Final = 60.0
SHARED_WITHIN_S: Final = 60.0


def figures(bench: Bench) -> Found:
    """So many of both roles on the same commands, the processors for orders only; then one of each under a
    steady load, with one more coming and going.
    """
    found: dict[str, float] = {}
    for number in PROCESSES:
        with bench.place("scaling", PARTITIONS) as place:
            found |= _split(place, number, bench.commands)
    for module in ROLES:
        with bench.place("joining") as place:
            found |= _joining(place, module)
    return Found(found)


def _split(place: Place, number: int, commands: int) -> dict[str, float]:
    """The processors' rate, all together, and for each role the share of the one that did least: 1 / number
    were even.
    """
    found: dict[str, float] = {}
    with (
        _several(place, number, "processors", "commands", "order") as processors,
        _several(place, number, "readmodels") as projectors,
        closing(connect(place.settings)) as redis,
    ):
        processes = {"processors": processors, "readmodels": projectors}
        for module, name in ROLES.items():
            owned = _wait_until_shared(place.settings, module, number)
            found[f"{number} {name}s, fewest partitions"] = float(min(owned))
            found[f"{number} {name}s, most partitions"] = float(max(owned))
        before = {module: _cpu(of) for module, of in processes.items()}
        ask = committed(place.settings, WORK.group_id(place.settings))
        workload.fill_orders(place.settings, workload.commands(commands))
        curve = follow(ask, commands, processors[0])
        found[f"{number} processors, commands/s"] = rate(curve, commands // 2)
        reached, goal = progress(place, ORDERS, redis)
        follow(reached, goal, projectors[0])
        for module, name in ROLES.items():
            spent = [
                now - then
                for now, then in zip(_cpu(processes[module]), before[module], strict=True)
            ]
            found[f"{number} {name}s, least share of the CPU time"] = min(spent) / sum(spent)
    return found


def _cpu(processes: Sequence[Process]) -> list[float]:
    times = [psutil.Process(process.pid).cpu_times() for process in processes]
    return [each.user + each.system for each in times]


def _wait_until_shared(settings: Settings, module: str, number: int) -> list[int]:
    """Of each member of the role's group, how many partitions of orders it has, when all have some, of
    whatever topic, and none of orders is on its way from one to another. Raises TimeoutError.
    """
    order = f"{settings.topic_prefix}.order."
    until = time.monotonic() + SHARED_WITHIN_S
    while time.monotonic() < until:
        owned = _owned(settings, module)
        of_orders = [sum(topic.startswith(order) for topic in topics) for topics in owned]
        if len(owned) == number and all(owned) and sum(of_orders) == settings.partitions:
            return of_orders
        time.sleep(0.2)
    raise TimeoutError(f"{number} {ROLES[module]}s have {owned}")


@contextmanager
def _several(place: Place, number: int, module: str, *arguments: str) -> Iterator[list[Process]]:
    with ExitStack() as stack:
        yield [
            stack.enter_context(running(module, place.environment, *arguments))
            for _ in range(number)
        ]


def _owned(settings: Settings, module: str) -> list[list[str]]:
    """Of each member of the role's group, the topics of its partitions."""
    group = (
        WORK.group_id(settings) if module == "processors" else f"{settings.topic_prefix}.projector"
    )
    client = AdminClient(kafka.admin(settings))
    members = client.describe_consumer_groups([group])[group].result(ANSWER_S).members
    return [[at.topic for at in member.assignment.topic_partitions] for member in members]


def _joining(place: Place, module: str) -> dict[str, float]:
    """The longest that a command waits for its outcome, and for its row, while one more joins and leaves."""
    with (
        running("processors", place.environment),
        running("readmodels", place.environment),
        CommandClient(place.settings) as client,
        new_watcher() as watching,
        ThreadPoolExecutor(1) as beside,
    ):
        wait_for_both(place, client)
        load = beside.submit(measure, place, client, watching, PER_SECOND, 3 * QUIET_S)
        time.sleep(QUIET_S)
        with running(module, place.environment):
            time.sleep(QUIET_S)
        outcomes, views = load.result()
    taken = outcomes if module == "processors" else views
    name = ROLES[module]
    return {
        f"{name}: longest wait undisturbed, s": _longest(taken, 0, 1),
        f"{name}: longest wait while one joins, s": _longest(taken, 1, 2),
        f"{name}: longest wait while one leaves, s": _longest(taken, 2, 3),
    }


def _longest(taken: Sequence[float], first: int, last: int) -> float:
    """Of those that were sent between the first and the last of three spans of the same length."""
    span = len(taken) // 3
    return max(taken[first * span : last * span])
