import importlib.metadata
import re
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
LOCKS = sorted((ROOT / "requirements").glob("*.txt"))


def pinned(lock):
    """Each requirement of a lock, with the number of its hashes."""
    text = lock.read_text(encoding="utf-8").replace("\\\n", " ")
    for line in text.splitlines():
        if line and not line.startswith("#"):
            requirement, *hashes = line.split(" --hash=sha256:")
            yield Requirement(requirement.strip()), len(hashes)


def test_every_extra_has_a_lock():
    extras = set(PROJECT["project"]["optional-dependencies"])
    # aarch64: what the tests under emulation install, see tests/aarch64/prepare.py.
    assert {lock.stem for lock in LOCKS} == extras | {"aarch64"}


@pytest.mark.parametrize("lock", LOCKS, ids=lambda lock: lock.stem)
def test_a_lock_pins_and_hashes_everything_and_names_no_place(lock):
    for requirement, num_hashes in pinned(lock):
        assert re.fullmatch(r"==[^*]+", str(requirement.specifier)), requirement
        assert num_hashes > 0, requirement
        assert requirement.url is None
    text = lock.read_text(encoding="utf-8")
    assert not re.search(r"^--|://|find-links", text, re.MULTILINE)


def test_locks_agree_so_that_any_two_fit_into_one_environment():
    versions = {}
    for lock in LOCKS:
        for requirement, _ in pinned(lock):
            key = (requirement.name, str(requirement.marker))
            assert versions.setdefault(key, requirement.specifier) == requirement.specifier, key


def test_locks_keep_to_the_project_and_away_from_known_bad_releases():
    extras = PROJECT["project"]["optional-dependencies"].values()
    rules = [
        *PROJECT["tool"]["uv"]["constraint-dependencies"],
        *PROJECT["build-system"]["requires"],
    ]
    rules += PROJECT["project"]["dependencies"] + [rule for extra in extras for rule in extra]
    for rule in map(Requirement, rules):
        for lock in LOCKS:
            for requirement, _ in pinned(lock):
                if requirement.name == rule.name:
                    (version,) = requirement.specifier
                    assert rule.specifier.contains(version.version), (lock.stem, rule)


def test_no_installed_package_runs_code_at_every_start_of_python():
    runners = {
        distribution.name: file.name
        for distribution in importlib.metadata.distributions()
        for file in distribution.files or ()
        if file.suffix == ".pth"
    }
    # setuptools: stands in for the removed distutils; deepkits: the path of the editable install.
    assert runners.keys() <= {"setuptools", "deepkits"}
