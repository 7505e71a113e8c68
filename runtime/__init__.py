"""Plumbing that knows no order: settings, Kafka and Redis clients, telemetry, embedded servers.

May be imported by `processors`, `readmodels` and `orderflow`; imports only `schemas`.
"""
