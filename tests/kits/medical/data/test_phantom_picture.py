import sys

from PIL import Image

from kits.medical.data.config import PhantomData
from kits.medical.data.phantom_case import make_phantom
from kits.medical.data.phantom_picture import draw, main


def test_a_picture_is_written(tmp_path):
    case = make_phantom(PhantomData(pixel_mm=3.0, slice_mm=4.0), "test", 0).case
    draw(case, tmp_path / "phantom.png")
    with Image.open(tmp_path / "phantom.png") as image:
        assert min(image.size) > 600


def test_without_a_file_the_command_says_how(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["phantom_picture"])
    main()
    assert "phantom_picture <file.png>" in capsys.readouterr().out
