"""Everything that may be wrong with a bundle: each is refused, with its own message, unparsed."""

import functools
import gzip
import json
import random
import tarfile
from collections import Counter, namedtuple

import numpy as np
import pytest

from edge import archive, canonical, checks, ed25519
from edge.archive import read_archive, write_archive
from edge.bundle import Bundle, write_bundle
from edge.checks import signed_message
from edge.manifest import key_id

NUM_FLIPS = 10_000


@pytest.fixture
def refused(trust, now, monkeypatch):
    """Open a bundle that must be refused, while every parser of content is out of order."""

    def forbidden(*args, **values):
        raise AssertionError("content was parsed")

    def refused(path, words, trust=trust, *, is_whole=False, **values):
        with monkeypatch.context() as patch:
            # Targets are read from bundles in which every hash was found right.
            if not is_whole:
                patch.setattr(checks.json, "loads", only_small_text)
                patch.setattr(checks.Target, "from_json", forbidden)
            patch.setattr(np, "load", forbidden)
            patch.setattr(np, "frombuffer", forbidden)
            patch.setattr("edge.arrays.read_npz", forbidden)
            patch.setattr("onnx.load_model_from_string", forbidden)
            patch.setattr("onnxruntime.InferenceSession", forbidden)
            with pytest.raises(ValueError, match=words) as caught:
                Bundle.open(path, trust, **{"now": now, "arch": "x86_64", **values})
        assert "\n" not in str(caught.value)

    parse = json.loads

    def only_small_text(text, **values):
        """Canonical JSON (of the manifest and signatures) is the only thing to come here."""
        assert set(values) == {"parse_float", "parse_constant", "parse_int"}, "content was parsed"
        return parse(text, **values)

    return refused


@pytest.fixture
def contents(made):
    """Name -> bytes of the good bundle, with its manifest and signatures."""
    return {name: part.read() for name, part in read_archive(made).items()}


@pytest.fixture
def resign(signers):
    """Signatures over changed bytes of a manifest, by the trusted key."""

    def resign(contents, manifest, sign=signers[:1]):
        message = signed_message(manifest)
        signatures = {key_id(s.public): s.sign(message).hex() for s in sign}
        return {
            **contents,
            "manifest.json": manifest,
            "signatures.json": canonical.dumps(signatures),
        }

    return resign


# A byte changed


def test_ten_thousand_changed_bytes_are_all_refused(made, trust, now, monkeypatch):
    """One random byte each, half of them in headers, manifest and signatures.

    Signatures over equal bytes are checked once: a pure function, remembered.
    """
    for name in ("verify", "is_key"):
        monkeypatch.setattr(ed25519, name, functools.lru_cache(None)(getattr(ed25519, name)))
    monkeypatch.setattr(checks.Target, "from_json", None)
    slices = read_archive(made)
    good = made.read_bytes()
    content = np.zeros(len(good), bool)
    for name, part in slices.items():
        if name not in ("manifest.json", "signatures.json"):
            content[part.offset : part.offset + part.size] = True
    spots = [np.flatnonzero(content), np.flatnonzero(~content)]
    rng = random.Random(0)
    kinds = Counter()

    def kind(*arguments, **values):
        try:
            Bundle.open(*arguments, **values)
        except ValueError as error:
            return "hash" if "has sha256" in str(error) else "other"
        return "opened"

    with made.open("r+b", buffering=0) as stream:
        for i in range(NUM_FLIPS):
            position = int(rng.choice(spots[i % 2]))
            stream.seek(position)
            stream.write(bytes([good[position] ^ rng.randrange(1, 256)]))
            kinds[kind(made, trust, now=now), bool(content[position])] += 1
            stream.seek(position)
            stream.write(good[position : position + 1])
    # Content always gets as far as its hash, and nothing else does.
    assert kinds == {("hash", True): NUM_FLIPS // 2, ("other", False): NUM_FLIPS // 2}
    assert made.read_bytes() == good


def test_every_byte_of_manifest_and_signatures_counts(contents, path, trust, now, monkeypatch):
    monkeypatch.setattr(ed25519, "is_key", functools.lru_cache(None)(ed25519.is_key))
    rng = random.Random(1)
    for name in ("manifest.json", "signatures.json"):
        for position in rng.sample(range(len(contents[name])), 150):
            changed = bytearray(contents[name])
            changed[position] ^= 1 << rng.randrange(8)
            write_archive(path, {**contents, name: bytes(changed)})
            with pytest.raises(ValueError, match=r"manifest|signatures|signed by|trusted"):
                Bundle.open(path, trust, now=now)


def test_a_changed_byte_of_content_names_the_file(contents, path, refused):
    data = contents["model/model.onnx"]
    write_archive(path, {**contents, "model/model.onnx": data[:-1] + bytes([data[-1] ^ 1])})
    refused(path, r"model/model\.onnx has sha256 .{12}…, the manifest says .{12}…; copy the bundle")


def test_a_changed_manifest_is_told_from_a_damaged_one(contents, path, refused):
    manifest = contents["manifest.json"].replace(b'"rollback_index":7', b'"rollback_index":9')
    write_archive(path, {**contents, "manifest.json": manifest})
    refused(path, r"the signature of key [0-9a-f]{16} does not fit manifest\.json")


# The structure


def test_a_bundle_cut_at_any_block_is_refused(made, refused):
    data = made.read_bytes()
    for size in range(0, len(data), 512):
        made.write_bytes(data[:size])
        refused(made, r"was cut off|before the end|has no signatures|has no manifest")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ("extra", r"evil\.bin is in the bundle and not in the manifest"),
        ("missing", r"pipeline/post\.json is in the manifest and not in the bundle"),
        ("longer", r"pipeline/pre\.json has size=3, the manifest says 2"),
        ("other", r"pipeline/pre\.json has sha256"),
        ("no manifest", r"has no manifest\.json; it is not a bundle"),
        ("no signatures", r"has no signatures\.json; it is not a bundle"),
    ],
)
def test_files_that_differ_from_the_manifest_are_refused(contents, path, refused, change, words):
    contents = {
        "extra": {**contents, "evil.bin": b"x"},
        "missing": {n: c for n, c in contents.items() if n != "pipeline/post.json"},
        "longer": {**contents, "pipeline/pre.json": b"[ ]"},
        "other": {**contents, "pipeline/pre.json": b"{}"},
        "no manifest": {n: c for n, c in contents.items() if n != "manifest.json"},
        "no signatures": {n: c for n, c in contents.items() if n != "signatures.json"},
    }[change]
    write_archive(path, contents)
    refused(path, words)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("/etc/evil", "is absolute"),
        ("../evil", r"climbs with"),
        ("z/../../evil", r"climbs with"),
        ("zz evil", "is not made of"),
        ("pipeline/pre.json", "is there twice"),
        ("a", "not in their order"),
        ("targets/x86_64-ort-cpu.json/x", "is a file and the folder of"),
    ],
)
def test_an_entry_that_may_not_be_is_refused(contents, path, tar, refused, name, words):
    path.write_bytes(tar([*contents.items(), (name, b"evil")]))
    refused(path, words)


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        (tarfile.SYMTYPE, "a symbolic link"),
        (tarfile.LNKTYPE, "a hard link"),
        (tarfile.CHRTYPE, "a character device"),
        (tarfile.BLKTYPE, "a block device"),
        (tarfile.FIFOTYPE, "a pipe"),
        (tarfile.DIRTYPE, "a folder entry"),
    ],
)
def test_links_and_devices_are_refused(contents, path, tar, refused, kind, words):
    info = tarfile.TarInfo("zzz")
    info.type, info.linkname = kind, "model/model.onnx" if kind in b"12" else ""
    path.write_bytes(tar([*contents.items(), (info, b"")]))
    refused(path, words)


def test_swapped_files_are_refused(contents, path, tar, refused):
    names = list(contents)
    names[3], names[4] = names[4], names[3]
    path.write_bytes(tar([(name, contents[name]) for name in names]))
    refused(path, "files are not in their order")


@pytest.mark.parametrize("tail", [bytes(512), b"\0", b"more"])
def test_trailing_data_is_refused(made, refused, tail):
    made.write_bytes(made.read_bytes() + tail)
    refused(made, "goes on after the end of the archive")


def test_a_compressed_bundle_is_refused(made, refused):
    made.write_bytes(gzip.compress(made.read_bytes()))
    refused(made, "is compressed; a bundle is a plain tar")


def test_a_folder_with_links_or_more_files_is_refused(tmp_path, made, refused):
    folder = tmp_path / "folder"
    with tarfile.open(made) as plain:
        plain.extractall(folder, filter="data")
    (folder / "evil").symlink_to(folder / "manifest.json")
    refused(folder, "evil is no regular file; a bundle has no links")
    (folder / "evil").unlink()
    (folder / "evil").write_bytes(b"")
    refused(folder, "evil is in the bundle and not in the manifest")
    (folder / "evil").unlink()
    (folder / "pipeline" / "post.json").unlink()
    refused(folder, r"pipeline/post\.json is in the manifest and not in the bundle")


# Bombs


def test_a_bundle_over_the_limit_is_refused_unread(made, refused, monkeypatch):
    size = made.stat().st_size
    monkeypatch.setattr(archive, "_open_file", None)
    refused(made, rf"has size={size}, over the limit of {size - 1} bytes", max_bytes=size - 1)


def test_a_hole_of_a_terabyte_is_refused_unread(path, refused):
    with path.open("wb") as stream:
        stream.truncate(1 << 40)
    refused(path, r"has size=1099511627776, over the limit")


def test_a_folder_over_the_limit_is_refused_unread(tmp_path, made, refused):
    folder = tmp_path / "folder"
    with tarfile.open(made) as plain:
        plain.extractall(folder, filter="data")
    with (folder / "model" / "model.onnx").open("r+b") as stream:
        stream.truncate(1 << 40)
    refused(folder, r"over the limit of \d+ bytes; refused unread")


@pytest.mark.parametrize("name", ["manifest.json", "signatures.json"])
def test_a_huge_manifest_is_refused_unread(contents, path, refused, name, monkeypatch):
    write_archive(path, {**contents, name: bytes(5 << 20)})
    monkeypatch.setattr(archive.Slice, "read", None)
    refused(path, rf"{name} has size=5242880, over the limit of \d+ bytes; refused unread")


def test_too_many_files_are_refused(path, tar, refused):
    path.write_bytes(tar([(f"{i:05}", b"") for i in range(10_001)]))
    refused(path, "has over 10000 files; refused as a bomb")


def test_deeply_nested_signatures_are_refused(contents, path, refused):
    write_archive(path, {**contents, "signatures.json": b"[" * 60_000})
    refused(path, r"signatures\.json is not canonical JSON .*recursion")


# Signatures


def test_a_bundle_of_strangers_is_refused(path, manifest, files, signers, refused):
    write_bundle(path, manifest, files, {}, signers[1:])
    refused(path, "none of them trusted here; trusted are " + key_id(signers[0].public))


def test_too_few_trusted_signatures_are_refused(path, manifest, files, signers, trusting, refused):
    ann, bob, eve = signers
    write_bundle(path, manifest, files, {}, [ann, eve])
    words = "has 1 trusted signatures, the root demands 2; let more"
    refused(path, words, trusting([ann, bob], threshold=2))


def test_a_signature_dropped_or_added_is_refused(path, manifest, files, signers, refused):
    ann, bob, _ = signers
    write_bundle(path, manifest, files, {}, [ann, bob])
    contents = {name: part.read() for name, part in read_archive(path).items()}
    signatures = canonical.loads(contents["signatures.json"], "signatures")
    only_ann = {key_id(ann.public): signatures[key_id(ann.public)]}
    for changed, id_ in (
        (only_ann, key_id(bob.public)),
        ({**signatures, "00" * 8: "00" * 64}, "00" * 8),
    ):
        write_archive(path, {**contents, "signatures.json": canonical.dumps(changed)})
        refused(path, rf"signatures\.json and manifest\.signers differ in {id_}")
    write_archive(path, {**contents, "signatures.json": b"{}"})
    refused(path, "is signed by nobody, none of them trusted here")


def test_a_wrong_signature_of_a_stranger_is_refused_too(path, manifest, files, signers, refused):
    """It would count for nothing, but no byte may be free to choose."""
    ann, bob, _ = signers
    write_bundle(path, manifest, files, {}, [ann, bob])
    contents = {name: part.read() for name, part in read_archive(path).items()}
    signatures = canonical.loads(contents["signatures.json"], "signatures")
    signatures[key_id(bob.public)] = bob.sign(b"something else").hex()
    write_archive(path, {**contents, "signatures.json": canonical.dumps(signatures)})
    refused(path, f"the signature of key {key_id(bob.public)} does not fit")


def test_the_id_of_a_trusted_key_with_another_key_is_refused(
    contents, path, signers, resign, refused
):
    ann, bob, _ = signers
    manifest = canonical.loads(contents["manifest.json"], "manifest")
    manifest["signers"] = {key_id(ann.public): bob.public.hex()}
    write_archive(path, resign(contents, canonical.dumps(manifest)))
    refused(path, rf"manifest\.signers\.{key_id(ann.public)} is the id of another key")


def test_a_key_made_to_share_the_id_of_a_trusted_one_is_refused(
    contents, path, signers, resign, refused, monkeypatch
):
    """Ids are 64 bits: with much work another key gets the same."""
    ann, bob, _ = signers
    same = key_id(ann.public)
    manifest = canonical.loads(contents["manifest.json"], "manifest")
    manifest["signers"] = {same: bob.public.hex()}
    write_archive(path, resign(contents, canonical.dumps(manifest)))
    monkeypatch.setattr("edge.manifest.key_id", lambda public: same)
    refused(path, rf"manifest\.signers\.{same} is not the trusted key of this id")


ID, SIGNATURE = "0123456789abcdef", "00" * 64


@pytest.mark.parametrize(
    "value",
    [
        [],
        1,
        {ID: 1},
        {ID: SIGNATURE[1:]},
        {ID: "zz" * 64},
        {ID: "AB" * 64},
        {ID.upper(): SIGNATURE},
        {ID[1:]: SIGNATURE},
        {"\x1b[2J\x1b[1;1Hall is": SIGNATURE},
        {"verified\n": SIGNATURE},
    ],
)
def test_signatures_of_another_form_are_refused(contents, path, refused, value):
    write_archive(path, {**contents, "signatures.json": canonical.dumps(value)})
    refused(path, r"signatures\.json is not an object of key ids and 64-byte signatures")


def test_an_expired_root_trusts_nobody(made, signers, trusting, now, refused):
    trust = trusting(signers[:1], expires=now)
    refused(made, r"the trusted root expired on 2027-01-15 08:00:00 UTC", trust)
    Bundle.open(made, trust, now=now - 1)


# Rightly signed, and still not to be taken


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"schema": "deepkits.bundle/2"}, r"manifest\.schema='deepkits\.bundle/2' is not deepkits"),
        ({"surprise": 1}, r"missing or unknown keys: surprise"),
        ({"rollback_index": -1}, r"manifest\.rollback_index=-1 is not a whole number"),
    ],
)
def test_a_signed_manifest_of_another_schema_is_refused(
    contents, path, resign, refused, change, words
):
    manifest = {**canonical.loads(contents["manifest.json"], "manifest"), **change}
    write_archive(path, resign(contents, canonical.dumps(manifest)))
    refused(path, words)


@pytest.mark.parametrize("spelling", ["spaces", "twice", "float"])
def test_a_signed_manifest_that_is_not_canonical_is_refused(
    contents, path, resign, refused, spelling
):
    data = contents["manifest.json"]
    data = {
        "spaces": data + b" ",
        "twice": data[:-1] + b',"version":"9"}',
        "float": data.replace(b'"size":3000', b'"size":3e3'),
    }[spelling]
    write_archive(path, resign(contents, data))
    refused(path, r"manifest\.json is not canonical JSON")


def test_a_downgrade_is_refused(made, trust, refused, now):
    trust.accept("fraud", 7)
    Bundle.open(made, trust, now=now)
    trust.accept("fraud", 8)
    refused(made, r"manifest\.rollback_index=7 is below 8, which this device had of fraud")


def test_an_expired_bundle_is_refused(made, trust, refused, now):
    Bundle.open(made, trust, now=now + 999)
    refused(made, "the bundle expired on 2027-01-15 08:16:40 UTC", now=now + 1000)


def test_a_bundle_for_a_newer_runtime_is_refused(path, manifest, files, signers, refused):
    write_bundle(path, {**manifest, "min_runtime": "0.1.1"}, files, {}, signers[:1])
    refused(path, r"manifest\.min_runtime=0\.1\.1 is above this runtime, 0\.1\.0; install a newer")


def test_a_bundle_for_other_machines_is_refused(path, manifest, files, signers, refused):
    names = ("targets/x86_64-ort-cpu.json", "targets/portable-onnx.json")
    files = {name: content for name, content in files.items() if name not in names}
    write_bundle(path, {**manifest, "targets": ["aarch64-ort-cpu"]}, files, {}, signers[:1])
    refused(path, "the bundle is for arch=aarch64, this device is x86_64", is_whole=True)


def test_a_target_that_is_none_is_refused(path, manifest, files, signers, target_json, refused):
    for content, words in (
        (b"{", r"targets/portable-onnx\.json is not a target"),
        (b"[]", r"targets/portable-onnx\.json is not a target"),
        (b"[" * 100_000, r"targets/portable-onnx\.json is not a target"),
        (b'{"id":1}', r"is not a target"),
        (target_json("x86_64-ort-cpu", "any"), "is of target 'x86_64-ort-cpu'; name the file"),
        (b" " * ((1 << 20) + 1), "over the limit of 1048576 bytes"),
    ):
        changed = {**files, "targets/portable-onnx.json": content}
        write_bundle(path, manifest, changed, {}, signers[:1])
        refused(path, words, is_whole=True)


def test_a_full_disk_is_refused(made, refused, monkeypatch):
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(checks.shutil, "disk_usage", lambda path: usage(1 << 40, 1 << 40, 99_999))
    refused(made, r"manifest\.requires\.disk_mib=1 is above the 0 MiB that are free", is_whole=True)


def test_the_first_thing_wrong_is_told(contents, path, trust, resign, refused, now):
    """A bundle with everything wrong, mended step by step, shows the order of the checks."""
    manifest = canonical.loads(contents["manifest.json"], "manifest")
    trust.accept("fraud", 9)
    steps = [
        ("signature", r"does not fit manifest"),
        ("schema", r"manifest\.schema="),
        ("extra", "is in the bundle and not in the manifest"),
        ("hash", "has sha256"),
        ("rollback_index", "is below 9"),
        ("expires", "the bundle expired"),
        ("min_runtime", "is above this runtime"),
        ("arch", r"this device is riscv64"),
        ("disk", r"manifest\.requires\.disk_mib="),
    ]
    wrong = {"schema": "x", "rollback_index": 1, "expires": 1, "min_runtime": "9.0.0"}
    for i, (step, words) in enumerate(steps):
        left = {name for name, _ in steps[i:]}
        values = {name: value for name, value in wrong.items() if name in left}
        content = dict(contents)
        changed = {**manifest, "rollback_index": 9, **values}
        targets = manifest["targets"]
        if "disk" in left:
            changed["requires"] = {"memory_mib": 1, "disk_mib": 1 << 40}
        if "arch" in left:
            targets = targets[:2]
            content.pop("targets/portable-onnx.json")
            changed["files"] = {n: f for n, f in manifest["files"].items() if n in content}
        changed["targets"] = targets
        content = resign(content, canonical.dumps(changed))
        if "hash" in left:
            content["pipeline/pre.json"] = b"{}"
        if "extra" in left:
            content["evil"] = b""
        if "signature" in left:
            content["manifest.json"] += b" "
        write_archive(path, content)
        assert step in left
        refused(path, words, is_whole=step in ("arch", "disk"), arch="riscv64")
        if step == "arch":
            assert "portable-onnx" not in targets
