"""The command processor: it decides the commands of the domain's aggregates."""

from typing import Final

from commands import AGGREGATES
from processors.decider import Decider
from processors.loop import Work

WORK: Final = Work("processor", AGGREGATES, Decider)
