"""Turns a skip for something missing on the machine into a failure when CI=true."""

import os

import pytest

# Hardware that a machine may honestly lack; `make system` and `make test` install all else.
HARDWARE_MARKERS = {"gpu", "ascend"}


def _refuse(report):
    if os.environ.get("CI") == "true" and report.skipped and not hasattr(report, "wasxfail"):
        report.outcome = "failed"
        report.longrepr = f"skipped in CI, where nothing may be missing: {report.longrepr}"
    return report


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    report = yield
    needs_hardware = any(item.get_closest_marker(name) for name in HARDWARE_MARKERS)
    return report if needs_hardware else _refuse(report)


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(collector):
    return _refuse((yield))
