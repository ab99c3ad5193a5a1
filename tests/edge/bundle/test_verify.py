import subprocess
import sys
from pathlib import Path

import pytest

from edge import verify
from edge.bundle import write_bundle
from edge.manifest import key_id

ROOT = Path(__file__).parents[3]


@pytest.fixture
def lasting(path, manifest, files, signers):
    """A bundle that does not expire, with the signature of a stranger beside the trusted one."""
    write_bundle(path, {**manifest, "expires": None}, files, {}, signers[:2])
    return path


def test_it_says_what_is_in_a_bundle(lasting, trust, signers):
    result = subprocess.run(
        [sys.executable, "-m", "edge.verify", str(lasting), "--trust", str(trust.folder)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert (result.returncode, result.stderr) == (0, "")
    lines = result.stdout.splitlines()
    assert lines[:-1] == [
        "verified  fraud 1.2.0 (stable)",
        "made      2027-01-15 07:43:20 UTC, never expires, rollback index 7",
        f"signed    {key_id(signers[0].public)} (1 of 1 needed)",
        f"          {key_id(signers[1].public)} (not trusted here, counts for nothing)",
        "targets   x86_64-ort-cpu   verified, float32",
        "          aarch64-ort-cpu  verified, float32",
        "          portable-onnx    verified, float32",
    ]
    assert lines[-1].startswith("files     7, 0.0 MB in ")
    assert lines[-1].endswith(" MB/s)")


def test_a_refusal_is_one_line_and_exit_code_1(lasting, trust, capsys):
    data = bytearray(lasting.read_bytes())
    data[-2000] ^= 1
    lasting.write_bytes(data)
    assert verify.main([str(lasting), "--trust", str(trust.folder)]) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("refused: ")
    assert err.count("\n") == 1
    assert verify.main([str(lasting.with_name("none")), "--trust", str(trust.folder)]) == 1
    assert "none does not exist; name a bundle" in capsys.readouterr().err


def test_accepting_raises_the_stored_index_verifying_does_not(lasting, trust, capsys):
    arguments = [str(lasting), "--trust", str(trust.folder)]
    assert verify.main(arguments) == 0
    assert trust.rollback_index("fraud") == 0
    assert verify.main([*arguments, "--accept"]) == 0
    assert trust.rollback_index("fraud") == 7
    trust.accept("fraud", 8)
    capsys.readouterr()
    assert verify.main([*arguments, "--accept"]) == 1
    assert "rollback_index=7 is below 8" in capsys.readouterr().err
    assert trust.rollback_index("fraud") == 8


def test_another_architecture_can_be_asked_about(path, manifest, files, signers, trust, capsys):
    names = ("targets/x86_64-ort-cpu.json", "targets/portable-onnx.json")
    files = {name: content for name, content in files.items() if name not in names}
    changes = {"targets": ["aarch64-ort-cpu"], "expires": None}
    write_bundle(path, {**manifest, **changes}, files, {}, signers[:1])
    arguments = [str(path), "--trust", str(trust.folder), "--arch"]
    assert verify.main([*arguments, "aarch64"]) == 0
    assert verify.main([*arguments, "x86_64"]) == 1
    assert "is for arch=aarch64, this device is x86_64" in capsys.readouterr().err
