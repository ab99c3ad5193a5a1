import base64
import subprocess
import sys

import numpy as np
import pytest

from kits.medical.service import MAX_CROPS, MedicalService, as_crop, middle_part

SERVICE = MedicalService(8, 0.25, ("solid", "part_solid", "non_solid"), {})
IMAGE = np.arange(8 * 8 * 16, dtype=np.float32).reshape(8, 8, 16) - 1000


def test_crops_become_a_batch_of_hounsfield_units():
    arrays = SERVICE.decode({"crops": [as_crop(IMAGE), as_crop(IMAGE + 1)]})
    assert list(arrays) == ["image"]
    assert arrays["image"].dtype == np.float32
    np.testing.assert_array_equal(arrays["image"], np.stack([IMAGE, IMAGE + 1])[:, None])


def test_what_is_nearest_to_the_middle_is_the_answer():
    mask = np.full((1, 1, 8, 8, 16), -9.0, np.float32)
    mask[0, 0, 4, 4, 7:9] = -1.0  # a chance of 0.27: above the threshold, below one half
    mask[0, 0, 0, :4, :4] = 5.0  # larger, and elsewhere
    heat = np.full((1, 1, 4, 4, 8), -4.0, np.float32)
    heat[0, 0, 2, 2, 4], heat[0, 0, 0, 0, 0] = 0.0, 9.0
    texture = np.zeros((1, 3, 4, 4, 8), np.float32)
    texture[0, :, 2, 2, 4] = np.log([0.7, 0.2, 0.1])
    answer = SERVICE.encode({"mask": mask, "heat": heat, "texture": texture})
    (nodule,) = answer["nodules"]
    assert nodule["score"] == pytest.approx(0.5)
    assert nodule["textures"] == pytest.approx({"solid": 0.7, "part_solid": 0.2, "non_solid": 0.1})
    bits = np.unpackbits(np.frombuffer(base64.b64decode(nodule["mask"]), np.uint8))
    assert nodule["num_voxels"] == bits.sum() == 2
    assert bits.reshape(8, 8, 16)[4, 4, 7:9].all()
    assert "unverified" in answer["notice"]


def test_where_the_network_sees_nothing_the_mask_is_empty():
    assert not middle_part(np.zeros((8, 8, 8), bool)).any()


@pytest.mark.parametrize(
    ("request_", "message"),
    [
        ([], "request is not an object with crops alone"),
        ({"crops": []}, f"crops is not a list of 1 to {MAX_CROPS} crops"),
        ({"crops": [{"shape": [8, 8, 8]}]}, r"crops\[0\] is not an object with shape and hu"),
        ({"crops": [{"shape": [8, 8, 9], "hu": ""}]}, r"shape=\[8, 8, 9\] is not three multiples"),
        ({"crops": [{"shape": [8, 8, True], "hu": ""}]}, "is not three multiples of 8"),
        ({"crops": [{"shape": [8, 8, 8], "hu": "???"}]}, "hu is not base64"),
        ({"crops": [{"shape": [8, 8, 8], "hu": 5}]}, "hu is not base64"),
        ({"crops": [{"shape": [8, 8, 8], "hu": "AAAA"}]}, "3 bytes; its shape asks for 1024"),
        ({"crops": [as_crop(IMAGE), as_crop(IMAGE[..., :8])]}, "is not that of crops"),
        ({"crops": [as_crop(np.zeros((160, 160, 160)))]}, "more than 4000000 voxels"),
    ],
)
def test_what_is_wrong_is_named(request_, message):
    with pytest.raises(ValueError, match=message):
        SERVICE.decode(request_)


def test_the_schema_holds_for_what_is_sent():
    jsonschema = pytest.importorskip("jsonschema")
    jsonschema.validate({"crops": [as_crop(IMAGE)]}, SERVICE.request_schema)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({"crops": [as_crop(IMAGE[:4])]}, SERVICE.request_schema)


def test_the_service_needs_no_torch():
    code = "import sys, kits.medical.service; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
