import dataclasses

import pytest

from kits.defect.data.config import CocoData, RenderedData, TilingConfig
from kits.defect.data.load import OPENERS
from kits.defect.kit import KIT
from kits.defect.optics_config import OpticsConfig


def test_every_source_has_a_reader():
    assert set(KIT.groups["data"]) == set(OPENERS)
    for option, cls in KIT.groups["data"].items():
        assert {field.name: field.default for field in dataclasses.fields(cls)}["name"] == option


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({"surfaces": ("glass",)}, "data.surfaces=.'glass'. is not a choice of brushed"),
        ({"defects": ()}, "data.defects=.. is not a choice of scratch"),
        ({"width_px": 4000}, "data.width_px=4000 is not from 32 to 3840"),
        ({"scratch_width_mm": (0.4, 0.2)}, "data.scratch_width_mm=.0.4, 0.2. is not a range"),
        ({"mean_defects": 0.5}, "data.mean_defects=0.5 is not from 1 to 50"),
        ({"name": "coco"}, "data.name='coco' cannot be changed; choose data=rendered or data=coco"),
    ],
)
def test_rendered_data_refuses(settings, text):
    with pytest.raises(ValueError, match=text):
        RenderedData(**settings)


def test_other_settings_refuse():
    with pytest.raises(ValueError, match=r"data\.optics\.f_number=0\.1 is not from 0\.7 to 64"):
        OpticsConfig(f_number=0.1)
    with pytest.raises(ValueError, match="are not different numbers from 0 to 9"):
        CocoData(path="x", test_folds=(0, 1), validation_folds=(1,))
    with pytest.raises(ValueError, match=r"tiling\.overlap_px=100 is above half of"):
        TilingConfig(size_px=128, overlap_px=100)
