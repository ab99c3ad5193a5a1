import numpy as np
import pytest

from kits.defect.planes import padded, planes_of


def test_a_template_adds_itself_and_the_difference():
    image = np.array([[250, 0], [10, 20]], np.uint8)
    template = np.array([[0, 250], [10, 25]], np.uint8)
    found = planes_of(image, template)
    assert found.dtype == np.uint8
    assert found[2].tolist() == [[250, 250], [0, 5]]


def test_colours_become_grey_beside_a_template():
    image = np.full((2, 2, 3), [255, 255, 255], np.uint8)
    assert planes_of(image, np.zeros_like(image))[0].tolist() == [[255, 255], [255, 255]]
    assert planes_of(image).shape == (3, 2, 2)


@pytest.mark.parametrize("shape", [(2,), (2, 2, 4)])
def test_what_is_no_image_is_refused(shape):
    with pytest.raises(ValueError, match="convert the image"):
        planes_of(np.zeros(shape, np.uint8))


def test_a_template_of_another_size_is_refused():
    with pytest.raises(ValueError, match="register it"):
        planes_of(np.zeros((2, 2), np.uint8), np.zeros((2, 3), np.uint8))


def test_padding_is_zeros_at_the_end():
    found = padded(np.ones((1, 3, 5), np.uint8), 4)
    assert found.shape == (1, 4, 8)
    assert found.sum() == 15
    assert found[:, :3, :5].all()
