"""Small files in the format of the Online Retail data set."""

import gzip
from pathlib import Path

from orderflow.shop.retail_file import COLUMNS

GOOD = "536365,85123A,WHITE HEART,6,2010-12-01T08:26:00,2.55,17850,United Kingdom"
"""A line of an order."""


def written(folder: Path, *rows: str, packed: bool = False) -> Path:
    """A file with these lines, gzipped or not."""
    text = "\n".join([",".join(COLUMNS), *rows]) + "\n"
    path = folder / ("retail.csv.gz" if packed else "retail.csv")
    path.write_bytes(gzip.compress(text.encode()) if packed else text.encode())
    return path
