from kits.defect.data.config import CocoData
from kits.defect.data.split import complete, fold_of

CFG = CocoData(path="x")


def test_a_group_has_one_fold_everywhere():
    # sha1, so another machine and another release agree.
    assert [fold_of(group) for group in ("a", "b", "c")] == [2, 0, 6]


def test_what_is_stated_stands():
    stated = {"a": "train", "b": "validation", "c": "test"}
    assert complete(stated, CFG) == stated


def test_without_a_test_split_validation_takes_its_place():
    names = [str(number) for number in range(40)]
    stated = dict.fromkeys(names, "train") | {"kept": "validation"}
    splits = complete(stated, CFG)
    assert splits["kept"] == "test"
    assert {splits[name] for name in names} == {"train", "validation"}


def test_nothing_stated_goes_by_folds():
    splits = complete(dict.fromkeys(map(str, range(200))), CFG)
    counts = [list(splits.values()).count(split) for split in ("train", "validation", "test")]
    assert sum(counts) == 200
    assert all(abs(count - share) < 15 for count, share in zip(counts, (140, 20, 40), strict=True))
