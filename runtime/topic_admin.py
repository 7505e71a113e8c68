"""Creates the topics and compares them with what they should be. Never changes a partition count."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from confluent_kafka import KafkaError, KafkaException, TopicCollection
from confluent_kafka.admin import (
    AdminClient,
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
    NewTopic,
    ResourceType,
)

from runtime import kafka
from runtime.settings import Settings
from schemas.topics import Topics, TopicSpec

TIMEOUT_S: Final = 30.0
POLL_S: Final = 0.05
SPREADS_WITHIN_S: Final = 3.0
DESCRIBE_CALL_S: Final = 5.0
"""A broker that comes back may leave a first question without an answer; without a time-out of ours the
library waits for a minute.
"""


class TopicState(StrEnum):
    """How a topic compares with its specification."""

    OK = "ok"
    MISSING = "missing"
    CONFIG_DIFFERS = "config_differs"
    PARTITIONS_DIFFER = "partitions_differ"


@dataclass(frozen=True, slots=True)
class TopicDifference:
    """One topic against its specification. ``config`` maps an option to (found, wanted)."""

    name: str
    state: TopicState
    partitions_found: int
    partitions_wanted: int
    config: dict[str, tuple[str | None, str]]


class TopicsUnfit(RuntimeError):
    """The topics are not as the settings say; the message names each one and the way out."""


class TopicsMissing(TopicsUnfit):
    """A topic is not there. Create the topics with `orderflow topics apply`."""


def topics_of(settings: Settings) -> Topics:
    """The table of topics under this process' settings."""
    return Topics(prefix=settings.topic_prefix, partitions=settings.partitions)


def diff(settings: Settings) -> list[TopicDifference]:
    """Every topic of the table against the cluster. Raises KafkaException when no broker answers."""
    client = AdminClient(kafka.admin(settings))
    found = client.list_topics(timeout=TIMEOUT_S).topics
    specs = list(topics_of(settings).specs())
    configs = _configs(client, [spec.name for spec in specs if spec.name in found])
    return [
        _difference(
            spec,
            len(found[spec.name].partitions) if spec.name in found else 0,
            configs.get(spec.name, {}),
        )
        for spec in specs
    ]


def apply(settings: Settings) -> list[TopicDifference]:
    """Creates what is missing and sets what differs; returns what it found before.

    Raises TopicsUnfit, before changing anything, when a partition count differs: keys would move to
    other partitions than their state. Raises TimeoutError when the broker has made topics and does not know
    them 30 s later.
    """
    differences = diff(settings)
    _refuse_other_partition_counts(differences)
    client = AdminClient(kafka.admin(settings))
    specs = {spec.name: spec for spec in topics_of(settings).specs()}
    missing = [specs[d.name] for d in differences if d.state is TopicState.MISSING]
    _create(client, missing, settings.replication)
    _alter(client, [d for d in differences if d.state is TopicState.CONFIG_DIFFERS])
    return differences


def require(settings: Settings) -> None:
    """Raises TopicsUnfit unless every topic exists with the partition count of the settings."""
    differences = diff(settings)
    _refuse_other_partition_counts(differences)
    missing = [d.name for d in differences if d.state is TopicState.MISSING]
    if missing:
        names = ", ".join(missing)
        raise TopicsUnfit(
            f"topics are missing: {names}. Create them with `orderflow topics apply`."
        )


def topic_ids(settings: Settings, topics: Sequence[str]) -> dict[str, str]:
    """The broker's id of each topic: a topic deleted and made anew has another. Raises TopicsMissing."""
    client = AdminClient(kafka.admin(settings))
    try:
        # The broker that is asked may not have heard yet of a topic that was just made.
        return kafka.until_answered(lambda: ids_now(client, topics), SPREADS_WITHIN_S)
    except KafkaException as error:
        raise TopicsMissing(f"{error.args[0].str()}. {TopicsMissing.__doc__}") from error


def ids_now(client: AdminClient, topics: Sequence[str]) -> dict[str, str]:
    """As ``topic_ids``, asked once. Raises KafkaException, TimeoutError.

    ``client`` has to be kept until this returns: its futures fail when it is collected before them.
    """
    futures = client.describe_topics(TopicCollection(list(topics)), request_timeout=DESCRIBE_CALL_S)
    within_s = 2 * DESCRIBE_CALL_S  # the library ends it earlier, unless it hangs
    return {topic: str(future.result(within_s).topic_id) for topic, future in futures.items()}


def _refuse_other_partition_counts(differences: Sequence[TopicDifference]) -> None:
    wrong = [d for d in differences if d.state is TopicState.PARTITIONS_DIFFER]
    if wrong:
        found = ", ".join(f"{d.name} has {d.partitions_found}" for d in wrong)
        raise TopicsUnfit(
            f"ORDERFLOW_PARTITIONS says {wrong[0].partitions_wanted} partitions, but {found}. A key's "
            "partition follows from the count, so it is never changed in place: set ORDERFLOW_PARTITIONS "
            "to what is there, or start anew under another ORDERFLOW_TOPIC_PREFIX and replay into it."
        )


def _difference(spec: TopicSpec, partitions: int, found: dict[str, str | None]) -> TopicDifference:
    config = {
        option: (found.get(option), wanted)
        for option, wanted in spec.config.items()
        if partitions and found.get(option) != wanted
    }
    # Dead letters and replies are not co-partitioned with anything, but their count is as fixed.
    if partitions == 0:
        state = TopicState.MISSING
    elif partitions != spec.partitions:
        state = TopicState.PARTITIONS_DIFFER
    else:
        state = TopicState.CONFIG_DIFFERS if config else TopicState.OK
    return TopicDifference(spec.name, state, partitions, spec.partitions, config)


def _configs(client: AdminClient, names: Sequence[str]) -> dict[str, dict[str, str | None]]:
    resources = [ConfigResource(ResourceType.TOPIC, name) for name in names]
    if not resources:
        return {}
    answers = client.describe_configs(resources, request_timeout=TIMEOUT_S)
    return {
        resource.name: {option: entry.value for option, entry in answer.result().items()}
        for resource, answer in answers.items()
    }


def _create(client: AdminClient, specs: Sequence[TopicSpec], replication: int) -> None:
    if not specs:
        return
    min_isr = {"min.insync.replicas": str(min(2, replication))}
    new = [
        NewTopic(
            spec.name,
            num_partitions=spec.partitions,
            replication_factor=replication,
            config=dict(spec.config) | min_isr,
        )
        for spec in specs
    ]
    for future in client.create_topics(new, operation_timeout=TIMEOUT_S).values():
        try:
            future.result()
        except KafkaException as error:
            # Another process applied the same table at the same time.
            if error.args[0].code() != KafkaError.TOPIC_ALREADY_EXISTS:
                raise
    _wait_until_known(client, {spec.name for spec in specs})


def _wait_until_known(client: AdminClient, names: set[str]) -> None:
    """The controller answers before the broker has heard of it, a busy one seconds before."""
    until = time.monotonic() + TIMEOUT_S
    while unknown := names - client.list_topics(timeout=TIMEOUT_S).topics.keys():
        if time.monotonic() > until:
            raise TimeoutError(f"made, but not known to the broker: {', '.join(sorted(unknown))}")
        time.sleep(POLL_S)


def _alter(client: AdminClient, differences: Sequence[TopicDifference]) -> None:
    resources = [
        ConfigResource(
            ResourceType.TOPIC,
            d.name,
            incremental_configs=[
                ConfigEntry(option, wanted, incremental_operation=AlterConfigOpType.SET)
                for option, (_, wanted) in d.config.items()
            ],
        )
        for d in differences
    ]
    if resources:
        for future in client.incremental_alter_configs(resources).values():
            future.result()
