"""Payments at a gateway: what happens outside of Kafka's transactions, and how it is made certain.

May import `schemas` and `runtime`; knows nothing of commands, processors and views. The invariant
kept here: whatever is killed, lost or repeated, a payment is charged at most once, and what the log
says of the money is what the gateway says.

Rooms, from the inside out:

- The port: `gateway`, with its adapter `http_gateway`.
- For tests and demos: `ledger` and `simulation` (test tokens), as an object in `memory_gateway` and as a
  process of its own in `simulated_gateway`.
- What follows from an event and from an answer: `reaction`, pure.
- Who does it: `role`, with `outbox` (reads, commits), `lanes` (order of one payment), `asking` (one
  event to its end), `sending`; on `runtime.follower` and `runtime.lanes`.
"""
