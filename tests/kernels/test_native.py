import ctypes
import platform

import pytest

from kernels import native
from kernels.build import INSTRUCTION_SETS, build, library_name, source_hash

HERE = platform.machine()

ADD = 'extern "C" int deepkits_toy_add(int a, int b) { return a + b; }\n'


@pytest.fixture(autouse=True)
def fresh_load():
    native.load.cache_clear()
    yield
    native.load.cache_clear()


@pytest.fixture
def sources(tmp_path):
    (tmp_path / "toy").mkdir()
    (tmp_path / "toy" / "native.cpp").write_text(ADD)
    return tmp_path


def test_load_gives_a_library_of_these_sources():
    assert source_hash() in native.load()._name


def test_load_refuses_a_library_of_older_sources(monkeypatch, tmp_path):
    stale = tmp_path / "deepkits_kernels.x86_64_v3.0000000000000000.so"
    stale.touch()
    monkeypatch.setattr(native, "LIBRARIES", tmp_path)
    with pytest.raises(RuntimeError, match=r"not built for these sources; run `make kernels`"):
        native.load()


def test_an_unknown_instruction_set_is_refused(monkeypatch):
    monkeypatch.setenv("DEEPKITS_ISA", "sse2")
    with pytest.raises(ValueError, match=r"DEEPKITS_ISA='sse2' is not one of .*; unset it"):
        native.load()


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        (native._V3_FLAGS, "x86_64_v3"),
        (native._V3_FLAGS | native._V4_FLAGS, "x86_64_v4"),
        (native._V3_FLAGS | native._V4_FLAGS - {"avx512vl"}, "x86_64_v3"),
    ],
)
def test_the_best_instruction_set_of_the_processor_is_chosen(monkeypatch, flags, expected):
    monkeypatch.delenv("DEEPKITS_ISA", raising=False)
    monkeypatch.setattr(native.platform, "machine", lambda: "x86_64")
    monkeypatch.setattr(native, "_processor_flags", lambda: flags)
    assert native.instruction_set() == expected


def test_a_processor_without_kernels_is_named(monkeypatch):
    monkeypatch.delenv("DEEPKITS_ISA", raising=False)
    monkeypatch.setattr(native.platform, "machine", lambda: "x86_64")
    monkeypatch.setattr(native, "_processor_flags", lambda: frozenset({"sse2"}))
    with pytest.raises(RuntimeError, match="x86-64 with AVX2"):
        native.instruction_set()


def test_build_makes_libraries_that_load_and_removes_those_of_older_sources(sources, tmp_path):
    output = tmp_path / "made"
    first = build(HERE, output, sources)
    assert [library.name for library in first] == [
        library_name(instruction_set, sources) for instruction_set in INSTRUCTION_SETS[HERE]
    ]
    assert ctypes.CDLL(str(first[0])).deepkits_toy_add(2, 3) == 5

    (sources / "toy" / "native.cpp").write_text(ADD.replace("+", "-"))
    second = build(HERE, output, sources)
    assert sorted(output.iterdir()) == sorted(second)
    assert ctypes.CDLL(str(second[0])).deepkits_toy_add(2, 3) == -1


def test_a_header_belongs_to_the_sources(sources):
    before = source_hash(sources)
    (sources / "toy" / "sizes.h").write_text("constexpr int kSize = 3;\n")
    assert source_hash(sources) != before


def test_build_compiles_nothing_twice(sources, tmp_path):
    output = tmp_path / "made"
    times = [library.stat().st_mtime_ns for library in build(HERE, output, sources)]
    assert [library.stat().st_mtime_ns for library in build(HERE, output, sources)] == times


def test_the_aarch64_library_is_one(sources, tmp_path):
    (library,) = build("aarch64", tmp_path / "made", sources)
    header = library.read_bytes()[:20]
    assert header[:4] == b"\x7fELF"
    assert int.from_bytes(header[18:20], "little") == 183  # EM_AARCH64


def test_build_refuses_an_unknown_architecture(tmp_path):
    with pytest.raises(ValueError, match="arch='riscv64' is not one of x86_64, aarch64"):
        build("riscv64", tmp_path)
