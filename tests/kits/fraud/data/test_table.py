import gzip

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from kits.fraud.data import load_events, token
from kits.fraud.data.config import TableData
from kits.fraud.data.events import fingerprint_columns

MAPPING = """
tx_id: id
time: when
account: who
counterparty: {column: shop, optional: yes}
entities: {device: gadget}
amount: amount
label: {column: fraud, fraud: 1, legitimate: 0, unknown: ["", 2]}
categorical: [kind]
numeric: [score]
"""
HEADER = "id,when,who,shop,gadget,amount,fraud,kind,score\n"
GOOD = (
    "a1,2020-01-02 00:00:00,ann,s1,d1,10.5,0,x,1\n"
    "a2,2020-01-01 12:00:00.75,bob,s1,,2,1,,\n"
    "a3,2020-01-02T00:00:00Z,ann,,d2,0,2,y,what\n"
)


@pytest.fixture
def read(tmp_path):
    def read(text, mapping=MAPPING, *, name="file.csv", **settings):
        path = tmp_path / name
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        (tmp_path / "mapping.yaml").write_text(mapping)
        return load_events(
            TableData(
                path=str(path),
                mapping=str(tmp_path / "mapping.yaml"),
                cache_dir=str(tmp_path / "cache"),
                rejects_path=str(tmp_path / "rejects.parquet"),
                **settings,
            )
        )

    return read


def rejects(tmp_path):
    return pq.read_table(tmp_path / "rejects.parquet").to_pylist()


def test_columns_follow_the_mapping(read):
    events = read(HEADER + GOOD)
    assert events.tx_id.tolist() == [b"a2", b"a1", b"a3"]
    assert events.time_s.tolist() == [1577880000, 1577923200, 1577923200]
    np.testing.assert_array_equal(events.label_time_s, events.time_s)
    assert events.amount.tolist() == [2.0, 10.5, 0.0]
    assert events.label.tolist() == [1, 0, -1]
    assert events.entity_roles == events.entity_kinds == ("account", "counterparty", "device")
    bob, ann, ann_again = events.entities.tolist()
    assert bob == [token("account", "bob"), token("counterparty", "s1"), 0]
    assert ann == [token("account", "ann"), token("counterparty", "s1"), token("device", "d1")]
    assert ann_again == [token("account", "ann"), 0, token("device", "d2")]
    assert events.categorical.tolist() == [[0], [token("kind", "x")], [token("kind", "y")]]
    np.testing.assert_array_equal(events.numeric[:, 0], [np.nan, 1, np.nan])
    assert events.clock == "seconds"
    assert events.fingerprint == fingerprint_columns(events.columns())


BAD_ROWS = {
    "time cannot be read": "b1,yesterday,ann,s1,d1,1,0,x,1\n",
    "time is not between 1970 and 5138": "b2,1969-12-31,ann,s1,d1,1,0,x,1\n",
    "amount is not a number": "b3,2020-01-01,ann,s1,d1,ten,0,x,1\n",
    "amount is not finite": "b4,2020-01-01,ann,s1,d1,inf,0,x,1\n",
    "amount is negative": "b5,2020-01-01,ann,s1,d1,-0.01,0,x,1\n",
    "id is missing": ",2020-01-01,ann,s1,d1,1,0,x,1\n",
    "account is missing": "b6,2020-01-01, ,s1,d1,1,0,x,1\n",
    "label is outside the set": "b7,2020-01-01,ann,s1,d1,1,3,x,1\n",
    "id was used by an earlier row": "a1,2020-01-03,ann,s1,d1,1,0,x,1\n",
    "line cannot be read": "b8,2020-01-01,ann,s1,d1,1,0,x,1,one too many\n",
}


@pytest.mark.parametrize("reason", BAD_ROWS)
def test_bad_row_is_written_with_number_and_reason(read, tmp_path, capsys, reason):
    events = read(HEADER + GOOD + BAD_ROWS[reason], max_reject_share=0.3)
    assert len(events) == 3
    (row,) = rejects(tmp_path)
    assert (row["row_number"], row["reason"]) == (4, reason)
    shown = capsys.readouterr().err
    assert "1 of 4 rows rejected" in shown
    assert f"row 4: {reason}" in shown
    if reason == "line cannot be read":
        assert row["unreadable_line"] == BAD_ROWS[reason].strip()
    else:
        assert row["score"] == "1"
        assert row["when"] == BAD_ROWS[reason].split(",")[1]


def test_rejected_rows_are_counted_by_reason_and_the_first_twenty_shown(read, tmp_path, capsys):
    bad = BAD_ROWS["line cannot be read"] + BAD_ROWS["amount is negative"]
    good = "".join(f"g{i},2020-01-01,ann,s1,d1,1,0,x,1\n" for i in range(3))
    events = read(HEADER + (bad + good) * 15, max_reject_share=1)
    assert len(events) == 3
    rows = rejects(tmp_path)
    assert len(rows) == 15 * 2 + 14 * 3
    assert [row["row_number"] for row in rows[:6]] == [1, 2, 6, 7, 8, 9]
    shown = capsys.readouterr().err
    assert "15  amount is negative" in shown
    assert "42  id was used by an earlier row" in shown
    assert shown.count("\n  row ") == 20


def test_first_good_row_keeps_a_repeated_id(read, tmp_path):
    rows = (
        "a,2020-01-05,bad,s1,d1,-1,0,x,1\n"
        "a,2020-01-04,first,s1,d1,1,0,x,1\n"
        "a,2020-01-03,second,s1,d1,1,0,x,1\n"
    )
    events = read(HEADER + rows, max_reject_share=1)
    assert events.entities[:, 0].tolist() == [token("account", "first")]
    assert [row["reason"] for row in rejects(tmp_path)] == [
        "amount is negative",
        "id was used by an earlier row",
    ]


def test_too_many_rejected_rows_stop_and_are_still_written(read, tmp_path):
    text = HEADER + GOOD + BAD_ROWS["amount is negative"]
    with pytest.raises(ValueError, match=r"1 of 4 rows rejected, more than data\.max_reject_share"):
        read(text, max_reject_share=0.2)
    assert len(rejects(tmp_path)) == 1
    assert len(read(text, max_reject_share=0.25)) == 3


def test_file_without_rows_is_named(read):
    with pytest.raises(ValueError, match=r"file\.csv has no row to use"):
        read(HEADER)


def test_short_row_misses_its_keys(read, tmp_path):
    read(HEADER + GOOD + "b1,2020-01-01\n", max_reject_share=1)
    assert rejects(tmp_path)[0]["reason"] == "amount is not a number"


def test_undecodable_line_is_rejected(read, tmp_path):
    bad = b"b1,2020-01-01,\xff\xfe,s1,d1,1,0,x,1\n"
    events = read(HEADER.encode() + bad + GOOD.encode(), max_reject_share=1)
    assert len(events) == 3
    assert [(r["row_number"], r["reason"]) for r in rejects(tmp_path)] == [
        (1, "line cannot be read")
    ]


def test_quotes_line_breaks_and_foreign_letters_survive(read):
    row = 'q1,2020-01-01,"Zoë ""Z"", the\n2nd",s1,d1,1,0,x,1\r\n'
    events = read((HEADER + row).replace("\r\n", "\n"))
    assert events.entities[0, 0] == token("account", 'Zoë "Z", the\n2nd')


@pytest.mark.parametrize(
    ("delimiter", "ending", "mark"), [(";", "\n", ""), (",", "\r\n", ""), ("\t", "\r\n", "\ufeff")]
)
def test_usual_kinds_of_csv_are_alike(read, delimiter, ending, mark):
    text = (mark + HEADER + GOOD).replace(",", delimiter).replace("\n", ending)
    plain = read(HEADER + GOOD)
    assert read(text, name="other.csv").fingerprint == plain.fingerprint


def test_compressed_csv_and_parquet_are_like_the_csv(read, tmp_path):
    plain = read(HEADER + GOOD)
    packed = read(gzip.compress((HEADER + GOOD).encode()), name="file.csv.gz")
    assert packed.fingerprint == plain.fingerprint
    names = HEADER.strip().split(",")
    cells = [line.split(",") for line in GOOD.splitlines()]
    columns = {name: [row[i] or None for row in cells] for i, name in enumerate(names)}
    columns["amount"] = [float(text) for text in columns["amount"]]
    sink = pa.BufferOutputStream()
    pq.write_table(pa.table(columns), sink)
    assert read(sink.getvalue().to_pybytes(), name="f.parquet").fingerprint == plain.fingerprint


def test_parquet_types_are_read(read):
    columns = {
        "id": [1, 2],
        "when": np.array(["2020-01-02", "2020-01-01"], "M8[us]"),
        "who": [7, 8],
        "fraud": [True, False],
        "amount": [1.5, 2.5],
    }
    sink = pa.BufferOutputStream()
    pq.write_table(pa.table(columns), sink)
    mapping = (
        "{tx_id: id, time: when, account: who, amount: amount, "
        "label: {column: fraud, fraud: 'true', legitimate: 'false'}}"
    )
    events = read(sink.getvalue().to_pybytes(), mapping, name="f.parquet")
    assert events.tx_id.dtype == np.int64
    assert events.tx_id.tolist() == [2, 1]
    assert events.label.tolist() == [0, 1]
    assert events.entities[:, 0].tolist() == [token("account", "8"), token("account", "7")]


def test_missing_column_is_named_with_the_nearest(read):
    with pytest.raises(
        ValueError, match=r"mapping\.amount names the column 'amonut'.*nearest: 'amount'; its"
    ):
        read(HEADER + GOOD, MAPPING.replace("amount: amount", "amount: amonut"))


def test_repeated_column_name_is_refused(read):
    with pytest.raises(ValueError, match="empty or repeated column name"):
        read(HEADER.replace("shop", "who") + GOOD)


def test_names_and_values_are_never_sql(read, tmp_path):
    evil = """x"'); DROP TABLE checked; --"""
    quoted = '"' + evil.replace('"', '""') + '"'
    text = f"{quoted},when,amount\n{quoted},2020-01-01,1\n{quoted},2020-01-01,-1\n"
    mapping = (
        f"time: when\namount: amount\naccount: '{evil.replace(chr(39), chr(39) * 2)}'\n"
        f"label: {{column: amount, fraud: [1, \"it's\"], legitimate: '); DROP TABLE checked'}}\n"
    )
    events = read(text, mapping, max_reject_share=1)
    assert events.entities[0, 0] == token("account", evil)
    assert rejects(tmp_path)[0][evil] == evil


def test_without_account_every_row_is_its_own(read):
    events = read(HEADER + GOOD, "time: when")
    assert len(set(events.entities[:, 0].tolist())) == 3
    assert (events.entities[:, 1] == 0).all()
    assert events.tx_id.tolist() == [2, 1, 3]
    assert (events.label == -1).all()


def test_identity_of_several_columns(read):
    events = read(HEADER + GOOD, "{time: when, account: [who, gadget]}")
    assert len(set(events.entities[:, 0].tolist())) == 3
    assert events.entities[0, 0] == token("account", "bob\x1f")


def test_label_time_is_read(read):
    events = read(
        "when,told\n2020-01-01,2020-01-09\n", "{time: when, label_time: told, account: when}"
    )
    assert (events.label_time_s - events.time_s).tolist() == [8 * 86_400]


def test_changed_file_is_read_again(read):
    first = read(HEADER + GOOD)
    second = read(HEADER + GOOD + GOOD.replace("a", "b"))
    assert (len(first), len(second)) == (3, 6)


def test_second_reading_comes_from_the_cache_and_points_to_the_rejects(read, tmp_path, capsys):
    text = HEADER + GOOD + BAD_ROWS["amount is negative"]
    read(text, max_reject_share=1)
    (folder,) = (tmp_path / "cache/fraud").glob("table-*")
    before = (folder / "meta.json").stat().st_mtime_ns
    state = (tmp_path / "file.csv").stat()
    capsys.readouterr()
    load_events(
        TableData(
            path=str(tmp_path / "file.csv"),
            mapping=str(tmp_path / "mapping.yaml"),
            cache_dir=str(tmp_path / "cache"),
            rejects_path=str(tmp_path / "rejects.parquet"),
            max_reject_share=1,
        )
    )
    assert (folder / "meta.json").stat().st_mtime_ns == before
    assert (tmp_path / "file.csv").stat() == state
    assert "the rows rejected then are in" in capsys.readouterr().err
    assert [path.name for path in folder.glob("work*")] == []


def test_chunks_and_little_memory_give_the_same_events(read):
    """A file of 140 MB passes through 128 MiB of database memory in chunks of 1,000 rows."""
    rng = np.random.default_rng(0)
    num_rows = 90_000
    seconds = rng.integers(0, 10**8, num_rows)
    accounts = rng.integers(0, 5_000, num_rows)
    padding = "".join(rng.choice(list("abcdefgh"), 1_550))
    text = "t,who,note,amount\n" + "".join(
        f"{t},{who},{padding}{i},{i % 97}\n"
        for i, (t, who) in enumerate(zip(seconds, accounts, strict=True))
    )
    mapping = (
        "{time: {column: t, unit: seconds}, account: who, amount: amount, categorical: [note]}"
    )
    events = read(text, mapping, memory_limit_mib=128, chunk_rows=1_000)
    order = np.argsort(seconds, kind="stable")
    np.testing.assert_array_equal(events.time_s, seconds[order])
    np.testing.assert_array_equal(events.tx_id, order + 1)
    np.testing.assert_array_equal(events.amount, order % 97)
    assert events.categorical[0, 0] == token("note", f"{padding}{order[0]}")
