"""Measures speed on this machine; nothing here is a test. ``make bench`` runs all of it.

Figures are worth something only as ratios within one run: each has a comparator that does the same work
as bare as it can be done, on the same servers, a moment before.
"""
