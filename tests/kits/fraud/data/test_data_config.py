import subprocess
import sys
from pathlib import Path

import pytest

from kits.fraud.data import load_events, token
from kits.fraud.data.config import DataConfig, HandbookData, RingsData, SFfsdData, TableData
from kits.fraud.data.tokens import token_array


def test_config_needs_neither_numpy_nor_torch():
    script = "import kits.fraud.data.config, sys; print({'numpy', 'torch'} & set(sys.modules))"
    answer = subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True,
        text=True,
        check=True,
        cwd=Path(__file__).resolve().parents[4],
    )
    assert answer.stdout.strip() == "set()"


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: HandbookData(num_days=0), r"data\.num_days=0 is not >= 1"),
        (lambda: HandbookData(customers_per_day=3, num_customers=2), r"data\.num_customers=2"),
        (lambda: HandbookData(max_reject_share=1.5), r"data\.max_reject_share=1\.5"),
        (lambda: HandbookData(seed=-1), r"data\.seed=-1"),
        (lambda: HandbookData(name="rings"), r"data\.name='rings' is not 'handbook'"),
        (lambda: RingsData(fraud_share=0), r"data\.fraud_share=0"),
        (lambda: SFfsdData(), r"data\.path=''"),
        (lambda: TableData(path="x.csv"), r"data\.mapping=''"),
    ],
)
def test_bad_setting_is_named(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_unknown_source_names_the_legal_ones():
    with pytest.raises(ValueError, match=r"data\.name='' is not one of handbook, rings"):
        load_events(DataConfig())


def test_cache_path_follows_the_environment(monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", "/somewhere")
    assert HandbookData().cache_path() == Path("/somewhere/deepkits")
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert HandbookData().cache_path() == Path.home() / ".cache/deepkits"
    assert HandbookData(cache_dir="/here").cache_path() == Path("/here")


def test_tokens_keep_kinds_apart():
    assert token("account", "7") != token("device", "7")
    assert token_array("account", [7, "7", None]).tolist() == [token("account", "7")] * 2 + [0]
    # First 8 bytes of `printf 'account\0007' | b2sum`, read as a little-endian number.
    assert token("account", "7").to_bytes(8, "little").hex() == "10ec230a1fc8b9ae"
