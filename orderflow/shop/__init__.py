"""Shops to feed the pipeline with: one generated from a seed, one read from a file of real orders.

Which room is for what: `generator` (a seeded shop, lazily), `mischief` (its bad commands),
`expectation` (what the views must say after it), `online_retail` (the plan of the real file),
`retail_truth` (what the views must say after it, computed on its own), `feeder` (sends a plan),
`check` (views against expectation). A library: demo, import, tests and benchmarks use it; nothing
below `orderflow` may.
"""

from orderflow.shop.expectation import expect
from orderflow.shop.generator import ShopPlan, generate
from orderflow.shop.planned import ExpectedViews, PlannedCommand

__all__ = ["ExpectedViews", "PlannedCommand", "ShopPlan", "expect", "generate"]
