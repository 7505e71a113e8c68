"""Append to a stream, meet a conflict, look into the past, follow what happens, and keep a count.

Against a running pipeline (`orderflow up`):  python examples/event_store.py
"""

import uuid

from eventstore import ConcurrencyConflict, EventStore, NewEvent, Projection, RecordedEvent
from orderflow.servers import located
from runtime.settings import Settings


def main() -> None:
    """Uses a stream of its own, so it can be run again."""
    parcel = f"stream/parcel-{uuid.uuid4().hex[:8]}"
    with EventStore(located(Settings())) as store:
        # 0: the stream must not exist yet.
        version = store.append(
            parcel, [NewEvent("ParcelPacked", {"grams": 420})], expected_version=0
        )
        store.append(parcel, [NewEvent("ParcelHandedOver", {"carrier": "DHL"})], version)
        try:
            store.append(parcel, [NewEvent("ParcelLost")], version)  # on what it knew before
        except ConcurrencyConflict as conflict:
            print(f"conflict: expected version {conflict.expected}, found {conflict.actual}")

        for event in store.get_stream(parcel):
            print(event.version, event.type, event.json)
        print("at version 1 the last was", store.state_at(parcel, version=1).state.last_type)

        def add(grams: int, event: RecordedEvent) -> int:
            return grams + int(event.json["grams"])

        packed = Projection("grams-packed", ("stream",), 0, add, int, frozenset({"ParcelPacked"}))
        store.register(packed)
        print("packed so far:", store.project("grams-packed") >= 420)

        with store.subscribe(("stream",), patience_s=10) as events:
            mine = (event.type for event in events if str(event.stream) == parcel)
            print("followed:", next(mine), next(mine))


if __name__ == "__main__":
    main()
