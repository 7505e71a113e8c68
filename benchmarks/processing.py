"""Commands a second of one processor, next to the bare loop's."""

import threading
import time

from benchmarks import bare_loop
from processors.command_processor import CommandProcessor
from runtime.settings import Settings

BATCH = 1_000


def processor_rate(settings: Settings, count: int) -> float:
    """Lets one processor decide everything on the topics; returns commands a second."""
    processor = CommandProcessor(settings)
    rates: list[float] = []

    def watch() -> None:
        while processor.decided == 0:
            time.sleep(0.002)
        started, first = time.perf_counter(), processor.decided
        while processor.decided < count:
            time.sleep(0.002)
        rates.append((processor.decided - first) / (time.perf_counter() - started))
        processor.stop()

    watcher = threading.Thread(target=watch)
    watcher.start()
    processor.run()
    watcher.join()
    return rates[0]


def pair(settings: Settings, count: int) -> dict[str, float]:
    """The bare loop and the processor on the same commands."""
    bare = bare_loop.run(settings, count, BATCH)
    ours = processor_rate(settings, count)
    return {"bare loop, commands/s": bare, "processor, commands/s": ours, "ratio": ours / bare}
