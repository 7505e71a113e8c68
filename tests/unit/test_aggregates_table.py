"""The table of aggregates: complete, without contradiction, and described for other languages."""

import inspect
from dataclasses import replace

import jsonschema
import pytest

from commands import AGGREGATES, TableError, by_command, by_name, check_table
from commands.aggregate import Command
from commands.inventory import INVENTORY
from commands.order import ORDER
from commands.payment import PAYMENT
from commands.stream import STREAM
from commands.user import USER, RegisterUser
from commands.webhook import WEBHOOK
from schemas import inventory, order, payment, stream, topics, user, webhook

COMMANDS = [command for aggregate in AGGREGATES for command in aggregate.commands]


def test_the_table_names_the_aggregates_of_the_topics() -> None:
    assert (
        tuple(by_name)
        == topics.DOMAIN
        == ("user", "inventory", "order", "payment", "stream", "webhook")
    )
    assert tuple(by_name.values()) == AGGREGATES


def test_every_command_leads_to_its_aggregate() -> None:
    assert set(by_command) == {command.__name__ for command in COMMANDS}
    assert by_command["RegisterUser"] is USER
    assert by_command["CommitReservation"] is INVENTORY
    assert by_command["ShipOrder"] is ORDER
    assert by_command["RefundPayment"] is PAYMENT
    assert by_command["CreateWebhook"] is WEBHOOK


def test_every_row_has_all_events_of_its_schema() -> None:
    assert [aggregate.events for aggregate in AGGREGATES] == [
        user.EVENTS,
        inventory.EVENTS,
        order.EVENTS,
        payment.EVENTS,
        stream.EVENTS,
        webhook.EVENTS,
    ]


def test_only_reservations_are_parts() -> None:
    assert {row.name: row.part_type for row in AGGREGATES if row.part_type is not None} == {
        "inventory": inventory.Reservation
    }


def test_a_table_that_misses_an_aggregate_is_refused() -> None:
    with pytest.raises(TableError, match="must name the same aggregates in the same order"):
        check_table((USER, INVENTORY, ORDER))


def test_a_command_name_that_is_used_twice_is_refused() -> None:
    thief = replace(PAYMENT, commands=(*PAYMENT.commands, RegisterUser))
    with pytest.raises(TableError, match="RegisterUser stands in both user and payment"):
        check_table((USER, INVENTORY, ORDER, thief, STREAM, WEBHOOK))


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command.__name__)
def test_every_command_has_a_json_schema_that_describes_each_field(command: type[Command]) -> None:
    schema = command.model_json_schema()
    jsonschema.Draft202012Validator.check_schema(schema)
    assert schema["additionalProperties"] is False
    assert schema["description"] == inspect.getdoc(command)
    for described in (schema, *schema.get("$defs", {}).values()):
        for name, field in described["properties"].items():
            assert field.get("description"), f"{command.__name__}.{name} has no description"
