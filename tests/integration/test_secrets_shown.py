"""A webhook's secret is shown once, by the command that makes it, and by no other."""

from __future__ import annotations

import json
import uuid
from pathlib import Path

from typer.testing import CliRunner

from orderflow.cli import app
from orderflow.cli.exits import Exit
from runtime import topic_admin
from runtime.client import CommandClient
from runtime.embedded import ServersAddress
from runtime.settings import Settings
from runtime.topic_admin import topics_of
from tests.support.commanding import command
from tests.support.processes import RoleProcess, environment
from tests.support.sagas import READY_WITHIN_S
from tests.support.topics import read_topic


def test_no_command_but_the_one_that_makes_it_shows_a_secret(
    servers: ServersAddress, tmp_path: Path
) -> None:
    env = environment(servers, f"t{uuid.uuid4().hex[:12]}", tmp_path / "home")
    settings = Settings.model_validate(env)
    topic_admin.apply(settings)

    def shown(*words: str) -> str:
        done = CliRunner().invoke(app, list(words), env=env)
        assert done.exit_code == Exit.OK, done.output
        return done.output

    with (
        RoleProcess("processors", env, tmp_path / "processor.log") as processor,
        CommandClient(settings) as client,
    ):
        client.execute(command("eve", "RegisterUser", name="Eve"), READY_WITHIN_S)
        create = ("webhooks", "create", "shop", "https://example.org", "--event", "order.*")
        made = json.loads(shown(*create, "-o", "json"))["secret"]
        assert made in shown("webhooks", "rotate", "shop", "--secret", made)
        new = json.loads(shown("webhooks", "rotate", "shop", "-o", "json"))["secret"]
        data = {"url": "https://example.org", "event_types": ["order.*"], "secret": new}
        # Under the same id with other data: the bytes go to the dead letters.
        client.execute(command("other", "CreateWebhook", command_id="c", **data))
        data["description"] = "another"
        client.execute(command("other", "CreateWebhook", command_id="c", **data))
        letters = json.loads(shown("dead-letters", "list", "-o", "json"))
        assert letters, read_topic(settings, topics_of(settings).dead_letters)

        for words in (
            ("history", "webhook", "shop"),
            ("history", "webhook", "shop", "--diff"),
            ("history", "webhook", "other"),
            ("history", "--correlation", "c"),
            ("webhooks", "list"),
            ("webhooks", "show", "shop"),
            ("dead-letters", "list"),
            ("dead-letters", "show", letters[0]["id"]),
        ):
            for form in ((), ("-o", "json")):
                text = shown(*words, *form) if "--diff" not in words or not form else ""
                for secret in (made, new):
                    assert secret.removeprefix("whsec_")[:12] not in text, (words, form)
        assert "(secret)" in shown("history", "webhook", "shop", "-o", "json")
        assert "(secret)" in shown("dead-letters", "show", letters[0]["id"])
        assert new.removeprefix("whsec_") not in processor.text()
