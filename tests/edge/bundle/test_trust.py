import threading
from dataclasses import replace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edge import canonical
from edge.keys import next_root, sign_root
from edge.trust import Root, Trust, home


def put(folder, root):
    folder.mkdir(exist_ok=True)
    (folder / "root.json").write_bytes(root.to_bytes())
    return Trust.load(folder)


def test_the_folder_is_the_given_one_or_that_of_the_environment(tmp_path, trust, monkeypatch):
    monkeypatch.setenv("DEEPKITS_HOME", str(trust.folder))
    assert home() == trust.folder
    assert Trust.load() == trust == Trust.load(trust.folder)
    monkeypatch.setenv("DEEPKITS_HOME", "")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert home() == tmp_path / ".config" / "deepkits"
    with pytest.raises(ValueError, match=r"nobody is trusted yet; .*python -m edge.keys new"):
        Trust.load()


def test_a_root_survives(signers, root_of):
    root = root_of(signers, threshold=2, expires=2_000_000_000)
    assert Root.from_bytes(root.to_bytes(), "root.json") == root


def test_no_byte_of_a_root_can_be_changed(signers, root_of):
    data = root_of(signers[:1]).to_bytes()
    for position in range(len(data)):
        changed = bytearray(data)
        changed[position] ^= 1
        with pytest.raises(ValueError, match="root"):
            Root.from_bytes(bytes(changed), "root.json")


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"threshold": 0}, "root.threshold=0 is not from 1 to the 3 keys"),
        ({"threshold": 4}, "root.threshold=4"),
        ({"version": 0}, "root.version=0"),
        ({"expires": -1}, "root.expires=-1"),
        ({"keys": {}}, "root.keys={} is not a filled object"),
        ({"keys": {"00": "00" * 32}}, "no ed25519 public key"),
    ],
)
def test_a_root_that_cannot_be_is_refused(signers, root_of, values, words):
    with pytest.raises(ValueError, match=words):
        replace(root_of(signers), **values)


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("schema", "deepkits.root/2", "not of schema"),
        ("extra", 1, "has keys"),
        ("version", True, "version=True is not a whole number"),
        ("threshold", "1", "threshold='1' is not a whole number"),
        ("expires", "never", "root.expires='never'"),
        ("keys", [], "keys is not an object"),
        ("signatures", {"a": 1}, "signatures is not an object of texts"),
        ("signatures", {}, "lacks 1 of 1 signatures"),
        ("signatures", {"a": "zz"}, "lacks 1 of 1 signatures"),
    ],
)
def test_a_root_file_of_another_form_is_refused(signers, root_of, key, value, words):
    content = canonical.loads(root_of(signers[:1]).to_bytes(), "root")
    with pytest.raises(ValueError, match=words):
        Root.from_bytes(canonical.dumps({**content, key: value}), "root.json")
    with pytest.raises(ValueError, match="not of schema"):
        Root.from_bytes(b"[]", "root.json")


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    st.sampled_from(["schema", "version", "threshold", "expires", "keys", "signatures"]),
    st.recursive(
        st.none() | st.booleans() | st.integers(-9, 9) | st.text("0aé\n", max_size=5),
        lambda inner: st.lists(inner) | st.dictionaries(st.text("0aé", max_size=3), inner),
        max_leaves=4,
    ),
)
def test_any_value_in_a_root_is_taken_or_refused_with_a_message(signers, root_of, key, value):
    content = canonical.loads(root_of(signers[:1]).to_bytes(), "root")
    if value != content[key]:
        with pytest.raises(ValueError, match="root"):
            Root.from_bytes(canonical.dumps({**content, key: value}), "root.json")


def test_a_root_is_replaced_when_both_agree(tmp_path, signers, root_of):
    ann, bob, eve = signers
    trust = put(tmp_path / "device", root_of([ann, bob], threshold=2))
    wanted = next_root(trust.root, add=[eve.public], threshold=2)
    signed = sign_root(wanted, [ann, bob])
    assert trust.replace_root(signed, "next").root == signed
    assert Trust.load(trust.folder).root == signed


@pytest.mark.parametrize(
    ("who", "words"),
    [
        ([0], "next lacks 1 of 2 signatures of the keys of root version 1"),
        ([2], "next lacks 2 of 2 signatures of the keys of root version 1"),
        ([0, 1], "next lacks 1 of 2 signatures of the keys of root version 2"),
        ([0, 2], "next lacks 1 of 2 signatures of the keys of root version 1"),
    ],
)
def test_a_root_signed_by_too_few_of_old_or_new_is_refused(tmp_path, signers, root_of, who, words):
    trust = put(tmp_path / "device", root_of(signers[:2], threshold=2))
    removed = sorted(trust.root.keys)
    wanted = next_root(trust.root, add=[signers[2].public])
    wanted = replace(
        wanted, keys={k: v for k, v in wanted.keys.items() if v != signers[1].public.hex()}
    )
    with pytest.raises(ValueError, match=words):
        trust.replace_root(sign_root(wanted, [signers[i] for i in who]), "next")
    assert Trust.load(trust.folder) == trust
    assert sorted(trust.root.keys) == removed


@pytest.mark.parametrize("version", [1, 3])
def test_roots_come_one_after_the_other(tmp_path, signers, root_of, version):
    trust = put(tmp_path / "device", root_of(signers[:1]))
    other = sign_root(replace(trust.root, version=version, signatures={}), signers[:1])
    with pytest.raises(ValueError, match=rf"version={version}, this device has 1 and takes 2 next"):
        trust.replace_root(other, "next")


def test_the_rollback_index_never_falls(trust):
    assert trust.rollback_index("fraud") == 0
    trust.accept("fraud", 7)
    trust.accept("fraud", 3)
    trust.accept("defect", 1)
    assert (trust.rollback_index("fraud"), trust.rollback_index("defect")) == (7, 1)


def test_accepting_at_once_loses_nothing(trust):
    threads = [threading.Thread(target=trust.accept, args=(f"b{i}", i)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [trust.rollback_index(f"b{i}") for i in range(8)] == list(range(8))


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "not canonical"),
        (b"{}", "restore it"),
        (b'{"indexes":{"a":-1},"schema":"deepkits.rollback/1"}', "restore it"),
        (b'{"indexes":{"a":true},"schema":"deepkits.rollback/1"}', "restore it"),
        (b'{"indexes":{},"schema":"deepkits.rollback/2"}', "restore it"),
        (b" " * (1 << 20) + b" ", "is over 1048576 bytes"),
    ],
)
def test_a_damaged_rollback_file_is_refused_not_forgotten(trust, data, words):
    (trust.folder / "rollback.json").write_bytes(data)
    with pytest.raises(ValueError, match=words):
        trust.rollback_index("fraud")
    with pytest.raises(ValueError, match=words):
        trust.accept("fraud", 1)
    assert (trust.folder / "rollback.json").read_bytes() == data
