"""Show what is in a bundle: `python -m edge.inspect FILE [--html PAGE]`.

The bundle is verified first; no model is loaded and nothing in it runs.
"""

from __future__ import annotations

import argparse
import json
import shlex
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from edge.arrays import read_npz
from edge.bundle import Bundle
from edge.page import Badge, Bar, Code, Number, Section, Table, write_page
from edge.pipeline import POST, PRE
from edge.selftest import VECTORS
from edge.table import format_table, printable
from edge.target import STATES_WITH_LATENCY, Target
from edge.trust import Root, Trust, utc

PARITY, COMPRESSION = "reports/parity.json", "reports/compression.json"
SBOM, PROVENANCE, CONFIG = "sbom.cdx.json", "provenance.json", "config/default.json"
MEANING = {
    "verified": "ran on this kind of device, outputs compared",
    "emulated": "ran under an emulator of the device: outputs compared, no speed known",
    "built": "the engine was built and never ran: neither error nor speed is known",
    "contract-only": "only the recipe exists, the device builds: neither error nor speed is known",
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Print tables, or write a page; 1 and one line on stderr when the bundle is refused."""
    parser = argparse.ArgumentParser("python -m edge.inspect", description="Show a bundle.")
    parser.add_argument("bundle", type=Path, help="an .ebundle, or a folder with the same files")
    parser.add_argument("--html", type=Path, help="write a page there: one file, no scripts")
    parser.add_argument("--trust", type=Path, help="folder; $DEEPKITS_HOME or ~/.config/deepkits")
    parser.add_argument("--arch", help="of the device it is for; default: this machine's")
    options = parser.parse_args(arguments)
    try:
        trust = Trust.load(options.trust)
        bundle = Bundle.open(options.bundle, trust, arch=options.arch)
        sections = list(describe(bundle, trust.root))
        if options.html:
            title = f"{bundle.manifest.name} {bundle.manifest.version}"
            write_page(options.html, title, bundle.manifest.intended_use, sections)
            print(f"written   {options.html}")
        else:
            print("\n\n".join(section_text(section) for section in sections))
    except (ValueError, OSError) as error:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        return 1
    return 0


def section_text(section: Section) -> str:
    """A section for the terminal."""
    parts = [f"{section.title}\n{'=' * len(section.title)}"]
    if section.text:
        parts.append(printable(section.text))
    facts = [(printable(name), printable(value)) for name, value in section.facts]
    width = max((len(name) for name, _ in facts), default=0)
    parts += [f"{name:{width}}  {value}" for name, value in facts]
    for table in section.tables:
        head = [f"{table.title}:"] if table.title else []
        parts.append("\n".join([*head, format_table(table.head, table.rows)]))
    return "\n".join(parts)


def describe(bundle: Bundle, root: Root) -> Iterator[Section]:
    """Everything in a verified bundle, for people, part by part."""
    yield _manifest(bundle)
    yield _signers(bundle, root)
    yield _targets(bundle)
    yield _tensors(bundle)
    yield _steps(bundle)
    yield _self_test(bundle)
    for path, section in (
        (PARITY, _parity),
        (COMPRESSION, _compression),
        (CONFIG, _config),
        (SBOM, _sbom),
        (PROVENANCE, _provenance),
    ):
        if path in bundle.files:
            yield section(_read(bundle, path))
    yield _files(bundle)


def _manifest(bundle: Bundle) -> Section:
    manifest = bundle.manifest
    needs, size = manifest.requires, bundle.num_bytes
    return Section(
        "Bundle",
        f"Every one of its {len(bundle.files)} files has the hash that the signed manifest says.",
        facts=(
            ("name", f"{manifest.name} {manifest.version}"),
            ("channel", manifest.channel),
            ("made", utc(manifest.created)),
            ("expires", "never" if manifest.expires is None else utc(manifest.expires)),
            ("rollback index", str(manifest.rollback_index)),
            ("runtime", f"{manifest.min_runtime} or newer"),
            ("needs", f"{needs.memory_mib} MiB of memory, {needs.disk_mib} MiB of disk"),
            ("size", f"{format_bytes(size)}, {len(bundle.files)} files"),
            ("model", Code(manifest.model)),
            ("licence", manifest.license),
            ("intended use", manifest.intended_use),
        ),
    )


def _signers(bundle: Bundle, root: Root) -> Section:
    signers = bundle.manifest.signers
    rows = tuple(
        (Code(id_), Badge("trusted" if id_ in root.keys else "not trusted"), Code(public))
        for id_, public in sorted(signers.items())
    )
    return Section(
        "Signers and trust",
        f"Root version {root.version} of this device: signatures needed {root.threshold} of "
        f"{len(root.keys)}, found {len(set(signers) & set(root.keys))}.",
        tables=(Table(("key", "here", "public key, ed25519"), rows),),
    )


def _targets(bundle: Bundle) -> Section:
    head = ("target", "state", "for", "runtime", "precision", "allowed error", "loads")
    rows = tuple(
        (
            target.id,
            Badge(target.state),
            f"{target.arch}, {target.accelerator}",
            f"{target.backend} {target.runtime}".strip(),
            target.precision,
            _allowed(target),
            Code(target.model),
        )
        for target in bundle.targets.values()
    )
    found = {target.state for target in bundle.targets.values()}
    recipes = tuple(
        (target.id, Code(command))
        for target in bundle.targets.values()
        for command in dict.fromkeys(_commands(target.recipe or {}))
    )
    tables = [
        Table(head, rows),
        Table(
            ("state", "what it means"),
            tuple((Badge(state), text) for state, text in MEANING.items() if state in found),
        ),
    ]
    if recipes:
        tables.append(Table(("target", "recipe"), recipes, "How devices build their engines"))
    return Section("Targets", "In the order in which a device tries them.", tables=tuple(tables))


def _tensors(bundle: Bundle) -> Section:
    rows = tuple(
        (kind, tensor.name, tensor.dtype, " x ".join(map(str, tensor.shape)) or "one value")
        for kind, tensors in (("in", bundle.manifest.inputs), ("out", bundle.manifest.outputs))
        for tensor in tensors
    )
    table = Table(("", "name", "type", "shape"), rows)
    return Section("Inputs and outputs", "Named axes may have any size.", tables=(table,))


def _steps(bundle: Bundle) -> Section:
    tables = []
    for title, path in (("Before the model", PRE), ("After the model", POST)):
        steps = _read(bundle, path) if path in bundle.files else []
        rows = tuple(
            (
                str(at),
                str(step.get("op", "")),
                _short(step.get("input", "")),
                _short(step.get("output", step.get("input", ""))),
                Code(_short({k: v for k, v in step.items() if k not in ("op", "input", "output")})),
            )
            for at, step in enumerate(_mappings(steps), 1)
        )
        if rows:
            tables.append(Table(("", "step", "reads", "writes", "parameters"), rows, title))
    text = "" if tables else "The model takes the inputs and gives the outputs as they are."
    return Section("Steps", text, tables=tuple(tables))


def _self_test(bundle: Bundle) -> Section:
    rows = []
    for name, array in sorted(read_npz(bundle.read(VECTORS)).items()):
        values = array[np.isfinite(array)] if array.dtype.kind in "fiu" else array[:0]
        extent = f"{values.min():.4g} to {values.max():.4g}" if values.size else ""
        if 0 < values.size < array.size:
            extent += ", and some not finite"
        shape = " x ".join(map(str, array.shape))
        rows.append((name, str(array.dtype), shape, extent))
    table = Table(("array", "type", "shape", "values"), tuple(rows))
    return Section(
        "Self-test",
        "Run after every load, on the device: golden float32 outputs, held to the target's "
        "allowed error.",
        tables=(table,),
    )


def _parity(report: Any) -> Section:
    rows = []
    for entry in _mappings(_get(report, "targets")):
        parity = _get(entry, "parity")
        cases = _mappings(_get(parity, "cases"))
        outputs = [output for case in cases for output in _mappings(_get(case, "outputs"))]
        largest = [v for o in outputs if isinstance(v := o.get("max_absolute"), int | float)]
        times = [v for o in outputs if isinstance(v := o.get("violation"), int | float)]
        rows.append(
            (
                str(_get(entry, "id")),
                Badge(_get(entry, "verdict")),
                Number(len(cases) if cases else "–"),
                Number(f"{max(largest):.2g}" if largest else "–"),
                Bar(f"{max(times):.2g}", max(times)) if times else "–",
            )
        )
    head = ("target", "verdict", "shapes", "largest error", "times allowed")
    return Section(
        "Parity",
        "Against the source model in float32, over swept shapes. 1 times allowed is the limit.",
        tables=(Table(head, tuple(rows)),),
    )


def _compression(report: Any) -> Section:
    reports = report if isinstance(report, list) else [report]
    tables, facts = [], []
    for each in _mappings(reports):
        rows = _mappings(_get(each, "table"))
        head = tuple(dict.fromkeys(key for row in rows for key in row))
        cells = tuple(tuple(_measured(row, key) for key in head) for row in rows)
        if head:
            tables.append(Table(head, cells, "Before and after, on the machine that compressed"))
        facts += [
            (str(k), _short(v)) for k, v in each.items() if k != "table" and v not in ([], "")
        ]
    return Section("Compression", "", facts=tuple(facts), tables=tuple(tables))


def _measured(row: Mapping[str, Any], key: str) -> str:
    value = row.get(key, "")
    if key == "bytes" and isinstance(value, int):
        return Number(format_bytes(value))
    if isinstance(value, Mapping):  # a number for each batch
        return Number(", ".join(f"{name}: {_short(each)}" for name, each in value.items()))
    return Number(_short(value)) if isinstance(value, int | float) else _short(value)


def _config(content: Any) -> Section:
    text = "" if content else "There is nothing to configure."
    return Section("Default configuration", text, tables=_listed(content))


def _sbom(content: Any) -> Section:
    rows = []
    for component in _mappings(_get(content, "components")):
        licences = [
            str(_get(_get(item, "license"), "id") or _get(_get(item, "license"), "name") or "")
            or str(_get(item, "expression") or "")
            for item in _mappings(component.get("licenses"))
        ]
        rows.append(
            (
                str(component.get("name", "")),
                str(component.get("version", "")),
                str(component.get("type", "")),
                ", ".join(filter(None, licences)),
            )
        )
    table = Table(("component", "version", "type", "licence"), tuple(rows))
    text = f"CycloneDX {_get(content, 'specVersion') or ''}: {len(rows)} components."
    return Section("Bill of materials", text, tables=(table,))


def _provenance(content: Any) -> Section:
    return Section("Provenance", "What the model was made from.", tables=_listed(content))


def _files(bundle: Bundle) -> Section:
    files = bundle.manifest.files
    largest = max(file.size for file in files.values()) or 1
    rows = tuple(
        (
            Code(name),
            file.role,
            Bar(format_bytes(file.size), file.size / largest),
            Code(file.sha256),
        )
        for name, file in sorted(files.items())
    )
    head = ("file", "role", "size", "sha256")
    return Section("Files", "Compared with these hashes just now.", tables=(Table(head, rows),))


def format_bytes(size: int) -> str:
    """A size for people."""
    if size < 1024:
        return f"{size} B"
    return f"{size / 1024:.1f} KiB" if size < 1 << 20 else f"{size / (1 << 20):.1f} MiB"


def _allowed(target: Target) -> str:
    tolerance = target.tolerance
    words = f"{tolerance.absolute:g} + {tolerance.relative:g} of the value"
    # What an error is allowed to be says nothing of a target that never ran.
    return words if target.state in (*STATES_WITH_LATENCY, "emulated") else f"{words}, not compared"


def _read(bundle: Bundle, path: str) -> Any:
    try:
        return json.loads(bundle.read(path))
    except (json.JSONDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ValueError(f"{path} is not JSON ({error}); pack the bundle again") from None


def _get(content: Any, key: str) -> Any:
    return content.get(key) if isinstance(content, Mapping) else None


def _mappings(content: Any) -> list[Mapping[str, Any]]:
    items = content if isinstance(content, list | tuple) else []
    return [item for item in items if isinstance(item, Mapping)]


def _commands(recipe: Any) -> Iterator[str]:
    """The commands of a recipe, however deep they lie."""
    items = recipe.items() if isinstance(recipe, Mapping) else enumerate(recipe)
    for key, value in items:
        if isinstance(value, list) and value and all(isinstance(word, str) for word in value):
            if key == "argv" or not isinstance(key, str):
                yield shlex.join(value)
        elif isinstance(value, list | Mapping):
            yield from _commands(value)


def _short(value: Any, limit: int = 300) -> str:
    if isinstance(value, float):
        return f"{value:.6g}"
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    if text in ("{}", "[]", "null"):
        return ""
    return text if len(text) <= limit else f"{text[:limit]}… ({len(text)} characters)"


def _listed(content: Any) -> tuple[Table, ...]:
    rows = tuple((Code(name), Code(value)) for name, value in _flat(content)) if content else ()
    return (Table(("key", "value"), rows),) if rows else ()


def _flat(content: Any, prefix: str = "") -> Iterator[tuple[str, str]]:
    if isinstance(content, Mapping) and content:
        for key, value in content.items():
            yield from _flat(value, f"{prefix}.{key}" if prefix else str(key))
    else:
        yield prefix or "value", _short(content) or "none"


if __name__ == "__main__":
    sys.exit(main())
