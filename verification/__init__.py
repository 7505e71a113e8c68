"""Proves that views, states and what was decided say the same; or names what does not.

May import `readmodels`, `sagas`, `commands`, `runtime`, `schemas`; only `orderflow` imports it. It reads the
log and Redis and writes neither, but for `repairing`, which mends views from the log.

- `drift`: what is found, as data. `pace`: how fast it is looked for. `sampling`: in how much of it.
- `judging`: is what stands in a view right, at the position where the view is? Pure. `views` asks it.
- `folding`: is a state the fold of its history? Pure. `states` reads both.
- `laws`: what has to hold between aggregates. Pure.
- `run`: one pass over everything, or over a sample; `repairing`; `role`: passes without end.
"""

from verification.drift import Drift, Kind, Level
from verification.run import Report, Scope, verify

__all__ = ["Drift", "Kind", "Level", "Report", "Scope", "verify"]
