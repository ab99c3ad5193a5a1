import stat
import sys

import pytest

from edge import keys
from edge.bundle import Bundle, write_bundle
from edge.keys import load_signer, load_signers, new_key
from edge.manifest import key_id
from edge.trust import Root, Trust


@pytest.fixture
def run(capsys):
    """A command: its exit code, what it printed, and what it complained of."""

    def run(folder, *arguments):
        status = keys.main([*map(str, arguments), "--trust", str(folder)])
        return status, *capsys.readouterr()

    return run


def seeds(folder):
    return [file.read_text().strip() for file in (folder / "keys").iterdir()]


def test_new_makes_a_key_for_its_owner_alone_and_a_root(tmp_path, run):
    status, out, err = run(tmp_path / "home", "new")
    assert (status, err) == (0, "")
    file = tmp_path / "home" / "keys" / "default.key"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert stat.S_IMODE(file.parent.stat().st_mode) == 0o700
    signer = load_signer(file)
    root = Trust.load(tmp_path / "home").root
    assert root.keys == {key_id(signer.public): signer.public.hex()}
    assert (root.version, root.threshold, root.expires) == (1, 1, None)
    assert key_id(signer.public) in out
    assert signer.public.hex() in out


def test_secrets_are_never_shown(tmp_path, run, manifest, files, path):
    shown = [
        run(tmp_path, "new"),
        run(tmp_path, "new"),
        run(tmp_path, "new", "--name", "second"),
        run(tmp_path, "rotate", "--add", "second"),
        run(tmp_path, "trust", tmp_path / "root-2.json"),
        repr(load_signers(tmp_path)),
    ]
    write_bundle(path, manifest, files, {}, load_signers(tmp_path))
    shown.append(path.read_bytes())
    shown.append((tmp_path / "root-2.json").read_bytes())
    assert len(seeds(tmp_path)) == 2
    for seed in seeds(tmp_path):
        assert len(seed) == 64
        assert seed not in str(shown)
        assert repr(bytes.fromhex(seed)) not in str(shown)


def test_a_key_is_never_overwritten(tmp_path, run):
    run(tmp_path, "new")
    before = seeds(tmp_path)
    status, out, err = run(tmp_path, "new")
    assert (status, out) == (1, "")
    assert err == f"error: {tmp_path}/keys/default.key is there and is not overwritten; " + (
        "give another name\n"
    )
    assert seeds(tmp_path) == before


@pytest.mark.parametrize("name", ["../x", "a/b", "/x", "a b", ""])
def test_names_of_keys_are_plain(tmp_path, run, name):
    status, _, err = run(tmp_path, "new", "--name", name)
    assert status == 1
    assert "name=" in err
    assert not (tmp_path / "keys").exists()


def test_a_key_others_may_read_is_refused(tmp_path):
    new_key(tmp_path)
    file = tmp_path / "keys" / "default.key"
    file.chmod(0o640)
    with pytest.raises(ValueError, match="mode=0640, others may read it; chmod 600"):
        load_signer(file)


@pytest.mark.parametrize("content", ["", "ab", "not a key but a password", "zz" * 32, "ab" * 33])
def test_a_file_that_holds_no_key_is_refused_without_showing_it(tmp_path, content):
    file = tmp_path / "x.key"
    file.touch(0o600)
    file.write_text(content)
    with pytest.raises(ValueError, match="holds no key of 32 bytes in hex") as caught:
        load_signer(file)
    assert not content or content not in str(caught.value)


def test_signing_is_repeatable_and_verifies(tmp_path):
    from nacl.signing import VerifyKey

    signer = new_key(tmp_path)
    assert signer.sign(b"m") == signer.sign(b"m")
    assert VerifyKey(signer.public).verify(b"m", signer.sign(b"m")) == b"m"


def test_keys_are_rotated_with_the_signatures_of_old_and_new(tmp_path, run, manifest, files):
    home, device, path = tmp_path / "home", tmp_path / "device", tmp_path / "x.ebundle"
    run(home, "new", "--name", "old")
    assert run(device, "trust", home / "root.json", "--first")[0] == 0
    old = load_signer(home / "keys" / "old.key")
    _, out, _ = run(home, "new", "--name", "young")
    assert "not trusted yet: python -m edge.keys rotate --add young" in out
    young = load_signer(home / "keys" / "young.key")
    status, out, _ = run(
        home, "rotate", "--add", "young", "--remove", key_id(old.public), "--expires", 4102444800
    )
    assert status == 0
    assert "root     version 2, 1 of 1 keys, expires 2100-01-01 00:00:00 UTC" in out
    assert "lacks" not in out
    status, out, _ = run(device, "trust", home / "root-2.json")
    assert status == 0
    assert key_id(young.public) in out
    root = Trust.load(device).root
    assert (root.version, list(root.keys)) == (2, [key_id(young.public)])
    content = {**manifest, "expires": None}
    write_bundle(path, content, files, {}, [old])
    with pytest.raises(ValueError, match="none of them trusted here"):
        Bundle.open(path, Trust.load(device))
    write_bundle(path, content, files, {}, [young])
    assert Bundle.open(path, Trust.load(device)).manifest.name == "fraud"


def test_keys_on_two_machines_sign_one_root(tmp_path, run):
    ann, bob, device = tmp_path / "ann", tmp_path / "bob", tmp_path / "device"
    run(ann, "new", "--name", "ann")
    public = new_key(bob, "bob").public
    status, out, _ = run(
        ann, "rotate", "--add", public.hex(), "--threshold", 2, "--out", tmp_path / "next.json"
    )
    assert status == 0
    assert "lacks    1 signatures of the keys of root version 2" in out
    run(device, "trust", ann / "root.json", "--first")
    status, _, err = run(device, "trust", tmp_path / "next.json")
    assert status == 1
    assert "lacks 1 of 2 signatures of the keys of root version 2; sign it with" in err
    assert Trust.load(device).root.version == 1
    status, out, _ = run(bob, "sign", tmp_path / "next.json")
    assert status == 0
    assert out.count("  signed") == 2
    assert run(device, "trust", tmp_path / "next.json")[0] == 0
    assert (Trust.load(device).root.version, Trust.load(device).root.threshold) == (2, 2)


def test_a_first_root_is_taken_only_when_asked_for_and_once(tmp_path, run):
    new_key(tmp_path / "home")
    root = tmp_path / "home" / "root.json"
    status, _, err = run(tmp_path / "device", "trust", root)
    assert status == 1
    assert "nobody is trusted yet" in err
    status, out, _ = run(tmp_path / "device", "trust", root, "--first")
    assert status == 0
    assert "root     version 1, 1 of 1 keys, never expires" in out
    status, _, err = run(tmp_path / "device", "trust", root, "--first")
    assert status == 1
    assert "is there; leave out --first to replace it" in err


@pytest.mark.parametrize("how", ["flipped", "unsigned", "not there", "of a stranger"])
def test_a_root_that_is_not_right_is_refused(tmp_path, run, how):
    home = tmp_path / "home"
    new_key(home)
    run(home, "rotate")
    file = home / "root-2.json"
    data = file.read_bytes()
    if how == "flipped":
        file.write_bytes(data.replace(b'"threshold":1', b'"threshold":2'))
    elif how == "unsigned":
        file.write_bytes(Root.from_bytes(data, "root").to_bytes().split(b',"signatures')[0])
    elif how == "not there":
        file.unlink()
    else:
        new_key(tmp_path / "stranger")
        run(tmp_path / "stranger", "rotate", "--out", file.with_name("other.json"))
        file.with_name("other.json").replace(file)
    before = (home / "root.json").read_bytes()
    status, out, err = run(home, "trust", file)
    assert (status, out, err.count("\n")) == (1, "", 1)
    assert err.startswith("error: ")
    assert (home / "root.json").read_bytes() == before


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--threshold", "2"], "root.threshold=2 is not from 1 to the 1 keys"),
        (["--remove", "abc"], "remove=abc is not a key of the root"),
        (["--add", "nobody"], "nobody.key"),
        (["--add", "00" * 32], "is no ed25519 public key"),
        (["--expires", "-1"], "root.expires=-1 is not a whole number"),
    ],
)
def test_a_rotation_that_cannot_be_is_refused(tmp_path, run, arguments, words):
    new_key(tmp_path)
    status, out, err = run(tmp_path, "rotate", *arguments)
    assert (status, out) == (1, "")
    assert words in err
    assert not (tmp_path / "root-2.json").exists()


def test_rotating_needs_a_key_of_the_root_and_overwrites_nothing(tmp_path, run):
    new_key(tmp_path)
    assert run(tmp_path, "rotate")[0] == 0
    status, _, err = run(tmp_path, "rotate")
    assert status == 1
    assert "root-2.json is there and is not overwritten; name another with --out" in err
    (tmp_path / "keys" / "default.key").unlink()
    status, _, err = run(tmp_path, "rotate", "--out", tmp_path / "x")
    assert status == 1
    assert "has none of the keys" in err


def test_without_pynacl_the_extra_is_named(tmp_path, run, monkeypatch):
    monkeypatch.setitem(sys.modules, "nacl.signing", None)
    status, _, err = run(tmp_path, "new")
    assert status == 1
    assert err == "error: pynacl is not installed, which signing needs; pip install '.[convert]'\n"
    assert not (tmp_path / "keys" / "default.key").exists()


def test_the_folder_of_the_environment_is_used(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("DEEPKITS_HOME", str(tmp_path))
    assert keys.main(["new"]) == 0
    assert (tmp_path / "keys" / "default.key").exists()
    assert str(tmp_path) in capsys.readouterr().out
