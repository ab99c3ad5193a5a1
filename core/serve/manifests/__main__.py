"""Write manifests: `python -m core.serve.manifests MODEL... --image IMAGE | kubectl apply -f -`.

The image is one with Python and `pip install 'deepkits[serve]'`; the models lie in a volume under
their file names. No image is part of this project, and nothing here was tried in a cluster.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn, get_args, get_type_hints

import yaml  # type: ignore[import-untyped]

from core.serve.manifests import kserve, monitoring, objects
from core.serve.manifests.plan import INSTANCE, Object, Plan
from core.serve.model import parse_model

PROGRAM = "python -m core.serve.manifests"
# Whoever applies the manifests has these; secrets are in no file.
NEEDED = """\
# Needs a Secret with the tokens, and with the one of them that Prometheus uses:
#   kubectl create secret generic {secret} --from-file=tokens=TOKENS --from-literal=metrics=TOKEN
"""
NEEDED_TRUST = """\
# Needs the root of those who may sign bundles:
#   kubectl create configmap {name}-trust --from-file=root.json
"""


def build(plan: Plan) -> list[Object]:
    """All objects of a plan, in an order in which they can be applied."""
    if plan.kind == "kserve":
        pods, job = {kserve.LABEL: plan.name}, kserve.LABEL
        made = [kserve.serving_runtime(plan), kserve.inference_service(plan)]
    else:
        pods, job = plan.labels, INSTANCE
        is_hpa = plan.autoscaler == "hpa"
        scaler = objects.horizontal_pod_autoscaler if is_hpa else objects.scaled_object
        made = [objects.deployment(plan), objects.service(plan), scaler(plan)]
    made += [objects.pod_disruption_budget(plan, pods), objects.network_policy(plan, pods)]
    if plan.monitoring:
        made += [monitoring.pod_monitor(plan, pods, job), monitoring.prometheus_rule(plan)]
    return made


def to_yaml(made: Object) -> str:
    """The same text for the same object."""
    # Through JSON: parts that stand in two places would become anchors, which nobody reads.
    plain = json.loads(json.dumps(made))
    text: str = yaml.safe_dump(plain, sort_keys=False, width=100, allow_unicode=True)
    return text


class _Parser(argparse.ArgumentParser):
    """Tells a mistake in one line."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"error: {message}; see {PROGRAM} --help\n")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        PROGRAM,
        description=" ".join(__doc__.split()),
        argument_default=argparse.SUPPRESS,
        allow_abbrev=False,
    )
    parser.add_argument("models", nargs="+", metavar="[NAME[@VERSION]=]FILE")
    parser.add_argument("--out", type=Path, help="folder for one file each; none: stdout")
    hints = get_type_hints(Plan)
    for field in dataclasses.fields(Plan):
        flag, hint = f"--{field.name.replace('_', '-')}", hints[field.name]
        default = (
            "" if field.default in ("", dataclasses.MISSING) else f"(default: {field.default})"
        )
        if field.name == "models":
            continue
        if hint is bool:
            parser.add_argument(flag, action="store_true")
        elif choices := get_args(hint):
            parser.add_argument(flag, choices=choices, help=default)
        else:
            parser.add_argument(flag, type=hint, required=field.name == "image", help=default)
    return parser


def read_plan(given: dict[str, Any]) -> Plan:
    """A plan from a parsed command line.

    Raises:
        ValueError: a value is wrong, or a model is not there.
    """
    models = tuple(parse_model(text) for text in given.pop("models"))
    name = re.sub(r"[^a-z0-9]+", "-", models[0].name.lower()).strip("-")[:40].rstrip("-")
    return Plan(**{"name": name, **given, "models": models})


def main(arguments: Sequence[str] | None = None) -> None:
    """Write the manifests.

    Raises:
        SystemExit: 2 with one line on stderr after a mistake.
    """
    given = vars(_parser().parse_args(arguments))
    folder = given.pop("out", None)
    try:
        plan = read_plan(given)
        texts = {f"{made['kind'].lower()}.yaml": to_yaml(made) for made in build(plan)}
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(2) from None
    needed = (NEEDED + NEEDED_TRUST if plan.needs_trust else NEEDED).format(
        secret=plan.secret, name=plan.name
    )
    if folder is None:
        print(needed + "---\n" + "---\n".join(texts.values()), end="")
        return
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in texts.items():
        (folder / name).write_text(text, encoding="utf-8")
    print(needed, end="")


if __name__ == "__main__":
    main()
