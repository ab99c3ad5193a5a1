from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from kits.fraud.data import load_events, token
from kits.fraud.data.config import HandbookData
from kits.fraud.data.events import fingerprint_columns

START_S = 1_522_540_800
DEVELOPMENT_FILE = (
    Path(__file__).resolve().parents[4]
    / "../shared/data/fraud-handbook-sim-dev/transactions_2018-04-01_2018-07-31.parquet"
)
SMALL = {"num_customers": 60, "num_terminals": 150, "num_days": 40, "radius": 20.0}
SMALL_COUNTS = (4327, [2764, 0, 825, 738])


@pytest.fixture(scope="module")
def cache_dir(tmp_path_factory):
    return str(tmp_path_factory.mktemp("cache"))


@pytest.fixture(scope="module")
def full(cache_dir):
    return load_events(HandbookData(cache_dir=cache_dir))


def test_full_set_has_the_published_counts(full):
    assert len(full) == 1_754_155
    assert full.label.sum() == 14_681
    assert np.bincount(full.pattern).tolist() == [1_739_474, 973, 9_077, 4_631]
    # Fixes every row, as compared once with the published rows.
    assert full.fingerprint == "1d8d9f8f6d0ae617efdd1a5f8d2b22bba8a87d42ba68753efb5e93ad9e76520d"


@pytest.mark.published_data
def test_full_set_equals_the_published_rows(full):
    if not DEVELOPMENT_FILE.exists():
        pytest.skip("development data is not beside the project")
    import pyarrow.parquet

    table = pyarrow.parquet.read_table(DEVELOPMENT_FILE).sort_by("TRANSACTION_ID")
    published = {name: table[name].to_numpy() for name in table.column_names}
    first = slice(0, len(table))
    customers = np.array([token("account", str(c)) for c in range(5000)], np.uint64)
    terminals = np.array([token("terminal", str(t)) for t in range(10000)], np.uint64)
    np.testing.assert_array_equal(full.tx_id[first], published["TRANSACTION_ID"])
    np.testing.assert_array_equal(full.time_s[first] - START_S, published["TX_TIME_SECONDS"])
    np.testing.assert_array_equal(full.amount[first], published["TX_AMOUNT"])
    np.testing.assert_array_equal(full.label[first], published["TX_FRAUD"])
    np.testing.assert_array_equal(full.pattern[first], published["TX_FRAUD_SCENARIO"])
    np.testing.assert_array_equal(full.entities[first, 0], customers[published["CUSTOMER_ID"]])
    np.testing.assert_array_equal(full.entities[first, 1], terminals[published["TERMINAL_ID"]])


def test_small_world_is_pinned(cache_dir):
    events = load_events(HandbookData(cache_dir=cache_dir, **SMALL))
    assert (len(events), np.bincount(events.pattern).tolist()) == SMALL_COUNTS
    assert events.fingerprint == fingerprint_columns(events.columns())
    assert (np.diff(events.time_s) >= 0).all()
    assert events.entity_roles == ("account", "counterparty")
    assert events.entity_kinds == ("account", "terminal")
    np.testing.assert_array_equal(events.label, events.pattern > 0)
    np.testing.assert_array_equal(events.label_time_s, events.time_s)
    assert (events.amount >= 0).all()


def test_another_seed_is_another_world(cache_dir):
    first = load_events(HandbookData(cache_dir=cache_dir, **SMALL))
    second = load_events(HandbookData(cache_dir=cache_dir, seed=1, **SMALL))
    assert first.fingerprint != second.fingerprint
    # Customer 1 of seed 0 must not come back as customer 0 of seed 1.
    times = {tuple(_times(first, c)) for c in range(60)} & {
        tuple(_times(second, c)) for c in range(60)
    }
    assert times <= {()}


def _times(events, customer):
    return events.time_s[events.entities[:, 0] == np.uint64(token("account", str(customer)))]


def test_smoke_is_small_and_holds_every_scenario(cache_dir):
    events = load_events(HandbookData(cache_dir=cache_dir), smoke=True)
    assert 50_000 < len(events) < 200_000
    assert (np.bincount(events.pattern, minlength=4)[1:] >= 30).all()
    assert events.time_s[-1] - START_S > 121 * 86_400


def test_changed_cache_file_is_made_again(tmp_path):
    cfg = HandbookData(cache_dir=str(tmp_path), **SMALL)
    fingerprint = load_events(cfg).fingerprint
    (file,) = tmp_path.glob("fraud/handbook-*/amount.npy")
    amount = np.load(file)
    amount[3] += 1
    np.save(file, amount)
    events = load_events(cfg)
    assert events.fingerprint == fingerprint == fingerprint_columns(events.columns())
    assert [path.name[0] for path in (tmp_path / "fraud").iterdir()] == ["h"]


def test_truncated_cache_file_is_made_again(tmp_path):
    cfg = HandbookData(cache_dir=str(tmp_path), **SMALL)
    fingerprint = load_events(cfg).fingerprint
    (file,) = tmp_path.glob("fraud/handbook-*/time_s.npy")
    file.write_bytes(file.read_bytes()[:1000])
    assert load_events(cfg).fingerprint == fingerprint


def test_cached_columns_are_read_only(cache_dir):
    events = load_events(HandbookData(cache_dir=cache_dir, **SMALL))
    with pytest.raises(ValueError, match="read-only"):
        events.amount[0] = 0


def test_settings_that_do_not_change_events_share_the_cache(tmp_path):
    cfg = HandbookData(cache_dir=str(tmp_path), **SMALL)
    load_events(cfg)
    load_events(replace(cfg, label_delay_days=30))
    assert len(list((tmp_path / "fraud").iterdir())) == 1


def test_unwritable_cache_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match=r"data\.cache_dir=.*cannot be written"):
        load_events(HandbookData(cache_dir=str(tmp_path / "file"), **SMALL))


def test_radius_without_terminals_is_named(tmp_path):
    with pytest.raises(ValueError, match=r"data\.radius=0\.001 gives no customer"):
        load_events(HandbookData(cache_dir=str(tmp_path), **(SMALL | {"radius": 0.001})))
