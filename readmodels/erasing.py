"""Erases a person from the generations of the view `users` that nobody feeds: those kept for a rollback, and
those that an interrupted rebuild left.

The live one follows its topic. A generation that is fed again reads there that the user is forgotten.
"""

from typing import Final

from readmodels import generations, positions
from readmodels.keys import Keys, bucket_of
from readmodels.steps import drive
from readmodels.users import COLLECTION
from readmodels.views import named
from runtime.redis import is_cluster, new_line
from runtime.settings import Settings

VIEW: Final = "users"


def erase_from_kept(settings: Settings, user_id: str) -> int:
    """Remove the user's row from every generation but the live one; returns from how many.

    Raises RedisError.
    """
    prefix = settings.topic_prefix
    line, spread = new_line(settings), is_cluster(settings)
    try:
        live = drive(line, positions.live(prefix, named([VIEW])))[VIEW]
        kept = generations.existing(line, prefix, VIEW) - {live}
        rows = [
            Keys(prefix, VIEW, generation, spread).key(COLLECTION.kind, bucket_of(user_id), user_id)
            for generation in sorted(kept)
        ]
        return sum(line.run([("UNLINK", row) for row in rows])) if rows else 0
    finally:
        line.close()
