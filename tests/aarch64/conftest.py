import pytest

from tests.aarch64 import emulator


@pytest.fixture(scope="session")
def emulated():
    """`emulated("-m", "edge.verify", bundle)` runs Python for aarch64; gives the process."""
    if reason := emulator.reason_to_skip():
        pytest.skip(reason)
    return emulator.emulate


@pytest.fixture(scope="session")
def check_on_both(emulated):
    """`check_on_both(bundle, sample, trust, folder)`: equal outputs here and emulated."""
    return emulator.check_on_both
