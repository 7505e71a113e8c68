"""A topic that is deleted, or deleted and recreated, while roles run: they end within seconds and say so."""

from __future__ import annotations

from pathlib import Path

import pytest
from confluent_kafka.admin import AdminClient

from runtime import kafka, topic_admin
from runtime.embedded import ServersAddress
from runtime.settings import Settings
from runtime.topic_admin import topics_of
from tests.support.commanding import eventually
from tests.support.processes import RoleProcess, environment

ROLES = {
    "commands": ("processors", ["commands"], "ready", "user.events"),
    "sagas": ("processors", ["sagas"], "ready", "saga.commands"),
    "reactor": ("processors", ["reactor"], "reactor started", "saga.history"),
    "payments": ("payments", [], "assigned", "payment.history"),
}
NOTICED_WITHIN_S = 40.0


@pytest.mark.parametrize("role", ROLES)
@pytest.mark.parametrize("again", [True, False], ids=["recreated", "deleted"])
def test_a_role_ends_when_a_topic_is_not_the_one_that_it_was(
    servers: ServersAddress, prefix: str, tmp_path: Path, role: str, again: bool
) -> None:
    env = environment(
        servers, prefix, tmp_path / "home", ORDERFLOW_GATEWAY_URL="http://127.0.0.1:9"
    )
    settings = Settings.model_validate(env)
    topic_admin.apply(settings)
    module, words, started, name = ROLES[role]
    topic = f"{topics_of(settings).prefix}.{name}"
    with RoleProcess(module, env, tmp_path / "role.log", *words) as process:
        eventually(lambda: started in process.text(), 90)
        admin = AdminClient(kafka.admin(settings))
        admin.delete_topics([topic])[topic].result(30)
        if again:
            eventually(lambda: topic not in admin.list_topics(timeout=10).topics)
            topic_admin.apply(settings)
        assert process.wait(NOTICED_WITHIN_S) == 1
        told = "recreated" if again else "was deleted"
        assert told in process.text() or "Unknown topic" in process.text()
