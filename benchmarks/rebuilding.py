"""Events a second of a rebuild from offset zero, by one process and by several, next to the bare consumer."""

from benchmarks.projecting import bare_rate
from readmodels.filling import Progress
from readmodels.rebuilding import Plan, rebuild
from readmodels.spreading import cores
from readmodels.views import ORDERS
from runtime.settings import Settings


def pair(settings: Settings) -> dict[str, float]:
    """The bare consumer, and the filling of a fresh generation: the start of processes is timed, comparing
    is not.

    Nothing is left behind, so each finds Redis as the one before it did.
    """
    bare = bare_rate(settings)
    count = min(cores(), settings.partitions)
    one, several = (_rate(settings, processes) for processes in (1, count))
    return {
        "bare consumer, events/s": bare,
        "rebuild in one process, events/s": one,
        "ratio of one process": one / bare,
        "processes": count,
        "rebuild in several processes, events/s": several,
        "ratio of several processes": several / bare,
    }


def _rate(settings: Settings, processes: int) -> float:
    told: list[Progress] = []
    plan = Plan(dry_run=True, processes=processes)
    report = rebuild(settings, [ORDERS.name], told.append, plan)
    if not report.records:
        raise RuntimeError("nothing was rebuilt: there were no events")
    if report.processes != processes:
        raise RuntimeError(f"{report.processes} processes took part instead of {processes}")
    return told[-1].rate
