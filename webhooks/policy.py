"""What an endpoint's answer means, and when it is asked again. Pure.

| answer | what follows |
| --- | --- |
| 2xx | delivered; the body is not read |
| 410 | the webhook is paused at once: the endpoint says that it is gone for good |
| an address that is not allowed | the webhook is paused at once |
| 429, 503 with `Retry-After` | again after that time, at most the longest pause |
| any other status, 3xx too: redirects are not followed | again |
| no answer in time, no connection, nonsense | again |

Before attempt n + 1 there is a pause by chance of up to 5 s · 2ⁿ⁻¹, at most an hour ("full jitter"). After
``MOST_ATTEMPTS`` in vain the webhook is paused: five hours on average.
"""

import random
from datetime import datetime
from email.utils import parsedate_to_datetime
from enum import Enum, auto
from typing import Final

import msgspec

from runtime.settings import Settings

MOST_ATTEMPTS: Final = 20
ATTEMPTS_BY_HAND: Final = 3
"""What is asked for by hand has a person who looks what became of it."""

LONGEST_IN_FIRST: Final = 720
"""The longest pause, in first ones: an hour of five seconds each."""

GONE: Final = 410
HAVE_PATIENCE: Final = (429, 503)
"""The statuses for which RFC 9110 and RFC 6585 give a meaning to ``Retry-After``."""


class Answer(msgspec.Struct, frozen=True):
    """What came of one POST: a status, or an error. ``forbidden``: no address of the endpoint may be
    connected to. ``retry_after``: the header as it came.
    """

    latency_ms: int
    status: int | None = None
    error: str | None = None
    retry_after: str | None = None
    forbidden: bool = False

    def __str__(self) -> str:
        return self.error or f"HTTP {self.status}"


class Verdict(Enum):
    """What an answer means for the delivery."""

    DELIVERED = auto()
    AGAIN = auto()
    STOP = auto()


def judge(answer: Answer) -> Verdict:
    """The table above."""
    if answer.forbidden or answer.status == GONE:
        return Verdict.STOP
    if answer.status is not None and 200 <= answer.status < 300:
        return Verdict.DELIVERED
    return Verdict.AGAIN


class Policy(msgspec.Struct, frozen=True):
    """Timeouts and pauses, seconds."""

    timeout_s: float
    first_pause_s: float

    @property
    def longest_pause_s(self) -> float:
        """No pause is longer, whatever an endpoint asks for."""
        return self.first_pause_s * LONGEST_IN_FIRST

    def bound_s(self, attempt: int) -> float:
        """The longest that is waited after so many attempts in a row."""
        doublings = min(attempt - 1, 30)  # a float has an end
        return min(self.first_pause_s * 2.0**doublings, self.longest_pause_s)

    def pause_s(self, attempt: int, chance: random.Random, answer: Answer, now: datetime) -> float:
        """How long to wait after this attempt, of so many in a row."""
        asked = 0.0
        if answer.status in HAVE_PATIENCE:
            asked = min(seconds_to_wait(answer.retry_after, now), self.longest_pause_s)
        return max(chance.uniform(0, self.bound_s(attempt)), asked)


def policy_of(settings: Settings) -> Policy:
    """The policy under this process' settings."""
    return Policy(settings.webhook_timeout_ms / 1000, settings.webhook_retry_ms / 1000)


def seconds_to_wait(retry_after: str | None, now: datetime) -> float:
    """What ``Retry-After`` asks for: seconds or a date (RFC 9110, 10.2.3); 0 for what is neither."""
    text = (retry_after or "").strip()
    if text.isascii() and text.isdigit():
        return float(text[:12])
    try:
        at = parsedate_to_datetime(text)
        return max(0.0, (at - now).total_seconds())
    except (TypeError, ValueError, OverflowError):  # no date, or one without a time zone
        return 0.0
