"""A small bundle, keys, a device that trusts one of them, and tars written by hand."""

import io
import json
import tarfile

import numpy as np
import pytest

from edge.arrays import write_npz
from edge.bundle import write_bundle
from edge.keys import new_key, sign_root
from edge.manifest import key_id
from edge.target import Target, Tolerance
from edge.trust import Root, Trust

NOW = 1_800_000_000
TARGETS = {"x86_64-ort-cpu": "x86_64", "aarch64-ort-cpu": "aarch64", "portable-onnx": "any"}


def _tar(entries):
    """A plain tar of (name or TarInfo, content), as it comes, with the shortest end."""
    stream = io.BytesIO()
    for name, content in entries:
        info = name if isinstance(name, tarfile.TarInfo) else tarfile.TarInfo(name)
        info.size = len(content)
        stream.write(info.tobuf(tarfile.USTAR_FORMAT))
        stream.write(content + bytes(-len(content) % 512))
    return stream.getvalue() + bytes(1024)


@pytest.fixture(scope="session")
def tar():
    return _tar


@pytest.fixture(scope="session")
def now():
    return NOW


@pytest.fixture(scope="session")
def target_json():
    def target_json(id_, arch):
        tolerance = Tolerance(absolute=1e-5, relative=1e-5, reason="float32 sums in another order")
        model = "model/model.onnx"
        target = Target(id_, arch, "onnxruntime", "cpu", "float32", model, "verified", tolerance)
        return json.dumps(target.to_json()).encode()

    return target_json


@pytest.fixture(scope="session")
def signers(tmp_path_factory):
    folder = tmp_path_factory.mktemp("signers")
    return [new_key(folder, name) for name in ("ann", "bob", "eve")]


@pytest.fixture(scope="session")
def root_of():
    """A root that trusts the given signers, signed by all of them."""

    def root_of(signers, threshold=1, **values):
        keys = {key_id(signer.public): signer.public.hex() for signer in signers}
        return sign_root(Root(1, threshold, keys, **values), signers)

    return root_of


@pytest.fixture
def trusting(tmp_path, root_of):
    """A device that trusts the given signers."""

    def trusting(signers, **values):
        folder = tmp_path / "trust"
        folder.mkdir(exist_ok=True)
        (folder / "root.json").write_bytes(root_of(signers, **values).to_bytes())
        return Trust.load(folder)

    return trusting


@pytest.fixture
def trust(trusting, signers):
    """A device that trusts the first signer alone."""
    return trusting(signers[:1])


@pytest.fixture
def manifest():
    return {
        "name": "fraud",
        "version": "1.2.0",
        "channel": "stable",
        "created": NOW - 1000,
        "expires": NOW + 1000,
        "rollback_index": 7,
        "min_runtime": "0.1.0",
        "requires": {"memory_mib": 64, "disk_mib": 1},
        "model": "model/model.onnx",
        "inputs": [{"name": "x", "dtype": "float32", "shape": ["batch", 4]}],
        "outputs": [{"name": "score", "dtype": "float32", "shape": ["batch"]}],
        "targets": list(TARGETS),
        "license": "Apache-2.0",
        "intended_use": "Tests; 仅供测试",
    }


@pytest.fixture
def files(target_json):
    rng = np.random.default_rng(0)
    vectors = {"input/x": rng.random((8, 4), np.float32), "output/score": np.zeros(8, np.float32)}
    return {
        "model/model.onnx": rng.bytes(3000),
        **{f"targets/{id_}.json": target_json(id_, arch) for id_, arch in TARGETS.items()},
        "pipeline/pre.json": b"[]",
        "pipeline/post.json": b"[]",
        "selftest/vectors.npz": write_npz(vectors),
    }


@pytest.fixture
def path(tmp_path):
    return tmp_path / "fraud.ebundle"


@pytest.fixture
def made(path, manifest, files, signers):
    """The bundle, signed by the first signer."""
    write_bundle(path, manifest, files, {"selftest/vectors.npz": "vectors"}, signers[:1])
    return path
