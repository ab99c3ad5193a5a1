from pathlib import Path

import numpy as np
import pytest

from kits.fraud.data import load_events
from kits.fraud.data.config import SFfsdData

DEVELOPMENT_FOLDER = Path(__file__).resolve().parents[4] / "../shared/data/s-ffsd-dev"


def test_development_file_has_its_documented_counts(tmp_path):
    if not DEVELOPMENT_FOLDER.exists():
        pytest.skip("development data is not beside the project")
    events = load_events(SFfsdData(path=str(DEVELOPMENT_FOLDER), cache_dir=str(tmp_path)))
    assert np.bincount(events.label + 1).tolist() == [38_820, 20_622, 2_862]
    assert [len(np.unique(column)) for column in events.entities.T] == [23_334, 816, 273]
    assert len(np.unique(events.categorical)) == 162
    assert events.amount.max() == 800_000
    np.testing.assert_array_equal(events.time_s, np.round(np.arange(62_304) * 86.4))
