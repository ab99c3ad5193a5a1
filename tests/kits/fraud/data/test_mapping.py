import pytest

from kits.fraud.data.mapping import (
    Time,
    expand_range,
    find_mapping,
    read_mapping,
    ready_mappings,
)


def write(tmp_path, text):
    path = tmp_path / "mapping.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def test_every_ready_mapping_is_legal():
    assert set(ready_mappings()) == {
        *("baf", "elliptic", "ieee_cis", "paysim", "s_ffsd", "tabformer", "ulb")
    }
    for name in ready_mappings():
        assert read_mapping(find_mapping(name)).label.fraud


def test_values_stay_text(tmp_path):
    mapping = read_mapping(
        write(tmp_path, "time: t\nlabel: {column: y, fraud: Yes, legitimate: [No, 0]}")
    )
    assert mapping.label.fraud == ("Yes",)
    assert mapping.label.legitimate == ("No", "0")


def test_time_units_and_origin(tmp_path):
    mapping = read_mapping(write(tmp_path, "time: {column: step, unit: hours, origin: 1970-01-02}"))
    assert mapping.time == Time(("step",), "", 3600.0, 86400.0)


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("V1..V3", ["V1", "V2", "V3"]),
        ("id_09..id_11", ["id_09", "id_10", "id_11"]),
        ("plain", ["plain"]),
        ("a1..b2", ["a1..b2"]),
    ],
)
def test_ranges_of_names(text, names):
    assert expand_range(text) == names


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("amount: a", r"mapping\.time is missing"),
        ("time: t\nammount: a", r"mapping\.ammount is not one of .*amount.*nearest: 'amount'"),
        ("time: {column: t, units: hours}", r"mapping\.time\.units is not one.*nearest: 'unit'"),
        ("time: {column: t, unit: fortnights}", r"mapping\.time: .*unit is one of"),
        ("time: {column: t, unit: days, origin: soon}", r"origin a date"),
        ("time: {column: t, unit: days, format: '%d'}", r"has format and unit"),
        ("time: {column: t, origin: 2020-01-01}", r"origin needs a unit"),
        ("time: t\nclock: lunar", r"mapping\.clock='lunar' is not one of seconds, events"),
        ("time: t\nlabel: {column: y, fraud: 1}", r"needs both fraud and legitimate"),
        ("time: t\nlabel: y", r"mapping\.label='y' is not a group of keys"),
        ("time: t\namount: {column: a, negative: drop}", r"negative='drop' is not one of"),
        ("time: t\naccount: {column: ''}", r"mapping\.account\.columns='' is not the name"),
        ("time: t\naccount: {column: a, optional: perhaps}", r"optional='perhaps'"),
        ("time: t\ntx_id: [a, b]", r"mapping\.tx_id=\['a', 'b'\] is not the name"),
        ("time: t\nentities: device", r"mapping\.entities"),
        ("time: t\nentities: {account: a}", r"write mapping\.account"),
        ("time: t\nfiles: {join: [{file: x.csv, on: k}]}", r"mapping\.files\.join\.on"),
        ("time: [", r"is not YAML"),
        ("- time", r"is not a group of keys"),
        ("", r"is not a group of keys"),
        ("time: !!python/object/apply:os.getcwd []", r"is not"),
    ],
)
def test_mistakes_are_named(tmp_path, text, message):
    with pytest.raises(ValueError, match=message):
        read_mapping(write(tmp_path, text))


def test_unknown_mapping_names_the_ready_ones():
    with pytest.raises(ValueError, match=r"neither a YAML file nor one of baf, elliptic"):
        find_mapping("ieee")


def test_the_readme_example_is_legal(tmp_path):
    readme = (find_mapping("ulb").parents[1] / "README.md").read_text(encoding="utf-8")
    example = readme.split("```yaml\n")[1].split("```")[0]
    mapping = read_mapping(write(tmp_path, example))
    assert mapping.account.columns == ("bank", "iban")
    assert mapping.numeric[-1].column == "f_12"
    assert mapping.label.unknown == ("", "open")
