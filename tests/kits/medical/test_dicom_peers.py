"""On healthy scans of many forms the volume is SimpleITK's, voxel by voxel and place by place."""

import numpy as np
import pytest
import SimpleITK

from benchmarks.medical.healthy import forms
from benchmarks.medical.injection import inject
from kits.medical.dicom import read_scan


def by_simpleitk(folder):
    reader = SimpleITK.ImageSeriesReader()
    names = reader.GetGDCMSeriesFileNames(str(folder), recursive=True)
    reader.SetFileNames(names)
    return reader.Execute()


@pytest.mark.parametrize("name", ["healthy", "oblique", "non_square_pixels", "prone", "jpeg_2000"])
@pytest.mark.parametrize("number", range(6))
def test_volume_and_place_are_those_of_simpleitk(tmp_path, number, name):
    folder = inject(name, forms(6)[number]).write(tmp_path)
    volume, image = read_scan(folder).volume, by_simpleitk(folder)
    np.testing.assert_array_equal(volume.voxels, SimpleITK.GetArrayFromImage(image))
    np.testing.assert_allclose(volume.grid.spacing_mm[::-1], image.GetSpacing(), rtol=1e-5)
    np.testing.assert_allclose(volume.grid.origin_mm, image.GetOrigin(), atol=1e-5)
    # Theirs are columns in the order (W, H, D).
    direction = np.array(image.GetDirection()).reshape(3, 3).T[::-1]
    np.testing.assert_allclose(volume.grid.axes, direction, atol=1e-6)
