import time

import av
import numpy as np
import pytest
from PIL import Image

from kits.defect.line.sources.folder import list_cameras
from kits.defect.line.sources.source import open_source
from kits.defect.line.sources.video import count_frames

SHAPE = (48, 64)


def frame(number):
    return np.full(SHAPE, 20 * number + 16, np.uint8)


def save(folder, number, **settings):
    folder.mkdir(exist_ok=True)
    path = folder / f"{number}.png"
    Image.fromarray(frame(number)).save(path, **settings)
    return path


def test_a_folder_gives_its_images_by_name(tmp_path):
    files = [str(save(tmp_path / "a", number)) for number in range(3)]
    source = open_source({"kind": "folder", "files": files})
    shots = [source.capture(at) for at in (0, 2, 1)]
    assert [shot.name for shot in shots] == ["0.png", "2.png", "1.png"]
    assert np.array_equal(shots[1].pixels, frame(2))
    with pytest.raises(EOFError, match="3 images, none at 3"):
        source.capture(3)


def test_colour_becomes_grey_and_a_damaged_image_is_named(tmp_path):
    Image.new("RGB", (10, 6), (255, 0, 0)).save(tmp_path / "red.png")
    (tmp_path / "broken.png").write_bytes(b"x")
    files = [str(tmp_path / "red.png"), str(tmp_path / "broken.png")]
    source = open_source({"kind": "folder", "files": files})
    assert source.capture(0).pixels.shape == (6, 10)
    assert source.capture(0).pixels[0, 0] == 76
    with pytest.raises(ValueError, match=r"broken.png cannot be read"):
        source.capture(1)


def test_folders_in_a_folder_are_cameras(tmp_path):
    save(tmp_path / "left", 1)
    save(tmp_path / "right", 2)
    (tmp_path / "notes").mkdir()
    assert list(list_cameras(tmp_path)) == ["left", "right"]
    assert [file.name for file in list_cameras(tmp_path / "left")["left"]] == ["1.png"]
    with pytest.raises(ValueError, match="holds no image"):
        list_cameras(tmp_path / "notes")


def test_memory_gives_its_frames_again_and_again_without_a_copy(tmp_path):
    np.save(tmp_path / "f.npy", np.stack([frame(n) for n in range(3)]))
    source = open_source({"kind": "memory", "path": str(tmp_path / "f.npy"), "first": 2})
    values = [int(source.capture(at).pixels[0, 0]) for at in range(4)]
    assert values == [56, 16, 36, 56]
    assert not source.capture(0).pixels.flags.owndata


def test_memory_fails_as_it_is_told(tmp_path):
    np.save(tmp_path / "f.npy", frame(0)[None])
    settings = {"stall_at": 1, "stall_s": 0.1, "wrong_size_every": 2}
    source = open_source({"kind": "memory", "path": str(tmp_path / "f.npy"), **settings})
    assert source.capture(0).pixels.shape == SHAPE
    start = time.monotonic()
    assert source.capture(1).pixels.shape == (47, 64)
    assert time.monotonic() - start >= 0.1
    np.save(tmp_path / "g.npy", np.zeros((2, 3)))
    with pytest.raises(ValueError, match=r"not \(n, H, W\) uint8"):
        open_source({"kind": "memory", "path": str(tmp_path / "g.npy")})


@pytest.fixture(params=["yuv420p", "gray", "bgr0"])
def video(request, tmp_path):
    codec = {"yuv420p": "mpeg4", "gray": "ffv1", "bgr0": "ffv1"}[request.param]
    path = tmp_path / "v.mkv"
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=10)
        stream.width, stream.height, stream.pix_fmt = SHAPE[1], SHAPE[0], request.param
        for number in range(5):
            made = av.VideoFrame.from_ndarray(frame(number), "gray").reformat(format=request.param)
            container.mux(stream.encode(made))
        container.mux(stream.encode())
    return path


def test_a_video_gives_its_luma_and_its_number_of_frames(video):
    assert count_frames(video) == 5
    source = open_source({"kind": "video", "path": str(video)})
    for at in (0, 1, 3):
        shot = source.capture(at)
        assert shot.name == f"v.mkv, frame {at}"
        assert shot.pixels.shape == SHAPE
        # Limited range of luma, a lossy codec.
        assert abs(float(shot.pixels.mean()) - frame(at).mean()) < 16
    source.capture(4)
    with pytest.raises(EOFError, match="has no frame 5"):
        source.capture(5)


def test_what_is_no_video_or_no_kind_is_refused(tmp_path):
    (tmp_path / "x.mp4").write_bytes(b"nothing")
    with pytest.raises(ValueError, match="is no video"):
        open_source({"kind": "video", "path": str(tmp_path / "x.mp4")})
    with pytest.raises(ValueError, match="not one of folder, memory, video"):
        open_source({"kind": "radar"})
