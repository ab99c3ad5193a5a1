import numpy as np
import pytest

from kits.defect.line.cells import CELL_PX, num_cells
from kits.defect.line.tiling import Grid, draw_blocks, touches

UHD = Grid(2160, 3840, 320, 64)


def sees(grid, tile, cell_row, cell_column):
    """Whether a tile holds a cell with its halo, as far as the frame goes."""
    top, left = cell_row * CELL_PX, cell_column * CELL_PX
    right, bottom = min(left + CELL_PX, grid.width_px), min(top + CELL_PX, grid.height_px)
    wanted = (
        max(0, left - grid.halo_px),
        max(0, top - grid.halo_px),
        min(right + grid.halo_px, grid.width_px),
        min(bottom + grid.halo_px, grid.height_px),
    )
    return (
        tile[0] <= wanted[0]
        and tile[1] <= wanted[1]
        and tile[2] >= wanted[2]
        and tile[3] >= wanted[3]
    )


@pytest.mark.parametrize(
    "grid",
    [
        UHD,
        Grid(2160, 3840, 320, 64, has_small=False),
        Grid(640, 640, 320, 64),
        Grid(2160, 3840, 640, 96),
        Grid(700, 1001, 256, 32),
    ],
)
@pytest.mark.parametrize("share", [0.001, 0.02, 0.3, 1.0])
def test_every_flagged_cell_is_seen_with_its_halo_by_a_tile_inside_the_frame(grid, share):
    rng = np.random.default_rng(3)
    flagged = rng.random(num_cells(grid.height_px, grid.width_px)) < share
    flagged[-1, -1] = True
    tiles = grid.cover(flagged)
    for tile in tiles:
        assert tile[2] - tile[0] == tile[3] - tile[1]
        assert tile[2] - tile[0] in (grid.tile_px, grid.small_px)
        assert min(tile) >= 0
        assert tile[2] <= grid.width_px
        assert tile[3] <= grid.height_px
    for row, column in np.argwhere(flagged):
        assert any(sees(grid, tile, row, column) for tile in tiles)


def test_neighbouring_cells_share_a_tile():
    flagged = np.zeros(num_cells(2160, 3840), bool)
    flagged[10:13, 20:23] = True
    assert len(UHD.cover(flagged)) == 1
    flagged[30, 50] = True
    assert len(UHD.cover(flagged)) == 2


def test_a_few_cells_get_small_tiles_where_the_detector_takes_them():
    flagged = np.zeros(num_cells(2160, 3840), bool)
    flagged[10, 20] = flagged[11, 21] = True
    assert UHD.small_px == 192
    assert [tile[2] - tile[0] for tile in UHD.cover(flagged)] == [192, 192]
    fixed = Grid(2160, 3840, 320, 64, has_small=False)
    assert [tile[2] - tile[0] for tile in fixed.cover(flagged)] == [320]


def test_nothing_flagged_needs_no_tile():
    assert UHD.cover(np.zeros((34, 60), bool)) == []


def test_a_frame_smaller_than_a_tile_is_one_tile():
    grid = Grid(200, 200, 320, 64, has_small=False)
    assert grid.every() == [(0, 0, 200, 200)]
    assert set(grid.cover(np.ones((4, 4), bool))) == {(0, 0, 200, 200)}


@pytest.mark.parametrize("grid", [UHD, Grid(640, 640, 320, 64), Grid(333, 1000, 320, 40)])
def test_blocks_hold_each_pixel_once_and_their_tiles_hold_them(grid):
    count = np.zeros((grid.height_px, grid.width_px), np.int8)
    for left, top, right, bottom in grid.blocks():
        count[top:bottom, left:right] += 1
        tile = grid.around((left, top, right, bottom))
        assert tile[0] <= left
        assert tile[1] <= top
        assert tile[2] >= right
        assert tile[3] >= bottom
    assert (count == 1).all()


def test_each_block_is_drawn_as_often_as_any_other():
    blocks = UHD.blocks()
    flagged = np.zeros(num_cells(2160, 3840), bool)
    flagged[:3, :3] = True  # the first block wholly
    rng = np.random.default_rng(0)
    drawn = [block for _ in range(400) for block in draw_blocks(blocks, flagged, 0.05, rng)]
    counts = np.array([drawn.count(block) for block in blocks])
    assert counts[0] == 0
    # Binomial(400, 0.05): mean 20, deviation 4.4; five of them for the worst of 240.
    assert abs(counts[1:].mean() - 20) < 1
    assert counts[1:].min() >= 3
    assert counts[1:].max() <= 42
    assert draw_blocks(blocks, flagged, 0.0, rng) == []
    assert len(draw_blocks(blocks, flagged, 1.0, rng)) == len(blocks) - 1


def test_a_box_touches_the_cells_it_overlaps():
    flagged = np.zeros((4, 4), bool)
    flagged[1, 1] = True
    assert touches(flagged, (60, 60, 65, 65))
    assert touches(flagged, (127.5, 100, 200, 110))
    assert not touches(flagged, (128, 100, 200, 110))
    assert not touches(flagged, (0, 0, 64, 64))
