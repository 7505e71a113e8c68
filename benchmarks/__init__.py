"""Measures speed on this machine; nothing here is a test. ``make bench`` runs all of it,
docs/BENCHMARKS.md says what is measured and how.

Figures are worth something only as ratios within one run: each has a comparator that does the same work
as bare as it can be done, on the same servers, a moment before or after.

Which room is for what: ``parts`` (their table; a part is a module with ``figures``), ``bench`` (where
one works), ``roles`` (processes), ``workload`` (what they get), ``curves`` (how far they come), ``summary``
and ``goals`` (pure: what is made of the figures), ``report`` and ``plots`` (what is shown). ``bare_loop``,
``kafka_streams`` and ``stock_faust`` are comparators. ``consistency`` and ``rebuild_cost`` run alone.
"""
