import copy

import numpy as np
import pytest

from kits.fraud.service import FraudService

SHAPES = {
    "x_history": ("batch", 3, 2),
    "c_history": ("batch", 3, 1),
    "history_gap": ("batch", 3),
    "history_mask": ("batch", 3),
    "history_status": ("batch", 3),
    "x_neighbours": ("batch", 3, 2),
    "c_neighbours": ("batch", 3, 1),
    "neighbour_gap": ("batch", 3),
    "neighbour_mask": ("batch", 3),
    "neighbour_status": ("batch", 3),
}
WITHOUT_CODES = {name: shape for name, shape in SHAPES.items() if name[:2] != "c_"}
SERVICE = FraudService(WITHOUT_CODES, ("amount", "count"), (0, 0, 1), {})
PAYMENT = {
    "history": [
        {"features": {"amount": 5.0}, "age_s": 60, "label": "fraud"},
        {"features": [7.0, 2]},
    ],
    "neighbours": [{"features": [1, None], "role": 1, "age_s": 9.5, "label": "legitimate"}],
}


def test_a_payment_stands_behind_its_padding_and_neighbours_in_the_columns_of_their_role():
    arrays = SERVICE.decode({"payments": [PAYMENT]})
    nan = np.nan
    expected = {
        "x_history": [[[0, 0], [5, nan], [7, 2]]],
        "history_gap": [[0, 60, 0]],
        "history_mask": [[False, True, True]],
        "history_status": [[-1, 1, -1]],
        "x_neighbours": [[[0, 0], [0, 0], [1, nan]]],
        "neighbour_gap": [[0, 0, 9.5]],
        "neighbour_mask": [[False, False, True]],
        "neighbour_status": [[-1, -1, 0]],
    }
    assert set(arrays) == set(expected)
    for name, value in expected.items():
        np.testing.assert_array_equal(arrays[name], value)
    types = {name: array.dtype.name for name, array in arrays.items()}
    assert types["x_history"] == types["neighbour_gap"] == "float32"
    assert types["history_status"] == "int64"
    assert types["neighbour_mask"] == "bool"


def test_answers_keep_the_order_of_the_payments():
    outputs = {
        "logit": np.array([-1.5, 2.0], np.float32),
        "probability": np.array([0.25, 0.75]),
        "alert": np.array([False, True]),
    }
    assert SERVICE.encode(outputs) == {
        "payments": [
            {"probability": 0.25, "alert": False, "logit": -1.5},
            {"probability": 0.75, "alert": True, "logit": 2.0},
        ]
    }


def test_codes_are_asked_for_where_the_model_reads_them():
    service = FraudService(SHAPES, ("amount", "count"), (0, 0, 1), {})
    with pytest.raises(ValueError, match=r"payments\[0\]\.history\[0\] lacks 'codes'"):
        service.decode({"payments": [PAYMENT]})
    payment = {"history": [{"features": [1, 2], "codes": [4]}]}
    assert service.decode({"payments": [payment]})["c_history"].tolist() == [[[0], [0], [4]]]
    for wrong in ([], [-1], [True], "4"):
        payment["history"][0]["codes"] = wrong
        with pytest.raises(ValueError, match=r"history\[0\]\.codes"):
            service.decode({"payments": [payment]})


EVENT = {"features": [1, 2]}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"history": []}, "history is empty; the payment itself"),
        ({"history": [EVENT] * 4}, "history is not a list of at most 3 events"),
        ({"history": [{**EVENT, "age_s": -1}]}, r"history\[0\]\.age_s=-1 is not"),
        ({"history": [{**EVENT, "age_s": float("inf")}]}, "age_s=inf is not"),
        ({"history": [{**EVENT, "label": "maybe"}]}, "label='maybe' is not one of unknown"),
        ({"history": [{**EVENT, "label": []}]}, r"label=\[\] is not one of unknown"),
        ({"history": [{**EVENT, "role": 0}]}, "has 'role', not one of features, age_s, label"),
        ({"history": [{"features": [1]}]}, "features is not 2 numbers"),
        ({"history": [{"features": [1, True]}]}, "count=True is neither number nor null"),
        ({"history": [{"features": [1, 10**400]}]}, "features has a number beyond any float"),
        ({"history": [{"features": [1, 1e300]}]}, "features: count is beyond float32"),
        ({"history": [{"features": {"price": 1}}]}, "has 'price', which the model lacks"),
        ({"history": [7]}, r"history\[0\] is a int, not an object"),
        ({"neighbours": [{**EVENT, "role": 1}] * 2}, "role=1 has more than its 1 neighbours"),
        ({"neighbours": [{**EVENT, "role": 2}]}, r"role=2 is not one of \[0, 1\]"),
        ({"neighbours": [{**EVENT, "role": True}]}, "role=True is not one of"),
        ({"past": []}, "has 'past', not one of history, neighbours"),
    ],
)
def test_a_wrong_payment_is_refused_with_its_place(change, message):
    with pytest.raises(ValueError, match=message) as caught:
        SERVICE.decode({"payments": [PAYMENT, copy.deepcopy(PAYMENT) | change]})
    assert "payments[1]" in str(caught.value)


@pytest.mark.parametrize("request_", [[], {}, {"payments": []}, {"payments": {}}, {"payment": []}])
def test_what_is_no_list_of_payments_is_refused(request_):
    with pytest.raises(ValueError, match=r"payment|request"):
        SERVICE.decode(request_)


def test_the_schema_says_what_decode_takes():
    schema = SERVICE.request_schema["properties"]["payments"]["items"]["properties"]
    assert schema["history"]["maxItems"] == 3
    assert schema["neighbours"]["items"]["properties"]["role"] == {"enum": [0, 1]}
    assert "amount, count" in schema["history"]["items"]["properties"]["features"]["description"]
