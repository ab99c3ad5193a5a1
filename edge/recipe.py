"""Builds a vendor's engine on the device, from a recipe made where that vendor's tools are not.

A recipe `x.json` names its files with size and sha256, each as what follows `x.`, so that all can
be renamed together; and commands as lists of arguments. Every file is checked before a command
runs; a command starts one of the known tools, without a shell, and may refer to two paths only:
{stem}, the recipe's without .json, and {output}. Signatures are the bundle's matter.
"""

from __future__ import annotations

import hashlib
import re
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from edge import canonical

SCHEMA = "deepkits.build/1"
TOOLS = ("atc", "trtexec")
MAX_RECIPE_BYTES = 4 * 2**20
PLACEHOLDERS = ("stem", "output")
_PLACEHOLDER = re.compile(r"\{([^{}]*)\}")
_PLAIN_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.+-]*")
_LAST_LINES = 20


def read_recipe(path: Path) -> dict[str, Any]:
    """The recipe in a file, after every file that it names has been checked.

    Raises:
        ValueError: not a recipe, or a file beside it is not the one it names.
    """
    if path.stat().st_size > MAX_RECIPE_BYTES:
        raise ValueError(f"{path.name} is over {MAX_RECIPE_BYTES} bytes; it is no recipe")
    recipe = canonical.loads(path.read_bytes(), path.name)
    if not isinstance(recipe, dict) or recipe.get("schema") != SCHEMA:
        raise ValueError(f"{path.name} is not of schema {SCHEMA!r}; make it again")
    for part, entry in recipe["files"].items():
        _check_name(part)
        file = path.with_suffix(f".{part}")
        name = file.name
        if not file.is_file() or file.is_symlink():
            raise ValueError(f"{name} is missing beside {path.name}; copy the bundle again")
        with file.open("rb") as stream:
            found = hashlib.file_digest(stream, "sha256").hexdigest()
        if found != entry["sha256"]:
            raise ValueError(
                f"{name} has sha256 {found[:12]}, the recipe says {entry['sha256'][:12]}; "
                f"copy the bundle again"
            )
    return recipe


def cache_key(recipe: Mapping[str, Any], build: str, facts: Mapping[str, str]) -> str:
    """What an engine is valid for: the model, the command, and everything the device said.

    Args:
        recipe: as read.
        build: name of one of its builds.
        facts: what the recipe asks of the device: chip, versions, power mode.
    Raises:
        ValueError: a fact is missing or unknown.
    """
    asked = recipe["key"]["device"]
    if set(facts) != set(asked):
        raise ValueError(f"facts={sorted(facts)} are not the asked ones, {', '.join(asked)}")
    content = {"recipe": dict(recipe), "build": build, "facts": dict(facts)}
    return hashlib.sha256(canonical.dumps(content)).hexdigest()


def run_recipe(
    path: Path, build: str, output: Path, facts: Mapping[str, str], *, timeout_s: float = 3600
) -> Path:
    """Build the engine, unless the same recipe built it for the same device before.

    Args:
        path: the recipe, its files beside it.
        build: which of its builds fits the tool that the device has, as "tensorrt-10".
        output: folder of engines; each gets a folder named by its key.
        facts: of the device, as the recipe asks for.
        timeout_s: for the vendor's tool.
    Returns:
        the engine.
    Raises:
        ValueError: the recipe is not sound, the tool is missing, failed or wrote nothing.
    """
    recipe = read_recipe(path)
    found = {entry["name"]: entry for entry in recipe["builds"]}
    if build not in found:
        raise ValueError(f"build={build!r} is not one of {', '.join(found)}")
    for name in found[build]["artifacts"]:
        _check_name(name)
    done = output / cache_key(recipe, build, facts)[:16]
    if done.is_dir():
        return _result(found[build], done)
    work = done.with_suffix(".part")
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    command = command_of(found[build], path, work)
    tool = shutil.which(command[0])
    if tool is None:
        raise ValueError(f"tool={command[0]!r} is not on the PATH; needs {_needs(found[build])}")
    try:
        ended = subprocess.run(
            [tool, *command[1:]], capture_output=True, cwd=work, timeout=timeout_s, check=False
        )
    except subprocess.TimeoutExpired:
        raise ValueError(f"{command[0]} took more than {timeout_s:g} s; raise timeout_s") from None
    if ended.returncode:
        said = (ended.stdout + ended.stderr).decode(errors="replace").splitlines()
        raise ValueError(
            f"{command[0]} ended with {ended.returncode}: {' | '.join(said[-_LAST_LINES:])}"
        )
    _result(found[build], work)
    work.rename(done)
    return _result(found[build], done)


def command_of(build: Mapping[str, Any], path: Path, output: Path) -> list[str]:
    """The arguments, with the paths of the recipe's files and of the output folder put in.

    Raises:
        ValueError: not a known tool, an unknown placeholder, or an argument that is not text.
    """
    argv = build["argv"]
    if not argv or argv[0] not in TOOLS:
        raise ValueError(f"argv={argv[:1]} starts none of {', '.join(TOOLS)}; it is not run")
    for argument in argv:
        if not isinstance(argument, str) or "\0" in argument:
            raise ValueError(f"argument {argument!r} is no text")
        unknown = set(_PLACEHOLDER.findall(argument)) - set(PLACEHOLDERS)
        bare = _PLACEHOLDER.sub("", argument)
        if unknown or "{" in bare or "}" in bare:
            raise ValueError(f"argument {argument!r} has other placeholders than {PLACEHOLDERS}")
    paths = {"stem": str(path.absolute().with_suffix("")), "output": str(output.absolute())}
    return [_PLACEHOLDER.sub(lambda match: paths[match[1]], text) for text in argv]


def _result(build: Mapping[str, Any], folder: Path) -> Path:
    for name in build["artifacts"]:
        file = folder / str(name)
        if file.is_file() and file.stat().st_size:
            return file
    raise ValueError(f"{build['argv'][0]} wrote none of {', '.join(build['artifacts'])}")


def _check_name(name: str) -> None:
    if not _PLAIN_NAME.fullmatch(name):
        raise ValueError(f"file name {name!r} is not plain; it is not read")


def _needs(build: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {version}" for name, version in build["requires"].items())
