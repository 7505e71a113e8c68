"""The saga processor: it decides the commands of sagas, which are answers, appointments and orders of
operators, and sends the commands that follow.
"""

from typing import Final

from processors.loop import Work
from processors.saga_decider import SagaDecider, appointment
from runtime.settings import Settings
from sagas import saga_aggregate
from sagas.definition import Retry

ROLE: Final = "saga-processor"
USUAL_TIMEOUT_MS: Final = Retry().timeout_ms
"""The first wait for answers, as the definitions have it; the settings make it longer or shorter."""


def work(settings: Settings) -> Work:
    """What a saga processor does, as patiently as the settings say."""
    aggregate = saga_aggregate(settings.saga_timeout_ms / USUAL_TIMEOUT_MS)
    return Work(ROLE, (aggregate,), SagaDecider, appointment)
