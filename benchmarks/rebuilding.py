"""Events a second of a rebuild from offset zero, next to the bare consumer's."""

from benchmarks.projecting import bare_rate
from readmodels.filling import Progress
from readmodels.rebuilding import rebuild
from readmodels.views import ORDERS
from runtime.settings import Settings


def pair(settings: Settings) -> dict[str, float]:
    """The bare consumer and the filling of a fresh generation; comparing and switching are not timed."""
    bare = bare_rate(settings)
    told: list[Progress] = []
    report = rebuild(settings, [ORDERS.name], told.append)
    if not report.records:
        raise RuntimeError("nothing was rebuilt: there were no events")
    ours = told[-1].rate
    return {"bare consumer, events/s": bare, "rebuild, events/s": ours, "ratio": ours / bare}
