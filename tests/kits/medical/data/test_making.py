import numpy as np

from kits.medical.data.config import PhantomData
from kits.medical.data.making import FEWEST, make_cases
from kits.medical.data.phantom import PhantomCases


def small(folder, **counts):
    return PhantomData(
        cache_dir=str(folder), pixel_mm=4.0, slice_mm=3.0, shape=(12, 40, 56), **counts
    )


def test_cases_made_by_several_processes_are_those_made_alone(tmp_path):
    counts = {"num_train": FEWEST, "num_validation": 1, "num_test": 1}
    cases = PhantomCases(small(tmp_path / "many", **counts))
    told = []
    make_cases(cases, ("train", "test"), lambda *given: told.append(given[:2]))
    made = sorted(path.stem for path in cases.folder.iterdir())
    assert made == sorted([*cases.names("train"), *cases.names("test")])
    assert told[-1] == (FEWEST + 1, FEWEST + 1)
    alone = PhantomCases(small(tmp_path / "one", **counts))
    name = cases.names("train")[-1]
    assert np.array_equal(alone.load(name).volume.voxels, cases.load(name).volume.voxels)


def test_what_is_there_is_not_made_again(tmp_path):
    cases = PhantomCases(small(tmp_path, num_train=1, num_validation=1, num_test=1))
    make_cases(cases, ("train",), lambda *_: None)
    told = []
    make_cases(cases, ("train",), lambda *given: told.append(given))
    assert told == []


def test_other_sources_have_their_cases():
    make_cases(object(), ("train",), lambda *_: None)
