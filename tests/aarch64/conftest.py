import pytest

from tests.aarch64 import emulator


@pytest.fixture(scope="session")
def emulated():
    """`emulated("-m", "edge.verify", bundle)` runs Python for aarch64; gives the process."""
    if reason := emulator.reason_to_skip():
        pytest.skip(reason)
    return emulator.emulate


@pytest.fixture(scope="session")
def run_on_both(emulated):
    """`run_on_both(bundle, sample, trust, folder)`: outputs emulated and of this machine."""
    return emulator.run_on_both
