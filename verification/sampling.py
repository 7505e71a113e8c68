"""A fair sample of ids that come by, without knowing how many will: those with the lowest hashes. Pure."""

from __future__ import annotations

import heapq
import os
from collections.abc import Iterable
from hashlib import blake2b


class Sample:
    """``size`` None: everything is in it, and nothing is kept. ``salt``: another one, another sample."""

    def __init__(self, size: int | None, salt: bytes | None = None) -> None:
        self.size = size
        self._salt = os.urandom(8) if salt is None else salt
        self._heap: list[tuple[int, str]] = []

    @property
    def ids(self) -> list[str]:
        """Who is in it."""
        return sorted(identity for _, identity in self._heap)

    def offer(self, ids: Iterable[str]) -> None:
        """Ids that have not been offered before."""
        if self.size is None:
            return
        for identity in ids:
            digest = blake2b(identity.encode(), digest_size=8, key=self._salt).digest()
            entry = (-int.from_bytes(digest), identity)
            if len(self._heap) < self.size:
                heapq.heappush(self._heap, entry)
            elif self._heap and entry > self._heap[0]:
                heapq.heapreplace(self._heap, entry)
