"""These tests need a GPU; tests/gpu/run.py runs them and says so where there is none."""

from amos_ref.kernels.cuda import driver as cuda_driver

collect_ignore = ["standin"]
collect_ignore_glob = ["test_*.py"] if cuda_driver.simulated() or not cuda_driver.usable() else []


def pytest_runtest_logreport(report):
    """Name at once what fails: a run whose time is over has no summary."""
    if report.failed:
        print(f"\nFAILED {report.nodeid}: {str(report.longrepr)[-300:]}", flush=True)
