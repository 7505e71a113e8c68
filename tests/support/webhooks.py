"""Short ways to say what a test of webhooks does: subscribe, let something happen, look at the log."""

from __future__ import annotations

import base64
from typing import Any

import msgspec

from runtime.client import CommandClient, OutgoingCommand
from runtime.settings import Settings
from runtime.topic_admin import topics_of
from schemas.records import Outcome
from schemas.webhook import Delivery, WebhookState
from tests.support.commanding import command
from tests.support.topics import read_topic
from webhooks import reading

SECRET = "whsec_" + base64.b64encode(b"a secret of more than 24 bytes").decode()
OTHER_SECRET = "whsec_" + base64.b64encode(b"another one of more than 24 bytes").decode()

PATIENT = {"ORDERFLOW_WEBHOOK_TIMEOUT_MS": "600", "ORDERFLOW_WEBHOOK_RETRY_MS": "2"}
"""Pauses of 2 ms instead of 5 s, and no more of an endpoint's time than a test has."""


class Shop:
    """Makes events and orders webhooks through the real processors."""

    def __init__(self, settings: Settings, client: CommandClient) -> None:
        self._settings = settings
        self._client = client
        self.expected: dict[str, int] = {}
        """SKU → newest version."""
        self.webhooks: list[str] = []

    def order(self, webhook_id: str, kind: str, /, **data: Any) -> Outcome:
        outcome = self._client.execute(command(webhook_id, kind, **data))
        assert outcome.accepted, outcome
        return outcome

    def subscribe(self, webhook_id: str, url: str, *types: str, **more: Any) -> None:
        self.webhooks.append(webhook_id)
        types = types or ("inventory.*",)
        self.order(webhook_id, "CreateWebhook", url=url, event_types=types, secret=SECRET, **more)

    def happens(self, skus: int, receipts: int, prefix: str = "sku") -> None:
        """Each SKU is registered if it is new, then receives stock so often; waits for the last."""
        last: list[OutgoingCommand] = []
        for number in range(skus):
            sku = f"{prefix}-{number}"
            some = [command(sku, "ReceiveStock", quantity=1) for _ in range(receipts)]
            if sku not in self.expected:
                some.insert(0, command(sku, "RegisterItem", description="thing"))
            self.expected[sku] = self.expected.get(sku, 0) + len(some)
            for each in some[:-1]:
                self._client.send(each)
            last.append(some[-1])
        for future in [self._client.submit(each) for each in last]:
            assert future.result(60).accepted

    def state(self, webhook_id: str) -> WebhookState:
        return reading.webhooks(self._settings)[webhook_id].state

    def log(self, webhook_id: str) -> list[Delivery]:
        topic = topics_of(self._settings).webhook_deliveries
        lines = (
            msgspec.json.decode(record.value or b"", type=Delivery)
            for record in read_topic(self._settings, topic)
        )
        return [line for line in lines if line.webhook == webhook_id]


def first_seen(events: list[tuple[str, int]]) -> dict[str, list[int]]:
    """For each aggregate its versions in the order in which they first came."""
    found: dict[str, list[int]] = {}
    for aggregate_id, version in events:
        versions = found.setdefault(aggregate_id, [])
        if version not in versions:
            versions.append(version)
    return found
