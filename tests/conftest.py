"""Turns a skip for something missing on the machine into a failure when CI=true."""

import os

import pytest

# Hardware that a machine may honestly lack; everything else is installed by `make system` and `make test`.
HARDWARE_MARKERS = {"gpu", "ascend"}


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    report = yield
    if os.environ.get("CI") == "true" and report.skipped and not hasattr(report, "wasxfail"):
        if not HARDWARE_MARKERS & {marker.name for marker in item.iter_markers()}:
            report.outcome = "failed"
            report.longrepr = f"skipped in CI, where nothing may be missing: {report.longrepr}"
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(collector):
    report = yield
    if os.environ.get("CI") == "true" and report.skipped:
        report.outcome = "failed"
        report.longrepr = f"skipped in CI, where nothing may be missing: {report.longrepr}"
    return report
