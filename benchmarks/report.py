"""What came of the parts: as tables for a person, and as JSON for everything else."""

import os
import platform
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import psutil
from rich.console import Console
from rich.table import Table

from benchmarks.bench import Found
from benchmarks.goals import Verdict, judge
from benchmarks.summary import Spread, middle_curve, spreads


@dataclass(slots=True)
class Result:
    """A part's rounds so far. ``error``: why there are no more."""

    rounds: list[Found] = field(default_factory=list)
    seconds: float = 0.0
    error: str | None = None

    @property
    def figures(self) -> dict[str, Spread]:
        """Median and range of each."""
        return spreads([found.figures for found in self.rounds])

    @property
    def curves(self) -> dict[str, list[tuple[float, float]]]:
        """Each curve, in the middle of its rounds."""
        names = self.rounds[0].curves if self.rounds else {}
        return {name: middle_curve([one.curves[name] for one in self.rounds]) for name in names}

    @property
    def notes(self) -> list[str]:
        """What was left out, each reason once."""
        return list(dict.fromkeys(note for found in self.rounds for note in found.notes))


Results = Mapping[str, Result]


def as_json(results: Results) -> dict[str, Any]:
    """Everything: the machine, each round, the medians, the curves, what failed, and the goals."""
    return {
        "machine": {
            "cores": os.cpu_count(),
            "memory_gb": round(psutil.virtual_memory().total / 1e9),
            "system": platform.system(),
            "architecture": platform.machine(),
            "python": platform.python_version(),
        },
        "parts": {name: _part(result) for name, result in results.items()},
        "goals": [
            {
                "part": verdict.goal.part,
                "figure": verdict.goal.figure,
                "goal": str(verdict.goal),
                "found": verdict.found,
                "reached": verdict.reached,
            }
            for verdict in verdicts(results)
        ],
    }


def _part(result: Result) -> dict[str, Any]:
    return {
        "figures": {name: asdict(spread) for name, spread in result.figures.items()},
        "rounds": [found.figures for found in result.rounds],
        "curves": result.curves,
        "seconds": round(result.seconds, 1),
        "notes": result.notes,
        "error": result.error,
    }


def verdicts(results: Results) -> list[Verdict]:
    """What the goals of these parts came to."""
    return judge({name: result.figures for name, result in results.items()})


def show(results: Results, console: Console) -> None:
    """Median and range of each figure, then the goals, then what is missing."""
    table = Table("part", "figure", "median", "lowest", "highest")
    for name, result in results.items():
        for figure, spread in result.figures.items():
            cells = (_number(n) for n in (spread.median, spread.lowest, spread.highest))
            table.add_row(name, figure, *cells)
        table.add_section()
    console.print(table)
    _show_goals(verdicts(results), console)
    for name, result in results.items():
        for note in result.notes:
            console.print(f"{name}: {note}")
        if result.error:
            console.print(f"{name} failed: {result.error}", style="bold red", markup=False)


def _show_goals(found: Sequence[Verdict], console: Console) -> None:
    words = {True: "reached", False: "missed", None: "not measured"}
    table = Table("part", "figure", "goal", "median", "")
    for verdict in found:
        value = "" if verdict.found is None else _number(verdict.found)
        goal = verdict.goal
        table.add_row(goal.part, goal.figure, str(goal), value, words[verdict.reached])
    console.print(table)


def _number(value: float) -> str:
    """As many decimals as it deserves."""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:,.2f}"
