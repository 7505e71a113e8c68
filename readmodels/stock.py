"""The view `stock`: what there is of every SKU, and which are running low."""

from __future__ import annotations

from typing import Final

import msgspec

from readmodels.documents import Collection, Document
from readmodels.records import flat
from schemas.decoding import decoder
from schemas.inventory import StockLevel
from schemas.money import MAX_AMOUNT

_decode: Final = decoder(StockLevel)

COLLECTION: Final = Collection("sku", ranking="low")


def project(_sku: str, version: int, state: bytes) -> Document:
    """Pure. Raises msgspec.MsgspecError for what is no stock level."""
    level = _decode(state)
    if abs(level.available) > MAX_AMOUNT:
        raise msgspec.ValidationError("available is out of range")
    fields = flat(
        version=version,
        on_hand=level.on_hand,
        reserved=level.reserved,
        available=level.available,
        threshold=level.low_stock_threshold,
        description=level.description,
        updated_at_ms=level.updated_at_ms,
    )
    low = level.available <= level.low_stock_threshold
    return Document(fields, score=level.available if low else None)
