import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge import canonical

values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(min_value=-canonical.LARGEST, max_value=canonical.LARGEST)
    | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(st.characters(codec="utf-8")), inner),
    max_leaves=20,
)


@settings(deadline=None)
@given(values)
def test_a_value_survives(value):
    assert canonical.loads(canonical.dumps(value), "value") == value


def test_keys_are_sorted_without_spaces_as_utf8():
    assert canonical.dumps({"b": [1, True, None], "a": "仅\n"}) == (
        '{"a":"仅\\n","b":[1,true,null]}'.encode()
    )


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b'{"a": 1}', "another spelling"),
        (b'{"b":1,"a":1}', "another spelling"),
        (b'{"a":1,"a":1}', "another spelling"),
        (b'{"a":1}\n', "another spelling"),
        (b'"\\u0041"', "another spelling"),
        (b'"\\/"', "another spelling"),
        (b"-0", "another spelling"),
        (b"1.0", "1.0 is not a whole number"),
        (b"1e3", "1e3 is not a whole number"),
        (b"NaN", "NaN is not a whole number"),
        (b"9007199254740992", "over 2\\*\\*53 - 1"),
        (b"1" * 5000, "over 2\\*\\*53 - 1"),
        (b"[" * 100_000, "recursion"),
        (b"[" * 500 + b"]" * 500 + b"x", "Extra data"),
        (b"\xff", "utf-8"),
        (b'"\\ud800"', "surrogates"),
        (b"", "Expecting value"),
        (b"\xef\xbb\xbf{}", "BOM|Expecting value"),
    ],
)
def test_other_spellings_are_refused(data, words):
    with pytest.raises(ValueError, match=f"^file is not canonical JSON .*{words}"):
        canonical.loads(data, "file")


@pytest.mark.parametrize("value", [1.0, {1: 2}, {"a": (1,)}, b"a", 2**53, [object()]])
def test_values_without_one_spelling_are_refused(value):
    with pytest.raises(ValueError, match=r"is none of|is not text|is over"):
        canonical.dumps(value)
