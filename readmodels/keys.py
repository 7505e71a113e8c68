"""Every Redis key of the read side, as data. docs/REDIS_KEYS.md is made from this table.

Keys that one Lua call writes share a hash tag, so the same code runs on Redis Cluster: the tag is
the view and a bucket, and the bucket is a hash of the id that the keys belong to.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from functools import lru_cache
from typing import Final, Literal

BUCKETS: Final = 16
"""Never changed on a live view: a row would be looked for elsewhere. A rebuild may change it."""

MARKER_SECONDS: Final = 24 * 3600
"""How long a deletion is remembered, to refuse an older record that a halted worker brings late."""

FIRST_GENERATION: Final = 1

RedisType = Literal["hash", "zset", "string"]


@dataclass(frozen=True, slots=True)
class Kind:
    """One sort of key of one view. ``id`` says what stands after the kind; empty: one a bucket."""

    view: str
    name: str
    type: RedisType
    id: str
    owner: str
    holds: str
    lasting: bool = True  # False: passes, and is no part of what a view says


CHANGED: Final = "changed"
REMOVED: Final = "removed"
POSITIONS: Final = "positions"


def _stamps(view: str, id_: str, owner: str) -> tuple[Kind, Kind]:
    """What a follower of a view reads: which rows changed, and in which order; see `lua/stamp.lua`."""
    return (
        Kind(view, CHANGED, "zset", "", owner, f"Rows ({id_}) by the stamp of their last change,"
             " microseconds; a deleted one stays for a day.", lasting=False),
        Kind(view, REMOVED, "zset", "", owner, "The deleted ones among the changed, by stamp; the member"
             " '' has the stamp up to which deletions have been dropped.", lasting=False),
    )  # fmt: skip


KINDS: Final[tuple[Kind, ...]] = (
    Kind("orders", "order", "hash", "<user id>/<order id>", "user", "The order: version, status,"
         " user_id, currency, total, spent (what of it counts), times, lines (JSON)."),
    Kind("orders", "place", "string", "<order id>", "order", "Whose order it is:"
         " <user id>/<currency>."),
    Kind("orders", "user", "hash", "<user id>", "user", "Sums over the user's orders: orders,"
         " status:<status>, spent:<currency>. A field that would be 0 is absent."),
    Kind("orders", "list", "zset", "<user id>", "user", "The user's orders by time: members"
         " <created, ms, 15 digits>:<order id>, all with score 0."),
    Kind("orders", "top-orders", "zset", "", "user", "Users by number of orders."),
    Kind("orders", "top-spent", "zset", "<currency>", "user", "Users by amount spent."),
    Kind("orders", "gone", "string", "<order id> or <user id>/<order id>", "order or user",
         "Version at which the order was deleted there; expires after a day.", lasting=False),
    *_stamps("orders", "<user id>/<order id>", "user"),
    Kind("stock", "sku", "hash", "<SKU>", "SKU", "The stock of the SKU: version, on_hand, reserved,"
         " available, description, threshold, updated_at_ms."),
    Kind("stock", "low", "zset", "", "SKU", "SKUs at or below their threshold, by what is available."),
    Kind("stock", "gone", "string", "<SKU>", "SKU",
         "Version at which the SKU was deleted; expires after a day.", lasting=False),
    *_stamps("stock", "<SKU>", "SKU"),
    Kind("users", "user", "hash", "<user id>", "user", "The profile: version, status, name, email"
         " (absent if there is none), registered_at_ms, updated_at_ms."),
    Kind("users", "gone", "string", "<user id>", "user",
         "Version at which the user was deleted; expires after a day.", lasting=False),
    *_stamps("users", "<user id>", "user"),
    Kind("sagas", "saga", "hash", "<saga id>", "saga", "The saga: version, saga (its name), status,"
         " correlation_id, times, code and message, undone, resolved_by, steps (JSON)."),
    Kind("sagas", "by-status", "zset", "", "saga", "Sagas by status and time of the last change: the"
         " score is rank * 10^14 + updated_at_ms, ranks as in `readmodels/sagas.py`."),
    Kind("sagas", "gone", "string", "<saga id>", "saga",
         "Version at which the saga was deleted; expires after a day.", lasting=False),
    *_stamps("sagas", "<saga id>", "saga"),
)  # fmt: skip

_TYPES: Final = {(kind.view, kind.name): kind for kind in KINDS}


def bucket_of(owner: str) -> int:
    """The bucket of an id: stable over processes, machines and versions of Python."""
    return zlib.crc32(owner.encode()) % BUCKETS


@dataclass(frozen=True, slots=True)
class Keys:
    """The keys of one generation of one view.

    ``spread``: its buckets may lie on several servers, as on a cluster. Each of them may lose its last writes
    without the others, so each bucket has positions of its own, beside what they cover.
    """

    prefix: str
    view: str
    generation: int
    spread: bool = False

    @property
    def stem(self) -> str:
        """What all keys of this generation begin with, and no other key does."""
        return f"{self.prefix}:{self.view}:g{self.generation}:"

    @property
    def positions(self) -> str:
        """Hash: ``<topic>:<partition>`` → the next offset to read; ``<topic>`` → the id of that topic."""
        return f"{self.stem}{POSITIONS}"

    @property
    def all_positions(self) -> tuple[str, ...]:
        """Where positions are kept, and how far the view is: as far as the last of them."""
        if not self.spread:
            return (self.positions,)
        return tuple(self.key(POSITIONS, bucket) for bucket in range(BUCKETS))

    def base(self, bucket: int) -> str:
        """What the keys of a bucket begin with; kind and identity follow."""
        return _base(self.prefix, self.view, self.generation, bucket)

    def key(self, kind: str, bucket: int, identity: str = "") -> str:
        """The key of ``kind`` in ``bucket``; ``identity`` where the kind has one."""
        begin = f"{self.base(bucket)}{kind}"
        return f"{begin}:{identity}" if identity else begin

    def stamps(self, bucket: int) -> tuple[str, str]:
        """The keys of a bucket's changed and removed rows; `lua/stamp.lua` writes both."""
        begin = self.base(bucket)
        return f"{begin}{CHANGED}", f"{begin}{REMOVED}"

    def kind_of(self, key: str) -> Kind | None:
        """Which kind a key of this generation is; None for the positions and for strangers."""
        parsed = self.parse(key)
        return parsed[0] if parsed else None

    def parse(self, key: str) -> tuple[Kind, str] | None:
        """Kind and identity of a key of this generation; None for the positions and for strangers."""
        _, closed, rest = key.removeprefix(self.stem).partition("}:")
        name, _, identity = rest.partition(":")
        kind = _TYPES.get((self.view, name)) if closed else None
        return None if kind is None else (kind, identity)


@lru_cache(maxsize=1_024)
def _base(prefix: str, view: str, generation: int, bucket: int) -> str:
    return f"{prefix}:{view}:g{generation}:{{{view}-{bucket}}}:"


def views_key(prefix: str) -> str:
    """Hash: view → the generation that queries read; a view that is missing has its first."""
    return f"{prefix}:views"


def rebuild_lock_key(prefix: str) -> str:
    """String with an expiry: the token of the rebuild that runs."""
    return f"{prefix}:rebuild"


def verified_key(prefix: str) -> str:
    """String, JSON: what the verifier's last pass came to."""
    return f"{prefix}:verified"


def document_keys(prefix: str = "<prefix>") -> str:
    """docs/REDIS_KEYS.md as it has to be."""
    lines = [
        "# Redis keys",
        "",
        "Made from `readmodels/keys.py`; a test holds them equal. `g<n>` is the generation that",
        f"`{views_key(prefix)}` names for the view (1 if it names none). `<b>` is a bucket,",
        f"`crc32(owner) % {BUCKETS}`. Read with `redis-cli`, never write.",
        "",
        "| key | type | bucket by | holds |",
        "|---|---|---|---|",
    ]
    for kind in KINDS:
        tail = f":{kind.id}" if kind.id else ""
        key = f"{prefix}:{kind.view}:g<n>:{{{kind.view}-<b>}}:{kind.name}{tail}"
        lines.append(f"| `{key}` | {kind.type} | {kind.owner} | {kind.holds} |")
    lines += [
        (
            f"| `{prefix}:<view>:g<n>:positions` | hash | | `<topic>:<partition>` → next offset to read;"
            " `<topic>` → the id of that topic; `born` → the name of this filling. |"
        ),
        (
            f"| `{prefix}:<view>:g<n>:{{<view>-<b>}}:positions` | hash | | On a cluster, in its place: the"
            " same for each bucket; the lowest counts. |"
        ),
        (
            f"| `{views_key(prefix)}` | hash | | View → the generation that is live; `<view>:previous` →"
            " the one before, with the time of the switch (ms); `<view>:building` → the one a rebuild"
            " fills or left, with its begin (ms) and what it was projected with. |"
        ),
        f"| `{rebuild_lock_key(prefix)}` | string | | Token of the rebuild that runs; expires. |",
        f"| `{verified_key(prefix)}` | string | | What the verifier's last pass came to (JSON). |",
    ]
    return "\n".join(lines) + "\n"
