import os
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

from edge import bundle, canonical
from edge.archive import write_archive
from edge.bundle import Bundle, write_bundle
from edge.checks import signed_message
from edge.manifest import key_id

ROOT = Path(__file__).parents[3]


def test_a_bundle_gives_back_what_went_in(made, trust, files, now):
    opened = Bundle.open(made, trust, now=now, arch="x86_64")
    assert opened.path == made
    assert {name: opened.read(name) for name in opened.files} == files
    assert list(opened.targets) == ["x86_64-ort-cpu", "aarch64-ort-cpu", "portable-onnx"]
    assert opened.targets["aarch64-ort-cpu"].arch == "aarch64"
    assert opened.manifest.files["selftest/vectors.npz"].role == "vectors"
    assert opened.manifest.files["model/model.onnx"].role == "model"
    assert opened.manifest.intended_use == "Tests; 仅供测试"
    assert opened.num_bytes > sum(map(len, files.values()))


def test_a_folder_with_the_same_files_is_an_equal_bundle(tmp_path, made, trust, files, now):
    with tarfile.open(made) as plain:
        plain.extractall(tmp_path / "folder", filter="data")
    archive = Bundle.open(made, trust, now=now)
    folder = Bundle.open(tmp_path / "folder", trust, now=now)
    assert (folder.manifest, folder.targets) == (archive.manifest, archive.targets)
    assert {name: folder.read(name) for name in folder.files} == files


def test_equal_inputs_give_equal_bytes(tmp_path, made, manifest, files, signers):
    for name, content in files.items():
        (tmp_path / "elsewhere" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "elsewhere" / name).write_bytes(content)
    paths = {name: tmp_path / "elsewhere" / name for name in reversed(files)}
    roles = {"selftest/vectors.npz": "vectors"}
    write_bundle(tmp_path / "again", manifest, paths, roles, signers[:1])
    assert (tmp_path / "again").read_bytes() == made.read_bytes()


def test_the_default_trust_folder_is_used(made, trust, now, monkeypatch, tmp_path):
    monkeypatch.setenv("DEEPKITS_HOME", str(trust.folder))
    assert Bundle.open(str(made), now=now).manifest.name == "fraud"
    monkeypatch.setenv("DEEPKITS_HOME", str(tmp_path / "none"))
    with pytest.raises(ValueError, match=r"python -m edge\.keys new"):
        Bundle.open(made, now=now)


def test_the_clock_is_asked_when_no_time_is_given(path, manifest, files, signers, trust):
    write_bundle(path, {**manifest, "expires": 1_000_000_000}, files, {}, signers[:1])
    with pytest.raises(ValueError, match="expired on 2001-09-09 01:46:40 UTC"):
        Bundle.open(path, trust)
    assert Bundle.open(path, trust, now=999_999_999).manifest.expires == 1_000_000_000


def test_reading_a_file_that_is_not_there_names_those_that_are(made, trust, now):
    opened = Bundle.open(made, trust, now=now)
    with pytest.raises(ValueError, match=r"has no file 'pipeline/x'; it has pipeline/post\.json"):
        opened.read("pipeline/x")
    with pytest.raises(ValueError, match=r"has no file '\.\./x'; it has .*model/model\.onnx"):
        opened.read("../x")


@pytest.mark.parametrize("is_folder", [False, True])
def test_a_file_changed_after_opening_is_not_read(tmp_path, made, trust, now, is_folder):
    target = made
    if is_folder:
        with tarfile.open(made) as plain:
            plain.extractall(tmp_path / "folder", filter="data")
        made, target = tmp_path / "folder", tmp_path / "folder" / "model" / "model.onnx"
    opened = Bundle.open(made, trust, now=now)
    part = opened.slices["model/model.onnx"]
    data = bytearray(target.read_bytes())
    data[part.offset + 10] ^= 1
    target.write_bytes(data)
    with pytest.raises(ValueError, match=r"model/model\.onnx has sha256 .*the manifest says"):
        opened.read("model/model.onnx")
    assert opened.read("pipeline/pre.json") == b"[]"


def test_a_link_put_in_place_of_a_file_is_not_followed_to_other_content(tmp_path, made, trust, now):
    with tarfile.open(made) as plain:
        plain.extractall(tmp_path / "folder", filter="data")
    opened = Bundle.open(tmp_path / "folder", trust, now=now)
    model = tmp_path / "folder" / "model" / "model.onnx"
    (tmp_path / "other").write_bytes(os.urandom(model.stat().st_size))
    model.unlink()
    model.symlink_to(tmp_path / "other")
    with pytest.raises(ValueError, match="has sha256"):
        opened.read("model/model.onnx")


def test_signers_a_device_does_not_know_count_for_nothing(
    path, manifest, files, signers, trusting, now
):
    ann, bob, eve = signers
    write_bundle(path, manifest, files, {}, [bob, ann, eve])
    for known in ([ann], [bob], [ann, bob], signers):
        opened = Bundle.open(path, trusting(known, threshold=len(known)), now=now)
        assert set(opened.manifest.signers) == {key_id(signer.public) for signer in signers}


def test_the_order_of_signers_does_not_matter(tmp_path, path, manifest, files, signers):
    write_bundle(path, manifest, files, {}, signers)
    write_bundle(tmp_path / "other", manifest, files, {}, signers[::-1])
    assert path.read_bytes() == (tmp_path / "other").read_bytes()


@pytest.mark.parametrize("which", ["none", "twice"])
def test_a_bundle_without_or_with_doubled_signers_is_not_written(
    path, manifest, files, signers, which
):
    sign = [] if which == "none" else [signers[0], signers[0]]
    with pytest.raises(ValueError, match="it needs at least one, and each once"):
        write_bundle(path, manifest, files, {}, sign)
    assert not path.exists()


def test_what_a_reader_would_refuse_is_not_written(path, manifest, files, signers):
    for changes, words in (
        ({"name": "a b"}, "manifest.name='a b'"),
        ({"targets": ["portable-onnx"]}, r"manifest\.targets and the files of targets/ differ"),
        ({"colour": "red"}, "missing or unknown keys: colour"),
    ):
        with pytest.raises(ValueError, match=words):
            write_bundle(path, {**manifest, **changes}, files, {}, signers[:1])
    for name, words in (("../x", "climbs"), ("manifest.json", "may not be listed")):
        with pytest.raises(ValueError, match=words):
            write_bundle(path, manifest, {**files, name: b""}, {}, signers[:1])
    with pytest.raises(ValueError, match="roles names x, not among files"):
        write_bundle(path, manifest, files, {"x": "model"}, signers[:1])
    assert not path.exists()


def test_a_file_that_changes_while_it_is_packed_is_told(
    tmp_path, path, manifest, files, signers, monkeypatch
):
    path.write_bytes(b"the older bundle")
    model = tmp_path / "model.onnx"
    model.write_bytes(b"before")

    def write_later(part, contents):
        model.write_bytes(b"after!")
        write_archive(part, contents)

    monkeypatch.setattr(bundle, "write_archive", write_later)
    with pytest.raises(ValueError, match=r"model/model\.onnx has sha256"):
        write_bundle(path, manifest, {**files, "model/model.onnx": model}, {}, signers[:1])
    assert path.read_bytes() == b"the older bundle"
    assert sorted(file.name for file in tmp_path.iterdir()) == [path.name, model.name]


def test_the_signed_message_is_as_the_format_says(made, trust, now, signers):
    from nacl.signing import VerifyKey

    slices = Bundle.open(made, trust, now=now).slices
    signatures = canonical.loads(slices["signatures.json"].read(), "signatures")
    signature = bytes.fromhex(signatures[key_id(signers[0].public)])
    message = signed_message(slices["manifest.json"].read())
    assert message.startswith(b"deepkits.bundle/1\n")
    assert len(message) == 18 + 32
    assert VerifyKey(signers[0].public).verify(message, signature) == message


def test_opening_loads_nothing_but_the_standard_library(made, trust):
    """In a fresh process: no numpy, no runtime, no signing package."""
    code = (
        "import sys; before = set(sys.modules)\n"
        "from edge.verify import main\n"
        "status = main(sys.argv[1:])\n"
        "loaded = {name.split('.')[0] for name in set(sys.modules) - before}\n"
        "print(sorted(loaded - set(sys.stdlib_module_names)))\n"
        "sys.exit(status)\n"
    )
    result = subprocess.run(
        [sys.executable, "-c", code, str(made), "--trust", str(trust.folder)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert result.returncode == 0, result.stderr
    assert result.stdout.splitlines()[-1] == "['edge']"


def test_importing_takes_less_than_a_fifth_of_a_second():
    code = "import time; t = time.process_time(); import {}; print(time.process_time() - t)"
    for module in ("edge", "edge.verify"):
        times = []
        for _ in range(3):
            result = subprocess.run(
                [sys.executable, "-c", code.format(module)],
                cwd=ROOT,
                capture_output=True,
                text=True,
                check=True,
                timeout=60,
            )
            times.append(float(result.stdout))
        assert min(times) < 0.2
