"""Synchronisation: what the views say, brought to somebody else's database.

May import `readmodels`, `runtime` and `schemas`; is imported by `orderflow` alone. The invariant kept
here: once the views stand still, a target says what they say, whatever was killed, emptied, repeated or
slow on the way; and before that, no target is emptied because a view is.

Rooms, from the inside out:

- `cursor`: what to do next, given what the target has and what Redis says; pure.
- `rows`: from a row of a view to rows of tables, which are in `tables`; pure.
- `source` asks Redis, `target` writes SQL, each knows nothing of the other.
- `polling`: one view, one round. `role`: rounds for ever, or one; retries and signals.
"""

from sync.polling import Moved, PassProgress
from sync.role import SyncTimeout, run_sync, sync_once
from sync.target import TargetUnfit

__all__ = ["run_sync", "sync_once", "Moved", "PassProgress", "SyncTimeout", "TargetUnfit"]
