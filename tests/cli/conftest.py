"""What the tests of the command line share."""

import numpy as np
import pytest


@pytest.fixture
def houses(tmp_path):
    """A CSV file, its three columns and its path."""
    rng = np.random.default_rng(3)
    area, year = rng.uniform(30, 150, 40).round(1), rng.integers(1950, 2020, 40)
    price = (3000 * area + 800 * (year - 1950) + 20000 + rng.normal(0, 1e4, 40)).round()
    path = tmp_path / "houses.csv"
    rows = [f"{a},{y},{p:.0f}\n" for a, y, p in zip(area, year, price, strict=True)]
    path.write_text("area, built [year] ,price\n" + "".join(rows))
    return str(path), np.column_stack([area, year, price])
