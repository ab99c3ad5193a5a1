"""Each ready mapping reads a tiny twin of its data set: the real header, invented rows."""

import csv

import numpy as np
import pytest

from kits.fraud.data import load_events, token
from kits.fraud.data.config import SFfsdData, TableData


@pytest.fixture
def read(tmp_path):
    def read(mapping, path):
        return load_events(
            TableData(path=str(path), mapping=mapping, cache_dir=str(tmp_path / "cache"))
        )

    return read


def write(path, header, *rows):
    """Write rows given as dicts; what a row does not name is empty."""
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, header, restval="")
        writer.writeheader()
        writer.writerows(rows)
    return path


def names(prefix, first, last, width=1):
    return [f"{prefix}{i:0{width}d}" for i in range(first, last + 1)]


def test_ieee_cis(read, tmp_path):
    transactions = [
        *("TransactionID", "isFraud", "TransactionDT", "TransactionAmt", "ProductCD"),
        *names("card", 1, 6),
        *("addr1", "addr2", "dist1", "dist2", "P_emaildomain", "R_emaildomain"),
        *(*names("C", 1, 14), *names("D", 1, 15), *names("M", 1, 9), *names("V", 1, 339)),
    ]
    identity = ["TransactionID", *names("id_", 1, 38, 2), "DeviceType", "DeviceInfo"]
    first = {"TransactionID": 2987000, "isFraud": 0, "TransactionDT": 86400, "V339": 7.5}
    first |= {"TransactionAmt": 68.5, "card1": 13926, "addr1": 315.0, "M4": "M2", "C1": 1}
    second = first | {"TransactionID": 2987004, "isFraud": 1, "TransactionDT": 86500}
    second |= {"P_emaildomain": "gmail.com", "R_emaildomain": "mail.com"}
    write(tmp_path / "train_transaction.csv", transactions, first, second)
    phone = {
        "TransactionID": 2987004,
        "id_01": -5,
        "id_30": "Android 7.0",
        "DeviceInfo": "SM-G892A",
    }
    write(tmp_path / "train_identity.csv", identity, phone)
    events = read("ieee_cis", tmp_path)
    assert events.tx_id.tolist() == [2987000, 2987004]
    assert events.time_s.tolist() == [1512086400 + 86400, 1512086400 + 86500]
    assert events.label.tolist() == [0, 1]
    assert events.entity_roles == ("account", "counterparty", "email", "device", "card")
    assert events.entities[0].tolist() == [
        *(token("account", "13926\x1f\x1f\x1f\x1f\x1f315.0"), 0, 0, 0, token("card", "13926"))
    ]
    assert events.entities[1, 1:4].tolist() == [
        token("email_domain", "mail.com"),
        token("email_domain", "gmail.com"),
        token("device", "SM-G892A\x1fAndroid 7.0\x1f\x1f"),
    ]
    numeric = dict(zip(events.numeric_names, events.numeric[1].tolist(), strict=True))
    assert (numeric["V339"], numeric["id_01"], numeric["C1"]) == (7.5, -5, 1)
    assert len(numeric) == 2 + 14 + 15 + 339 + 11
    position = events.categorical_names.index("M4")
    assert events.categorical[0, position] == token("M4", "M2")


def test_ieee_cis_with_a_repeated_identity_stops(read, tmp_path):
    header = ["TransactionID", *names("id_", 1, 38, 2), "DeviceType", "DeviceInfo"]
    write(tmp_path / "train_transaction.csv", ["TransactionID"], {"TransactionID": 1})
    write(tmp_path / "train_identity.csv", header, *[{"TransactionID": 1}] * 2)
    with pytest.raises(ValueError, match=r"train_identity\.csv has several rows with Transac.*'1'"):
        read("ieee_cis", tmp_path)


def test_a_mapping_of_several_files_needs_their_folder(read, tmp_path):
    with pytest.raises(ValueError, match=r"is not a folder, but .* folder of train_transaction"):
        read("ieee_cis", write(tmp_path / "x.csv", ["TransactionID"]))
    with pytest.raises(ValueError, match=r"there is no file .*train_transaction\.csv"):
        read("ieee_cis", tmp_path)


def test_ulb(read, tmp_path):
    header = ["Time", *names("V", 1, 28), "Amount", "Class"]
    path = tmp_path / "creditcard.csv"
    with path.open("w", newline="") as file:
        writer = csv.writer(file, quoting=csv.QUOTE_NONNUMERIC)
        writer.writerow(header)
        writer.writerow([0, *np.linspace(-1, 1, 28).tolist(), 149.62, "0"])
        writer.writerow([1.0, *np.linspace(1, 2, 28).tolist(), 0, "1"])
    events = read("ulb", path)
    assert (events.time_s - events.time_s[0]).tolist() == [0, 1]
    assert events.amount.tolist() == [149.62, 0.0]
    assert events.label.tolist() == [0, 1]
    assert events.entities[0, 0] != events.entities[1, 0]
    np.testing.assert_allclose(events.numeric[:, 27], [1, 2])


def test_elliptic(read, tmp_path):
    steps = {230425980: 1, 5530458: 1, 232022460: 2}
    lines = [",".join(map(str, [tx, step, *range(165)])) for tx, step in steps.items()]
    (tmp_path / "elliptic_txs_features.csv").write_text("\n".join(lines) + "\n")
    classes = zip(steps, ("unknown", "2", "1"), strict=True)
    write(
        tmp_path / "elliptic_txs_classes.csv",
        ["txId", "class"],
        *({"txId": tx, "class": name} for tx, name in classes),
    )
    edges = [(230425980, 232022460), (5530458, 232022460)]
    write(
        tmp_path / "elliptic_txs_edgelist.csv",
        ["txId1", "txId2"],
        *({"txId1": source, "txId2": target} for source, target in edges),
    )
    events = read("elliptic", tmp_path)
    assert events.tx_id.tolist() == [230425980, 5530458, 232022460]
    assert events.label.tolist() == [-1, 0, 1]
    assert (events.time_s - events.time_s[0]).tolist() == [0, 0, 14 * 86_400]
    # The first of the two that paid into it; same kind, so that its own event is a neighbour.
    assert events.entities[:, 1].tolist() == [0, 0, events.entities[0, 0]]
    assert events.numeric[0].tolist() == list(range(165))


def test_tabformer(read, tmp_path):
    header = [
        *("User", "Card", "Year", "Month", "Day", "Time", "Amount", "Use Chip", "Merchant Name"),
        *("Merchant City", "Merchant State", "Zip", "MCC", "Errors?", "Is Fraud?"),
    ]
    first = ["0", "0", "2002", "9", "1", "06:21", "$134.09", "Swipe Transaction"]
    first += ["3527213246127876953", "La Verne", "CA", "91750.0", "5300", "", "No"]
    second = [*first]
    second[2:7] = ["2002", "12", "31", "23:59", "$-1,099.00"]
    second[-1] = "Yes"
    rows = [dict(zip(header, row, strict=True)) for row in (second, first)]
    events = read("tabformer", write(tmp_path / "card_transaction.v1.csv", header, *rows))
    moments = ["2002-09-01T06:21", "2002-12-31T23:59"]
    assert events.time_s.tolist() == np.array(moments, "M8[s]").astype(np.int64).tolist()
    assert events.amount.tolist() == [134.09, 1099.0]
    np.testing.assert_allclose(events.numeric[:, 0], [134.09, -1099.0])
    assert events.label.tolist() == [0, 1]
    assert events.entities[0].tolist() == [
        token("account", "0\x1f0"),
        token("merchant", "3527213246127876953"),
        token("user", "0"),
        token("city", "La Verne\x1fCA"),
    ]


def test_paysim(read, tmp_path):
    header = [
        *("step", "type", "amount", "nameOrig", "oldbalanceOrg", "newbalanceOrig", "nameDest"),
        *("oldbalanceDest", "newbalanceDest", "isFraud", "isFlaggedFraud"),
    ]
    row = {"step": 1, "type": "TRANSFER", "amount": 181.0, "nameOrig": "C1", "nameDest": "C2"}
    row |= {"oldbalanceOrg": 181.0, "oldbalanceDest": 0.0, "isFraud": 1, "isFlaggedFraud": 0}
    other = row | {"step": 3, "nameOrig": "C2", "nameDest": "M1", "isFraud": 0}
    events = read("paysim", write(tmp_path / "PS_20174392719.csv", header, row, other))
    assert events.time_s.tolist() == [1577836800 + 3600, 1577836800 + 3 * 3600]
    assert events.label.tolist() == [1, 0]
    # Account and counterparty share a name space.
    assert events.entities[0, 1] == events.entities[1, 0] == token("party", "C2")
    assert events.numeric.tolist() == [[181.0, 0.0]] * 2


def test_baf(read, tmp_path):
    header = [
        *("fraud_bool", "income", "name_email_similarity", "prev_address_months_count"),
        *("current_address_months_count", "customer_age", "days_since_request"),
        *("intended_balcon_amount", "payment_type", "zip_count_4w", "velocity_6h"),
        *("velocity_24h", "velocity_4w", "bank_branch_count_8w"),
        *("date_of_birth_distinct_emails_4w", "employment_status", "credit_risk_score"),
        *("email_is_free", "housing_status", "phone_home_valid", "phone_mobile_valid"),
        *("bank_months_count", "has_other_cards", "proposed_credit_limit", "foreign_request"),
        *("source", "session_length_in_minutes", "device_os", "keep_alive_session"),
        *("device_distinct_emails_8w", "device_fraud_count", "month"),
    ]
    row = dict.fromkeys(header, "1")
    row |= {"payment_type": "AB", "device_os": "linux", "proposed_credit_limit": "1500.0"}
    row |= {"fraud_bool": "0", "intended_balcon_amount": "-1.33", "month": "7"}
    other = row | {"fraud_bool": "1", "month": "0"}
    events = read("baf", write(tmp_path / "Base.csv", header, row, other))
    assert (events.time_s[1] - events.time_s[0]) == 7 * 30 * 86_400
    assert events.label.tolist() == [1, 0]
    assert events.amount.tolist() == [1500.0, 1500.0]
    assert set(events.numeric_names) | set(events.categorical_names) == set(header) - {
        *("fraud_bool", "month", "proposed_credit_limit")
    }
    assert events.categorical[0, 0] == token("payment_type", "AB")


def test_s_ffsd_by_folder(tmp_path):
    header = ["Time", "Source", "Target", "Amount", "Location", "Type", "Labels"]
    row = {"Source": "S1", "Target": "T1", "Amount": 5.5, "Location": "L1", "Type": "TP1"}
    rows = [row | {"Time": i * 1000, "Labels": label} for i, label in enumerate((0, 1, 2))]
    write(tmp_path / "S-FFSD.csv", header, *rows)
    cfg = SFfsdData(path=str(tmp_path), cache_dir=str(tmp_path / "cache"))
    events = load_events(cfg)
    assert (events.name, events.clock) == ("s_ffsd", "events")
    # 1,000 events are a day.
    assert events.time_s.tolist() == [0, 86_400, 2 * 86_400]
    assert events.label.tolist() == [0, 1, -1]
    assert events.entity_roles == ("account", "counterparty", "location")
    assert events.categorical_names == ("Type",)
    (tmp_path / "s-ffsd-dev.csv.gz").write_bytes(b"")
    with pytest.raises(ValueError, match="holds 2 files"):
        load_events(cfg)
