"""Draws what was measured, as SVG: ``throughput``, ``latency``, ``growth``, ``memory``, ``soak``.

The files have the same names each time, and for the same figures the same bytes.
"""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from benchmarks.report import Result, Results

THROUGHPUT: Final = {
    "processing": ("commands/s", ("processor", "bare loop", "Kafka Streams")),
    "projecting": ("events/s", ("projector", "bare consumer", "stock Faust")),
    "rebuilding": (
        "events/s",
        ("rebuild in one process", "rebuild in several processes", "bare consumer"),
    ),
}
"""Part → unit of its rates, and whose they are: ours first."""

OURS: Final = "#1f6f8b"
OTHERS: Final = "#b8b8b8"
PANEL_IN: Final = 3.2
MARKS: Final = (50, 75, 90, 95, 99, 99.9)
STYLE: Final[Any] = {  # the library types each key
    "svg.hashsalt": "orderflow",  # ids in the file are random otherwise
    "svg.fonttype": "none",  # text stays text: small, and of the reader's font
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "lines.linewidth": 1.4,
}


def draw(results: Results, folder: Path) -> list[Path]:
    """Writes what can be drawn; returns the files."""
    folder.mkdir(parents=True, exist_ok=True)
    measured = {name: result for name, result in results.items() if result.rounds}
    drawn = []
    with mpl.rc_context(STYLE):
        for name, plot in _PLOTS.items():
            figure = plot(measured)
            if figure is not None:
                path = folder / f"{name}.svg"
                figure.savefig(path, metadata={"Date": None, "Creator": None})
                drawn.append(path)
    return drawn


def _panels(count: int, height: float = 2.6) -> tuple[Figure, list[Axes]]:
    figure = Figure(figsize=(PANEL_IN * count, height), layout="constrained")
    return figure, list(figure.subplots(1, count, squeeze=False)[0])


def _throughput(results: Results) -> Figure | None:
    parts = [name for name in THROUGHPUT if name in results]
    if not parts:
        return None
    figure, panels = _panels(len(parts), 2.0)
    for axes, part in zip(panels, parts, strict=True):
        unit, names = THROUGHPUT[part]
        _bars(axes, results[part], unit, names)
        axes.set_title(part)
        axes.set_xlabel(f"{unit}, median and range")
    return figure


def _bars(axes: Axes, result: Result, unit: str, names: tuple[str, ...]) -> None:
    found = [(name, result.figures[f"{name}, {unit}"]) for name in reversed(names)
             if f"{name}, {unit}" in result.figures]  # fmt: skip
    values = [spread.median for _, spread in found]
    reach = [
        [spread.median - spread.lowest for _, spread in found],
        [spread.highest - spread.median for _, spread in found],
    ]
    colours = [OURS if name == names[0] else OTHERS for name, _ in found]
    axes.barh([name for name, _ in found], values, xerr=reach, color=colours, height=0.6)
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value / 1000:g}k"))
    axes.locator_params(axis="x", nbins=5)


def _latency(results: Results) -> Figure | None:
    """Panels by rate; both parts' curves."""
    curves = {
        (part, name): points
        for part in ("latency", "visible")
        if part in results
        for name, points in results[part].curves.items()
    }
    rates = list(dict.fromkeys(name.rpartition(" at ")[2] for _, name in curves))
    if not rates:
        return None
    figure, panels = _panels(len(rates))
    for axes, rate in zip(panels, rates, strict=True):
        for (part, name), points in curves.items():
            if name.endswith(f" at {rate}"):
                who = name.removesuffix(f" at {rate}")
                label = _LATENCY_LABELS[part, who]
                style = "--" if part == "visible" else "-"
                colour = OTHERS if who == "bare loop" else None
                places = [_nines(mark) for mark, _ in points]
                axes.plot(places, [ms for _, ms in points], style, label=label, color=colour)
        axes.set_yscale("log")
        axes.xaxis.set_major_locator(FixedLocator([_nines(mark) for mark in MARKS]))
        axes.set_xticklabels([f"{mark:g}" for mark in MARKS])
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axes.set_title(f"{rate} sent")
        axes.set_xlabel("percentile")
        axes.set_ylabel("ms")
    panels[0].legend(fontsize=7, frameon=False)
    return figure


_LATENCY_LABELS: Final = {
    ("latency", "processor"): "send → outcome",
    ("latency", "bare loop"): "bare loop → outcome",
    ("visible", "outcome"): "→ outcome, a projector beside",
    ("visible", "visible"): "→ visible in Redis",
}


def _nines(mark: float) -> float:
    """Where a percentile stands: 90, 99 and 99.9 are as far from each other."""
    return -math.log10(1 - mark / 100)


def _growth(results: Results) -> Figure | None:
    if "growth" not in results:
        return None
    figure, panels = _panels(2)
    for axes, role in zip(panels, ("processor", "projector"), strict=True):
        axes.axhspan(0.8, 1.2, color="#eeeeee")
        for name, points in results["growth"].curves.items():
            who, _, what = name.partition(", ")
            if who == role:
                axes.plot([x for x, _ in points], [y for _, y in points], "o-", label=what, ms=3)
        axes.set_xscale("log")
        axes.xaxis.set_major_formatter(FuncFormatter(_times))
        axes.xaxis.set_minor_locator(NullLocator())
        axes.set_ylim(0, max(1.5, axes.get_ylim()[1]))
        axes.set_title(role)
        axes.set_xlabel("as much of it")
        axes.set_ylabel("cost of one, to the smallest's")
        axes.legend(fontsize=7, frameon=False, loc="lower left")
    return figure


def _times(value: float, _: int | None) -> str:
    return f"x {value:g}" if value < 1_000 else f"x {value / 1_000:g}k"


def _memory(results: Results) -> Figure | None:
    if "memory" not in results:
        return None
    figure, (axes,) = _panels(1, 2.2)
    points = results["memory"].curves["resident"]
    axes.plot([x / 1000 for x, _ in points], [y for _, y in points], color=OURS)
    axes.set_ylim(0, None)
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}k"))
    axes.set_xlabel("orders decided")
    axes.set_ylabel("resident, MB")
    axes.set_title("one processor")
    return figure


def _soak(results: Results) -> Figure | None:
    if "soak" not in results:
        return None
    curves = results["soak"].curves
    figure, (waiting, memory) = _panels(2, 2.4)
    for axes, names, unit in (
        (waiting, ("commands waiting", "events waiting"), "waiting"),
        (memory, ("processor, MB", "projector, MB"), "resident, MB"),
    ):
        for name in names:
            points = curves[name]
            label = name.partition(",")[0]
            axes.plot([x / 60 for x, _ in points], [y for _, y in points], label=label)
        axes.set_ylim(0, None)
        axes.set_xlabel("minutes")
        axes.set_ylabel(unit)
        axes.legend(fontsize=7, frameon=False)
    waiting.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value / 1000:,.0f}k"))
    return figure


_PLOTS: Final[dict[str, Callable[[Results], Figure | None]]] = {
    "throughput": _throughput,
    "latency": _latency,
    "growth": _growth,
    "memory": _memory,
    "soak": _soak,
}
