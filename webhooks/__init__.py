"""Webhooks: events go to other people's HTTP endpoints, signed as Standard Webhooks has it.

May import `schemas` and `runtime`; knows nothing of who decides and of the views. The invariant kept
here: whatever is killed, lost or repeated, each event that a webhook subscribes to is delivered at least
once, those of one aggregate in their order; and nothing is ever connected to that is not public or
allowed by name.

Rooms, from the inside out:

- Pure: `policy` (what an answer means, when to try again), `addresses` (what may be connected to),
  `message` (what is sent, and its signatures).
- The wire: `posting`, HTTP with every address checked where it is connected to.
- One webhook: `gate` (how an endpoint that fails is treated), `course` (delivers in order, bounded in
  bytes), `subscriber` (where it stands, and whether it keeps up).
- All of them: `history` (read once for all), `catching_up` (old ranges, for those that are behind),
  `positions` (kept by the broker), `registry` (who subscribes to what), `requests` (what is asked for by
  hand), `reporting` (the log of deliveries, and pausing), `role`.
- For the command line: `reading`.
"""
