"""What every test file shares: seeded Hypothesis, and threads to compare."""

import os

from hypothesis import settings

# Two threads at least, so that a machine with one core still sees work divided between threads.
os.environ.setdefault("NUMBA_NUM_THREADS", str(max(os.cpu_count() or 1, 2)))

settings.register_profile("amos_ref", derandomize=True, deadline=None, max_examples=100, database=None)
settings.load_profile("amos_ref")
