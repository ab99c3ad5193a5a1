"""From YAML and the command line to a checked dataclass to a job; the one file that knows Hydra.

`launch(train, KIT, "train")` composes `configs/<kit>/train.yaml` with the command line's
overrides, checks keys, options, types and every `__post_init__`, and only then calls the job,
which imports torch. A mistake of the user ends with exit code 2 and one line on stderr.
"""

from __future__ import annotations

import argparse
import dataclasses
import difflib
import enum
import itertools
import re
import sys
import typing
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import configs
from core.kit import Kit
from core.schema import Schemas, comments, type_name

try:
    from hydra import compose, initialize_config_dir
    from hydra.core.config_store import ConfigStore
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException, MissingConfigException, OverrideParseException
    from omegaconf import DictConfig, OmegaConf
    from omegaconf.errors import (
        ConfigAttributeError,
        ConfigKeyError,
        MissingMandatoryValue,
        OmegaConfBaseException,
        ValidationError,
    )
except ModuleNotFoundError as missing:
    raise ModuleNotFoundError(
        f"{missing.name} is not installed; pip install '.[train]'", name=missing.name
    ) from missing

CONFIGS = Path(configs.__path__[0])
SHARED = "pkg://configs.shared"


def launch(
    job: Callable[[Any], object],
    kit: Kit,
    verb: str,
    *,
    arguments: Sequence[str] | None = None,
    config_dir: Path | None = None,
) -> None:
    """Check the configuration named by the command line and run the job with it.

    Args:
        job: called with the verb's dataclass; imports inside what is slow to import.
        kit: supplies the dataclasses of the verbs and of the config groups.
        verb: "train", "evaluate", ...: the key in `kit.schemas` and the YAML file's name.
        arguments: command line without the program's name; `sys.argv` if None.
        config_dir: folder of the kit's YAML files; `configs/<kit.name>` if None.

    Raises:
        SystemExit: code 0 after --help, code 2 with one line on stderr after a mistake.
    """
    flags = _parser(kit, verb).parse_intermixed_args(arguments)
    composer = _Composer(kit, verb, config_dir or CONFIGS / kit.name)
    try:
        runs = [composer.run(overrides) for overrides in composer.combinations(flags)]
        if not flags.help:
            built = [composer.build(run) for run in runs]
    except (ValueError, HydraException, OmegaConfBaseException) as error:
        print(f"error: {composer.explain(error)}", file=sys.stderr)
        raise SystemExit(2) from None
    if flags.help:
        print(composer.help(runs[0]), end="")
        raise SystemExit(0)
    for number, (run, cfg) in enumerate(zip(runs, built, strict=True), start=1):
        if len(runs) > 1:
            print(f"run {number} of {len(runs)}: {' '.join(run.overrides)}", flush=True)
        if flags.cfg:
            print(OmegaConf.to_yaml(run.node), end="")
        else:
            job(cfg)


def _program(kit: Kit, verb: str) -> str:
    return f"python -m kits.{kit.name}.{verb}"


def _parser(kit: Kit, verb: str) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(_program(kit, verb), add_help=False)
    parser.add_argument("overrides", nargs="*", metavar="group=option|key=value")
    parser.add_argument("--help", "-h", action="store_true")
    parser.add_argument("--cfg", "-c", choices=["job"])
    parser.add_argument("--multirun", "-m", action="store_true")
    return parser


@dataclasses.dataclass(frozen=True)
class _Run:
    overrides: list[str]
    node: DictConfig
    chosen: dict[str, str | None]  # group -> option


class _Composer:
    """Hydra's composition of one verb of one kit, and its errors in our words."""

    def __init__(self, kit: Kit, verb: str, config_dir: Path) -> None:
        self._verb = verb
        self._usage = _program(kit, verb)
        self._config_dir = config_dir.resolve()
        self._schema = kit.schemas[verb]
        self._groups = kit.groups
        self._options = _options(kit, self._config_dir)
        self._schemas = Schemas()
        store = ConfigStore.instance()
        twin = self._schemas.convert(self._schema, left_open=kit.groups)
        store.store(name=f"{verb}_schema", node=twin)
        for group, classes in kit.groups.items():
            for option, cls in classes.items():
                store.store(group=group, name=option, node=self._schemas.convert(cls))

    def combinations(self, flags: argparse.Namespace) -> Iterator[list[str]]:
        """Overrides of each run: of one, or with --multirun of every combination of `key=a,b`."""
        choices = []
        for override in OverridesParser.create().parse_overrides(flags.overrides):
            key, line = override.get_key_element(), str(override.input_line)
            if override.is_sweep_override():
                if not flags.multirun:
                    raise ValueError(
                        f"{line} names several values; "
                        "choose one, add --multirun, or write a list as key=[a,b]"
                    )
                choices.append([f"{key}={value}" for value in override.sweep_string_iterator()])
                continue
            if key in self._options and not isinstance(override.value(), str):
                raise ValueError(f"{line} is not an option; choose one of {self._legal(key)}")
            choices.append([line])
        yield from (list(run) for run in itertools.product(*choices))

    def run(self, overrides: list[str]) -> _Run:
        """Compose one configuration; the shared groups lie beside the kit's own."""
        shared = f"hydra.searchpath=[{SHARED}]"
        with initialize_config_dir(str(self._config_dir), version_base="1.3"):
            node = compose(self._verb, [shared, *overrides], return_hydra_config=True)
        chosen = {
            group: option
            for group, option in node.hydra.runtime.choices.items()
            if not group.startswith("hydra/")
        }
        OmegaConf.set_struct(node, value=False)
        del node["hydra"]
        return _Run(overrides, node, chosen)

    def build(self, run: _Run) -> Any:
        """Make the verb's dataclass, which runs every remaining check."""
        return self._schemas.build(self._schema, run.node, OmegaConf.get_type)

    def help(self, run: _Run) -> str:
        """Groups with their options, then every key with its value, type and comment."""
        lines = [f"usage: {self._usage} [group=option ...] [key=value ...]"]
        lines += ["       --cfg job prints the configuration, --multirun tries every key=a,b"]
        lines += ["", "Groups, the choice in brackets:"]
        for group, choice in sorted(run.chosen.items()):
            options = ["null", *self._options.get(group, [])]
            legal = [f"[{name}]" if name == (choice or "null") else name for name in options]
            lines.append(f"  {group:12}  {' '.join(legal if choice is None else legal[1:])}")
        lines += ["", "Keys, with value and type:"]
        keys = list(self._keys(self._schema, run.node, ""))
        width = min(44, max(len(setting) for setting, _, _ in keys))
        lines += [
            f"  {setting:{width}}  {kind}".ljust(width + 14) + f"  {note}".rstrip()
            for setting, kind, note in keys
        ]
        return "\n".join(line.rstrip() for line in lines) + "\n"

    def _keys(self, cls: type, node: Any, prefix: str) -> Iterator[tuple[str, str, str]]:
        hints, notes = typing.get_type_hints(cls), comments(cls)
        for name in node:
            is_missing = OmegaConf.is_missing(node, name)
            nested = self._schemas.original(OmegaConf.get_type(node, name), otherwise=object)
            if nested is not object and not is_missing:
                yield from self._keys(nested, node[name], f"{prefix}{name}.")
            else:
                value = "???" if is_missing else _plain(node[name])
                yield f"{prefix}{name}={value}", type_name(hints[name]), notes.get(name, "")

    def explain(self, error: BaseException) -> str:
        """One line in our error style: what was seen, the rule, what to do."""
        cause = _root(error)
        if isinstance(cause, MissingConfigException):
            group, _, option = (cause.missing_cfg_file or "").rpartition("/")
            return f"{group}={option} is not an option; choose one of {self._legal(group)}"
        if isinstance(cause, OverrideParseException):
            return f"{cause.override!r} is not of the form key=value; quote special characters"
        if not isinstance(cause, OmegaConfBaseException):
            return " ".join(str(cause).split())
        file = re.match("In '(.+?)'", str(error))
        where = f" (in {file[1]}.yaml)" if file else ""
        if isinstance(cause, ConfigKeyError | ConfigAttributeError):
            return self._unknown(str(cause.full_key), cause.object_type) + where
        if isinstance(cause, MissingMandatoryValue):
            legal = self._legal(str(cause.full_key))
            advice = f"choose one of {legal}" if legal else f"add {cause.full_key}=..."
            return f"{cause.full_key} is not set; {advice}"
        if isinstance(cause, ValidationError):
            return self._mistyped(str(cause.full_key), cause.value) + where
        return str(cause).partition("\n")[0] + f"; set {cause.full_key} otherwise" + where

    def _legal(self, group: str) -> str:
        return ", ".join(self._options.get(group, []))

    def _unknown(self, key: str, found_in: Any) -> str:
        parent, _, leaf = key.rpartition(".")
        keys = sorted({*self._hints(), *self._options})
        under = [name.removeprefix(f"{parent}.") for name in keys if name.startswith(f"{parent}.")]
        legal = sorted({name.split(".")[0] for name in under or keys})
        if parent and dataclasses.is_dataclass(found_in):
            # Of a group with several options, the keys of the chosen one.
            legal = sorted(field.name for field in dataclasses.fields(found_in))
        if under:
            near = [f"{parent}.{name}" for name in difflib.get_close_matches(leaf, legal, n=1)]
        else:
            near = [name for name in keys if name.split(".")[-1] == leaf]
            near += difflib.get_close_matches(key, [*keys, *legal], n=1)
        advice = f"did you mean {near[0]}?" if near else "see --help"
        return f"{key} is not a key, {parent or self._verb} has {', '.join(legal)}; {advice}"

    def _mistyped(self, key: str, value: object) -> str:
        hint = self._hints().get(key.partition("[")[0])
        if isinstance(hint, enum.EnumMeta):
            rule = f"one of {', '.join(hint.__members__)}"
        else:
            rule = f"of type {type_name(hint)}"
        return f"{key}={value!r} is not {rule}; set {key}"

    def _hints(self) -> dict[str, Any]:
        """The type of every key that any choice of options can have."""

        def below(cls: type, prefix: str) -> Iterator[tuple[str, Any]]:
            for name, hint in typing.get_type_hints(cls).items():
                options = [] if prefix else [*self._groups.get(name, {}).values()]
                nested = [part for part in options or [hint] if dataclasses.is_dataclass(part)]
                for part in nested:
                    yield from below(part, f"{prefix}{name}.")
                if not nested:
                    yield f"{prefix}{name}", hint

        return dict(below(self._schema, ""))


def _root(error: BaseException) -> BaseException:
    """OmegaConf's error, which knows the key, from inside Hydra's."""
    inner: BaseException | None = error
    while inner is not None and not isinstance(inner, OmegaConfBaseException):
        inner = inner.__cause__ or inner.__context__
    return inner or error


def _plain(value: Any) -> str:
    if isinstance(value, enum.Enum):
        return value.name
    words = {None: "null", True: "true", False: "false"}
    return words[value] if value is None or isinstance(value, bool) else str(value)


def _options(kit: Kit, config_dir: Path) -> dict[str, list[str]]:
    """Options of each config group: the kit's dataclasses and every YAML file."""
    found: dict[str, set[str]] = {group: set(classes) for group, classes in kit.groups.items()}
    for file in (*config_dir.glob("*/*.yaml"), *(CONFIGS / "shared").glob("*/*.yaml")):
        found.setdefault(file.parent.name, set()).add(file.stem)
    return {group: sorted(options) for group, options in sorted(found.items())}
