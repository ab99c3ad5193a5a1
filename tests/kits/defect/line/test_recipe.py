import zipfile

import numpy as np
import pytest

from kits.defect.line.recipe import (
    Limits,
    Recipe,
    Rule,
    Zone,
    fingerprint,
    read_recipe,
    write_recipe,
)

CORNER = Zone("corner", ((0.0, 0.0), (10.0, 0.0), (0.0, 10.0)))


def recipe(**settings):
    given = {"product": "cover", "width_px": 40, "height_px": 30} | settings
    return Recipe(mm_per_px=0.05, smallest_defect_mm=0.2, **given)


def test_comes_back_as_it_was_written(tmp_path):
    given = recipe(
        zones=(CORNER, Zone("label", CORNER.polygon_px, is_ignored=True)),
        rules=(Rule("scratch", "corner", max_length_mm=2.0, max_count=1), Rule(max_area_mm2=0.1)),
        limits=Limits(outside_blocks=7, ridge_contrasts=(1, 2, 3, 4)),
        arrays={"low": np.arange(6, dtype=np.uint8).reshape(2, 3)},
        notes={"images": 20, "cannot_promise": ["缺陷"]},
    )
    write_recipe(given, tmp_path / "a.recipe")
    read = read_recipe(tmp_path / "a.recipe")
    np.testing.assert_array_equal(read.arrays["low"], given.arrays["low"])
    assert (read.zones, read.rules, read.limits) == (given.zones, given.rules, given.limits)
    assert read.notes == given.notes
    assert read.product == "cover"
    write_recipe(read, tmp_path / "b.recipe")
    assert fingerprint(tmp_path / "a.recipe") == fingerprint(tmp_path / "b.recipe")
    assert sorted(file.name for file in tmp_path.iterdir()) == ["a.recipe", "b.recipe"]


def test_refuses_pickled_arrays(tmp_path):
    with pytest.raises(ValueError, match="Object arrays"):
        write_recipe(recipe(arrays={"low": np.array([object()])}), tmp_path / "a.recipe")


def test_names_what_is_wrong_with_a_file(tmp_path):
    path = tmp_path / "a.recipe"
    path.write_bytes(b"nothing")
    with pytest.raises(ValueError, match=r"a\.recipe is no usable recipe: File is not a zip"):
        read_recipe(path)
    write_recipe(recipe(arrays={"low": np.zeros(3)}), path)
    with zipfile.ZipFile(path) as archive:
        text, array = archive.read("recipe.json"), archive.read("low.npy")
    for name, changed in {"low.npy": array[:-1] + b"\1", "recipe.json": text[:-9]}.items():
        with zipfile.ZipFile(path, "w") as archive:
            members = {"recipe.json": text, "low.npy": array} | {name: changed}
            for member, content in members.items():
                archive.writestr(member, content)
        with pytest.raises(ValueError, match="is no usable recipe"):
            read_recipe(path)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("recipe.json", text.replace(b'"tile_px"', b'"tile"'))
        archive.writestr("low.npy", array)
    with pytest.raises(ValueError, match="'tile'"):
        read_recipe(path)


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"width_px": 0}, "width_px=0 is not positive"),
        ({"tile_px": 64, "halo_px": 32}, "halo_px=32 does not fit"),
        ({"audit_share": 1.5}, "audit_share"),
        ({"zones": (CORNER, CORNER)}, "name one twice"),
        ({"rules": (Rule(zone="rim"),)}, "rule.zone='rim' is not one of"),
    ],
)
def test_refuses_settings_that_cannot_be(settings, told):
    with pytest.raises(ValueError, match=told):
        recipe(**settings)


def test_refuses_zones_and_limits_that_cannot_be():
    with pytest.raises(ValueError, match="2 corners"):
        Zone("line", ((0.0, 0.0), (1.0, 1.0)))
    with pytest.raises(ValueError, match="names no one zone"):
        Zone("*", CORNER.polygon_px)
    with pytest.raises(ValueError, match=r"most_gain=0\.5"):
        Limits(most_gain=0.5)
    with pytest.raises(ValueError, match="slight_levels=9 is above outside_levels=8"):
        Limits(slight_levels=9, outside_levels=8)
    with pytest.raises(ValueError, match="max_length_mm=-1"):
        Rule(max_length_mm=-1)
