"""Webhooks as an aggregate: created, paused, resumed, deleted; what can be subscribed to, and where to."""

import base64
from typing import Any

import pytest
from hypothesis import given as given_any
from hypothesis import strategies as st
from pydantic import ValidationError

from commands.webhook import (
    MOST_SKIPPED,
    CreateWebhook,
    DeleteWebhook,
    PauseWebhook,
    RequestRedelivery,
    ResumeWebhook,
    RotateWebhookSecret,
    SkipWebhookEvent,
    TestWebhook,
    UpdateWebhook,
)
from sagas import AGGREGATES
from schemas.rejections import Code
from schemas.topics import WEBHOOK
from schemas.webhook import (
    EVENT_TYPES,
    EVENTS_OF,
    WebhookCreated,
    WebhookDeleted,
    WebhookEvent,
    WebhookEventSkipped,
    WebhookPaused,
    WebhookRedeliveryRequested,
    WebhookResumed,
    WebhookSecret,
    WebhookSecretRotated,
    WebhookState,
    WebhookStatus,
    WebhookTestRequested,
    WebhookUpdated,
    former_message_id,
    message_id,
    wants,
)
from tests.support.decisions import given

URL = "https://shop.example/in"
SECRET, OTHER, THIRD = ("whsec_" + base64.b64encode(bytes([n]) * 24).decode() for n in (1, 2, 3))
CREATED = WebhookCreated(URL, ("order.*",), SECRET)
MESSAGE = former_message_id("order", "o-1", 1)


def state_after(*events: WebhookEvent) -> WebhookState:
    state = given([CREATED, *events]).when(TestWebhook()).state.root
    assert isinstance(state, WebhookState)
    return state


def test_a_webhook_follows_the_aggregates_of_its_types_from_its_creation_on() -> None:
    types = ("order.OrderShipped", "payment.*", "order.OrderShipped")
    created = WebhookCreated(URL, types[:2], SECRET)
    command = CreateWebhook(url=URL, event_types=types, secret=SECRET)
    given([]).when(command).then([created]).then_state(
        WebhookState(
            WebhookStatus.ACTIVE,
            URL,
            types[:2],
            (WebhookSecret(SECRET),),
            {"order": 1, "payment": 1},
            1,
            1,
        )
    )


def test_from_the_beginning_is_from_time_zero_on() -> None:
    command = CreateWebhook(url=URL, event_types=("user.*",), secret=SECRET, from_beginning=True)
    assert given([]).when(command).state.root.since == {"user": 0}


def test_an_id_is_used_once_even_after_it_was_deleted() -> None:
    again = CreateWebhook(url=URL, event_types=("user.*",), secret=SECRET)
    for past, status in (([CREATED], "active"), ([CREATED, WebhookDeleted()], "deleted")):
        given(past).when(again).then_rejected(
            Code.WEBHOOK_ALREADY_EXISTS, f"a webhook with this id exists already, and is {status}"
        )


@pytest.mark.parametrize(
    "command",
    [
        *(
            UpdateWebhook(),
            PauseWebhook(reason="x"),
            ResumeWebhook(),
            DeleteWebhook(),
            TestWebhook(),
        ),
        *(RotateWebhookSecret(secret=OTHER), SkipWebhookEvent(message_id=MESSAGE, reason="x")),
        RequestRedelivery(message_id=MESSAGE, aggregate="order", partition=0, offset=1),
    ],
    ids=lambda command: type(command).__name__,
)
def test_nothing_can_be_done_with_what_is_not_there_or_deleted(command: Any) -> None:
    given([]).when(command).then_rejected(Code.WEBHOOK_NOT_FOUND, "no webhook has this id")
    deleted = given([CREATED, WebhookDeleted()]).when(command)
    if isinstance(command, DeleteWebhook):
        deleted.then([])
    else:
        deleted.then_rejected(Code.INVALID_TRANSITION, "the webhook is deleted, and that is final")


def test_pausing_and_resuming_twice_is_accepted_and_changes_nothing() -> None:
    paused, resumed = WebhookPaused("down"), WebhookResumed()
    given([CREATED]).when(ResumeWebhook()).then([])
    given([CREATED]).when(PauseWebhook(reason="down")).then([paused])
    given([CREATED, paused]).when(PauseWebhook(reason="other")).then([])
    given([CREATED, paused]).when(ResumeWebhook()).then([resumed])
    assert state_after(paused).pause_reason == "down"
    assert state_after(paused, resumed).pause_reason is None


def test_an_update_keeps_what_is_left_out_and_since_when_what_was_followed() -> None:
    followed = given([CREATED]).when(UpdateWebhook(event_types=("payment.*", "order.OrderShipped")))
    followed.then([WebhookUpdated(URL, ("payment.*", "order.OrderShipped"))])
    assert followed.state.root.since == {"payment": 2, "order": 1}
    moved = given([CREATED]).when(UpdateWebhook(url="https://b.example", description="new"))
    moved.then([WebhookUpdated("https://b.example", ("order.*",), "new")])
    given([CREATED]).when(UpdateWebhook(url=URL)).then([])


def test_an_aggregate_that_was_left_out_for_a_while_is_followed_from_its_return_on() -> None:
    without = WebhookUpdated(URL, ("user.*",))
    assert state_after(without, WebhookUpdated(URL, ("order.*",))).since == {"order": 3}


def test_a_rotated_secret_signs_beside_the_new_one_until_its_time_is_up() -> None:
    given([CREATED]).when(RotateWebhookSecret(secret=SECRET)).then([])
    rotated = given([CREATED]).when(RotateWebhookSecret(secret=OTHER, overlap_ms=5))
    rotated.then([WebhookSecretRotated(OTHER, 5)])
    assert rotated.state.root.secrets == (WebhookSecret(OTHER), WebhookSecret(SECRET, 7))
    late = [WebhookTestRequested()] * 5
    gone = state_after(WebhookSecretRotated(OTHER, 5), *late, WebhookSecretRotated(THIRD, 0))
    assert gone.secrets == (WebhookSecret(THIRD),)


def test_a_secret_that_comes_back_is_the_present_one_and_not_a_former_one_too() -> None:
    back = state_after(WebhookSecretRotated(OTHER, 9), WebhookSecretRotated(SECRET, 9))
    assert back.secrets == (WebhookSecret(SECRET), WebhookSecret(OTHER, 12))


def test_a_deleted_webhook_keeps_no_secret() -> None:
    assert given([CREATED]).when(DeleteWebhook()).state.root.secrets == ()


def test_what_is_to_be_skipped_is_kept_the_newest_of_it() -> None:
    skip = SkipWebhookEvent(message_id=MESSAGE, reason="never takes it")
    skipped = WebhookEventSkipped(MESSAGE, "never takes it")
    given([CREATED]).when(skip).then([skipped])
    given([CREATED, skipped]).when(skip).then([])
    many = [
        WebhookEventSkipped(former_message_id("order", "o", n), "x")
        for n in range(MOST_SKIPPED + 9)
    ]
    kept = state_after(*many).skipped
    assert kept == tuple(each.message_id for each in many[9:])


def test_a_redelivery_and_a_test_stand_in_the_history_and_change_nothing() -> None:
    request = RequestRedelivery(message_id=MESSAGE, aggregate="order", partition=1, offset=7)
    asked = given([CREATED]).when(request)
    asked.then([WebhookRedeliveryRequested(MESSAGE, "order", 1, 7)])
    assert asked.state.root.updated_at_ms == 2
    assert given([CREATED]).when(TestWebhook()).decision == (WebhookTestRequested(),)


def test_everything_can_be_subscribed_to_but_the_webhooks_themselves_which_hold_secrets() -> None:
    assert {row.name: row.events for row in AGGREGATES if row.name != WEBHOOK} == EVENTS_OF
    assert not any(name.startswith("webhook.") for name in EVENT_TYPES)


@pytest.mark.parametrize("bad", ["*", "order", "order.", "order.orderShipped", "webhook.*", "x.*"])
def test_what_is_no_event_type_is_refused(bad: str) -> None:
    with pytest.raises(ValidationError, match="event_types"):
        CreateWebhook(url=URL, event_types=("order.*", bad), secret=SECRET)
    with pytest.raises(ValidationError, match="event_types"):
        CreateWebhook(url=URL, event_types=(), secret=SECRET)


@given_any(st.lists(st.sampled_from(EVENT_TYPES), min_size=1), st.sampled_from(EVENT_TYPES))
def test_a_subscription_wants_what_it_names_and_all_of_what_it_names_with_a_star(
    types: list[str], event_type: str
) -> None:
    aggregate = event_type.partition(".")[0]
    expected = any(name in (event_type, aggregate + ".*") for name in types)
    assert wants(tuple(types), event_type) == expected


def test_the_id_of_a_message_is_of_one_event_and_has_no_full_stop() -> None:
    events = [("order", "a.1", 1), ("order", "a", 11), ("order", "a.1", 11), ("user", "a.1", 1)]
    ids = {message_id(*event, "c:0", 1) for event in events}
    ids |= {former_message_id(*event) for event in events}
    assert len(ids) == 2 * len(events)
    assert not any("." in each for each in ids)


@pytest.mark.parametrize(
    "url",
    [
        "https://a.example",
        "http://a.example:80/in?x=1&y=%20",
        "https://a.example:443/",
        "https://a.example:1024",
        "https://a.example:65535/a;b=c/~d",
        "http://[2001:db8::1]:8443/in",
        "http://203.0.113.7/in",
    ],
)
def test_an_endpoint_is_http_or_https_with_a_port_of_its_own(url: str) -> None:
    assert UpdateWebhook(url=url).url == url


@pytest.mark.parametrize(
    "url",
    [
        "",
        "ftp://a.example/",
        "file:///etc/passwd",
        "gopher://a.example:1070/",
        "HTTPS://a.example",
        "//a.example",
        "https://",
        "https:///in",
        "https://user@a.example/",
        "https://user:secret@a.example/",
        "https://a.example@b.example/",
        "https://a.example\\@b.example/",
        "https://a.example:25/",
        "https://a.example:22/",
        "https://a.example:1023/",
        "https://a.example:65536/",
        "https://a.example:99999/",
        "https://a.example:/",
        "https://a.example:080/",
        "https://a.example/#fragment",
        "https://a.example/\r\nHost: b",
        "https://a.example/ in",
        "https://ä.example/",
        "https://a_b.example/",
        "https://-a.example/",
        "https://a.example/" + "x" * 1_000,
    ],
)
def test_what_is_no_plain_endpoint_is_refused(url: str) -> None:
    with pytest.raises(ValidationError, match="url"):
        UpdateWebhook(url=url)


@given_any(st.binary(min_size=0, max_size=80))
def test_a_secret_is_base64_of_24_to_64_bytes(key: bytes) -> None:
    secret = "whsec_" + base64.b64encode(key).decode()
    if 24 <= len(key) <= 64:
        assert RotateWebhookSecret(secret=secret).secret == secret
    else:
        with pytest.raises(ValidationError, match="secret"):
            RotateWebhookSecret(secret=secret)


@pytest.mark.parametrize("length", [23, 24, 25, 26, 62, 63, 64, 65])
def test_the_length_of_a_secret_is_exact(length: int) -> None:
    test_a_secret_is_base64_of_24_to_64_bytes.hypothesis.inner_test(b"\xff" * length)  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    "bad", ["A" * 32, "whsec_" + "A" * 31, "whsk_" + "A" * 32, "whsec_" + "-" * 32]
)
def test_what_is_no_secret_is_refused(bad: str) -> None:
    with pytest.raises(ValidationError, match="secret"):
        RotateWebhookSecret(secret=bad)
