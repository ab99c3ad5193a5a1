"""The report's numbers as rows and text, for the page and for the terminal."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rich import box
from rich.markup import escape
from rich.table import Table

from kits.fraud.metrics import MAX_FPR, TOP_K

_AT = f"at_fpr_{MAX_FPR:g}"
RECALL, DETECTABLE = f"recall_{_AT}", f"detectable_recall_{_AT}"


@dataclass(frozen=True)
class Column:
    """One metric as a column of the tables."""

    key: str
    title: str
    short: str  # for the terminal
    percent: bool = False
    best: str = "highest"  # or "lowest", or "" where no value is better


COLUMNS = (
    Column("ap", "AP", "AP"),
    Column("auc", "AUC", "AUC"),
    Column(f"cp_at_{TOP_K}", f"CP@{TOP_K}", f"CP@{TOP_K}"),
    Column(DETECTABLE, "Recall, detectable", "detect.", percent=True),
    Column(RECALL, "Recall", "recall", percent=True),
    Column(f"value_recall_{_AT}", "Recall by value", "value", percent=True),
    Column("fpr_test", "FPR on test", "FPR", percent=True, best=""),
    Column("ece", "Calibration error", "ECE", percent=True, best="lowest"),
)


CAPTIONS = {  # of the groups of rows below the comparable ones
    "control": "Controls: our model with a part removed or broken",
    "window": "Short training window: the book’s own seven days",
    "published": "Published figures",
    "oracle": "Upper bound: the truth, as far as a trace of it was visible",
}


@dataclass(frozen=True)
class Cell:
    """A number as the tables show it."""

    text: str = "–"
    interval: str = ""
    is_best: bool = False


@dataclass(frozen=True)
class Row:
    """A model's line in a table."""

    name: str
    role: str
    description: str
    cells: Sequence[Cell]


def comparison_table(
    metrics: Mapping[str, float],
    references: Sequence[Mapping[str, Any]] = (),
    *,
    primary: str = "this model",
) -> Table:
    """The report's first table for a terminal of 80 columns, with the same rows."""
    table = Table(
        box=box.SIMPLE_HEAD,
        caption=f"recalls at a false positive rate of {percent(MAX_FPR)}, threshold from "
        "validation; detect.: recall of detectable fraud",
        caption_justify="left",
        collapse_padding=True,
        pad_edge=False,
    )
    table.add_column("model", overflow="fold")
    for column in COLUMNS:
        table.add_column(column.short, justify="right", no_wrap=True)
    role = "primary"
    for row in comparison_rows(metrics, references, primary=primary):
        if row.role != role:
            table.add_section()
            if row.role in CAPTIONS:
                table.add_row(f"[dim]{CAPTIONS[row.role].partition(':')[0]}[/dim]")
        role = row.role
        cells = [cell.text.replace(" %", "%") for cell in row.cells]
        marked = [
            f"[bold]{text}[/bold]" if cell.is_best else text
            for text, cell in zip(cells, row.cells, strict=True)
        ]
        name = escape(printable(row.name))
        table.add_row(f"[bold cyan]{name}[/bold cyan]" if role == "primary" else name, *marked)
    return table


def comparison_rows(
    metrics: Mapping[str, float],
    references: Sequence[Mapping[str, Any]] = (),
    *,
    primary: str = "this model",
    descriptions: Mapping[str, str] | None = None,
) -> list[Row]:
    """Our model, baselines, controls, other windows, published rows and the bound, in this order.

    The best value of each column among our model and the baselines is marked: the other rows
    differ in their data or know more.
    """
    named = [("primary", primary, "")]
    for role in ("baseline", "control", "window"):
        names = [
            key.removeprefix(f"{role}.").removesuffix(".ap")
            for key in metrics
            if key.startswith(f"{role}.") and key.endswith(".ap") and key.count(".") == 2
        ]
        named += [(role, name, f"{role}.{name}.") for name in names]
    values = [
        (role, name, {c.key: metrics.get(p + c.key) for c in COLUMNS}, p) for role, name, p in named
    ]
    best = {column.key: _best(column, values) for column in COLUMNS}
    rows = []
    for role, name, found, prefix in values:
        cells = []
        for column in COLUMNS:
            text = format_value(found[column.key], column)
            marked = role in ("primary", "baseline") and text == best[column.key]
            cells.append(Cell(text, interval(metrics, prefix + column.key, column), marked))
        rows.append(Row(name, role, (descriptions or {}).get(name, ""), cells))
    rows += [_plain_row("published", str(entry["name"]), entry) for entry in references]
    if "oracle.ap" in metrics:
        known = {column.key: metrics.get(f"oracle.{column.key}") for column in COLUMNS}
        known["fpr_test"] = None
        rows.append(_plain_row("oracle", "upper bound", known))
    return rows


def number(value: float | None) -> str:
    """Three decimals."""
    return "–" if value is None else f"{value:.3f}"


def percent(value: float | None, digits: int | None = None) -> str:
    """A share as a percentage with one decimal, two below 2 %, or as many as asked for."""
    if value is None:
        return "–"
    shown = digits if digits is not None else 2 if abs(value) < 0.02 else 1
    return f"{100 * value:.{shown}f} %"


def signed(value: float) -> str:
    """Three decimals and a sign, with a true minus."""
    return f"{value:+.3f}".replace("-", "−")


def _best(column: Column, values: Sequence[tuple[str, str, Mapping[str, Any], str]]) -> str | None:
    """The winning text of a column: equal as printed is equally good."""
    known = [
        found[column.key]
        for role, _, found, _ in values
        if role in ("primary", "baseline") and found[column.key] is not None
    ]
    if len(known) < 2 or not column.best:
        return None
    return format_value(max(known) if column.best == "highest" else min(known), column)


def _plain_row(role: str, name: str, values: Mapping[str, Any]) -> Row:
    cells = [Cell(format_value(values.get(column.key), column)) for column in COLUMNS]
    return Row(name, role, str(values.get("description", "")), cells)


def format_value(value: float | None, column: Column) -> str:
    """A value as its column shows it."""
    return percent(value) if column.percent else number(value)


def interval(metrics: Mapping[str, float], key: str, column: Column) -> str:
    """The 95 % interval of a key as "low–high", empty where there is none."""
    low, high = metrics.get(f"{key}.low"), metrics.get(f"{key}.high")
    if low is None or high is None:
        return ""
    return f"{format_value(low, column).removesuffix(' %')}–{format_value(high, column)}"


def printable(text: str) -> str:
    """Text without control characters, which no page or terminal should get from a data file."""
    return "".join(c if c.isprintable() or c in "\n\t" else "\ufffd" for c in text)
