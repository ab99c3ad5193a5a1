"""The report as pages for people: A4, one language, fonts embedded, the same bytes each time."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

from reportlab import rl_config
from reportlab.lib.pagesizes import A4
from reportlab.lib.units import mm
from reportlab.pdfgen.canvas import Canvas
from reportlab.platypus import Flowable, KeepTogether, SimpleDocTemplate, Spacer, Table, TableStyle

from kits.medical.geometry import Volume
from kits.medical.results.pdf_page import BAR, MARGIN, WIDTH, PageCanvas, date, joined, number
from kits.medical.results.pdf_pictures import Cut, cut
from kits.medical.results.pdf_text import (
    FAINT,
    PLAIN,
    RULE,
    SHADE,
    Typesetter,
)
from kits.medical.results.study import Growth, Nodule, Study
from kits.medical.results.wording import Wording, wording

# Streams as text would be a quarter larger, and take longer than all the rest of the page.
rl_config.useA85 = 0

PADDING = [
    ("FONT", (0, 0), (-1, -1), PLAIN),
    ("LEFTPADDING", (0, 0), (-1, -1), 0),
    ("RIGHTPADDING", (0, 0), (-1, -1), 3),
    ("TOPPADDING", (0, 0), (-1, -1), 1.5),
    ("BOTTOMPADDING", (0, 0), (-1, -1), 1.5),
]
CUT_MM = 36.0


def write_pdf(study: Study, volume: Volume, language: str, path: Path) -> Path:
    """Write the report in one language.

    Args:
        study: what is reported.
        volume: the scan, for the pictures.
        language: en or zh.
        path: of the PDF.

    Raises:
        ValueError: there is no such language, or no font for what it needs.
    """
    pages = _Pages(study, volume, wording(language), Typesetter(language))
    top = (2 if study.is_phantom else 1) * BAR + 8 * mm
    document = SimpleDocTemplate(
        str(path),
        pagesize=A4,
        leftMargin=MARGIN,
        rightMargin=MARGIN,
        topMargin=top,
        bottomMargin=13 * mm,
        title=wording(language)("report.title"),
        author="deepkits",
        lang="zh-CN" if language == "zh" else "en",
        initialFontName=PLAIN,
        invariant=1,
    )
    document.build(pages.story(), canvasmaker=pages.canvas)
    return path


class _Pages:
    """The content of one PDF."""

    def __init__(self, study: Study, volume: Volume, say: Wording, setter: Typesetter) -> None:
        self._study, self._volume, self._say, self._setter = study, volume, say, setter

    def story(self) -> list[Flowable]:
        """Everything, from top to bottom."""
        study, say = self._study, self._say
        story: list[Flowable] = [self._text(say("report.title"), "title"), self._facts()]
        story += self._summary()
        if study.nodules:
            story += [self._heading("report.table.title"), self._table()]
        for nodule in study.nodules:
            story.append(KeepTogether(self._nodule(nodule)))
        story += self._list("report.limits.title", study.not_detectable.lines[say.language])
        story += self._list("report.notes.title", study.notes.get(say.language, ()))
        rules = [
            say(
                "report.rules.text",
                rule_set=each.rule_set,
                version=each.version,
                source=each.source,
                not_judged=each.rationale[say.language][-1],
            )
            for each in study.categories
        ]
        story += self._list("report.rules.title", rules)
        story += self._list("report.model.title", [self._model()])
        return [*story, KeepTogether(self._signature())]

    def canvas(self, *args: object, **kwargs: object) -> Canvas:
        """A canvas that knows how many pages there are when it writes the last."""
        return PageCanvas(self._study, self._say, self._setter, *args, **kwargs)

    def _text(self, text: str, kind: str = "text") -> Flowable:
        return self._setter.paragraph(text, kind)

    def _heading(self, key: str) -> Flowable:
        return self._text(self._say(key), "heading")

    def _list(self, key: str, lines: Sequence[str]) -> list[Flowable]:
        if not lines:
            return []
        return [self._heading(key), *(self._text(line, "small") for line in lines)]

    def _facts(self) -> Table:
        study, say = self._study, self._say
        source, grid, person = study.source, study.grid, study.person
        none = say("report.none")

        def named(value: bool | None) -> str:
            return (
                say("report.facts.unknown")
                if value is None
                else say("report.yes" if value else "report.no")
            )

        acquisition = say(
            "report.facts.acquisition_text",
            slices=grid.shape[0],
            thickness=number(source.slice_thickness_mm) or none,
            spacing=number(grid.spacing_mm[0]),
            pixel=number(grid.spacing_mm[2]),
            kernel=source.kernel or none,
            kv=number(source.tube_kv) or none,
        )
        given = say(
            "report.facts.person_text",
            setting=say(f"report.facts.{person.setting}"),
            risk=say(f"report.facts.{person.risk}"),
            cancer=named(person.cancer),
            immunosuppressed=named(person.immunosuppressed),
        )
        entries = [
            ("patient", source.patient_name.replace("^", " ").strip()),
            ("patient_id", source.patient_id),
            ("birth", joined(date(source.birth_date), source.sex, source.age)),
            ("study", joined(date(source.study_date), source.study_description)),
            ("accession", source.accession_number),
            ("institution", source.institution),
            ("series", joined(source.series_number, source.series_description)),
            ("scanner", joined(source.manufacturer, source.scanner)),
            ("acquisition", acquisition),
            ("lungs", say("report.facts.lungs_text", volume=f"{study.lung_volume_ml:.0f}")),
            ("prior", date(study.prior_date) or say("report.facts.no_prior")),
            ("person", given),
        ]
        cells = [
            [self._text(say(f"report.facts.{key}"), "small"), self._text(value or none, "cell")]
            for key, value in entries
        ]
        rows = [[*cells[k], *cells[k + 1]] for k in range(0, len(cells), 2)]
        return _grid(rows, [0.13, 0.37, 0.13, 0.37], head=False)

    def _summary(self) -> list[Flowable]:
        study, say = self._study, self._say
        count = len(study.nodules)
        key = {0: "none", 1: "one"}.get(count, "count")
        head = [say(f"report.summary.{name}") for name in ("rules", "category", "action")]
        rows = [[self._text(each, "small") for each in head]]
        rows += [
            [
                self._text(f"{each.rule_set} {each.version}", "cell"),
                self._text(f"{each.code} ({each.meaning[say.language]})", "cell"),
                self._text(each.action[say.language], "cell"),
            ]
            for each in study.categories
        ]
        return [
            self._heading("report.summary.title"),
            self._text(say(f"report.summary.{key}", count=count)),
            Spacer(1, 3),
            _grid(rows, [0.19, 0.29, 0.52]),
        ]

    def _table(self) -> Table:
        say = self._say
        names = ("number", "location", "texture", "diameter", "volume")
        sets = [f"{each.rule_set}" for each in self._study.categories]
        head = [say(f"report.table.{name}") for name in names] + sets
        head += [say("report.table.growth"), say("report.table.certainty")]
        rows = [[self._text(text, "tiny") for text in head]]
        for nodule in self._study.nodules:
            sizes = nodule.measures
            low, high = sizes.volume_interval_mm3
            change = f"growth.state.{nodule.growth.state}" if nodule.growth else "report.none"
            texts = [
                str(nodule.number),
                nodule.location[say.language],
                say(f"fact.texture.{nodule.texture}"),
                f"{sizes.mean_diameter_mm:.1f} ({sizes.long_axis_mm:.1f} × "
                f"{sizes.short_axis_mm:.1f})",
                f"{sizes.volume_mm3:.0f} ({low:.0f} - {high:.0f})",
                *(category.code for category in nodule.categories),
                say(change),
                f"{nodule.finding.score:.2f}",
            ]
            rows.append([self._text(text, "small") for text in texts])
        fixed, last = [0.035, 0.125, 0.085, 0.155, 0.16], [0.09, 0.05]
        # No code is broken: each set gets room by its longest word.
        longest = [
            max(len(name), *(len(nodule.categories[at].code) for nodule in self._study.nodules))
            for at, name in enumerate(sets)
        ]
        rest = 1 - sum(fixed) - sum(last)
        return _grid(rows, [*fixed, *(rest * size / sum(longest) for size in longest), *last])

    def _nodule(self, nodule: Nodule) -> list[Flowable]:
        say, sizes = self._say, nodule.measures
        title = say(
            "report.nodule.title",
            number=nodule.number,
            texture=say(f"fact.texture.{nodule.texture}"),
            diameter=f"{sizes.mean_diameter_mm:.1f}",
        )
        lines = [self._text(line, "cell") for line in self._sizes(nodule)]
        for category in nodule.categories:
            head = say(
                "report.nodule.category",
                rule_set=category.rule_set,
                version=category.version,
                code=category.code,
                meaning=category.meaning[say.language],
            )
            lines += [Spacer(1, 3), self._text(head, "cell")]
            lines += [self._text(f"· {line}", "small") for line in category.rationale[say.language]]
        if nodule.growth is not None:
            lines += [Spacer(1, 3), self._text(self._growth(nodule.growth), "cell")]
            if nodule.growth.note:
                lines.append(self._text(f"· {nodule.growth.note[say.language]}", "small"))
        pictures: list[Flowable] = []
        for is_coronal, key in ((False, "axial"), (True, "coronal")):
            picture, field_mm = cut(self._volume, nodule, is_coronal=is_coronal)
            pictures.append(Cut(picture, field_mm, CUT_MM))
            pictures += [self._text(say(f"report.nodule.{key}"), "small"), Spacer(1, 3)]
        table = Table([[pictures, lines]], colWidths=[(CUT_MM + 4) * mm, WIDTH - (CUT_MM + 4) * mm])
        table.setStyle(TableStyle([("VALIGN", (0, 0), (-1, -1), "TOP"), *PADDING]))
        return [self._text(title, "heading"), table]

    def _sizes(self, nodule: Nodule) -> list[str]:
        say, sizes = self._say, nodule.measures
        low, high = sizes.volume_interval_mm3
        x, y, z = (f"{value:.1f}" for value in sizes.centre_mm)
        lines = [
            say(
                "report.nodule.size",
                slice=sizes.slice_index + 1,
                long=f"{sizes.long_axis_mm:.1f}",
                short=f"{sizes.short_axis_mm:.1f}",
                mean=f"{sizes.mean_diameter_mm:.1f}",
                longest=f"{sizes.max_diameter_3d_mm:.1f}",
            ),
            say(
                "report.nodule.volume",
                volume=f"{sizes.volume_mm3:.0f}",
                low=f"{low:.0f}",
                high=f"{high:.0f}",
                method=say(f"report.nodule.method.{sizes.volume_method}"),
            ),
        ]
        core = sizes.core
        if core is not None:
            lines.append(
                say(
                    "report.nodule.core",
                    threshold=f"{core.threshold_hu:.0f}",
                    long=f"{core.long_axis_mm:.1f}",
                    short=f"{core.short_axis_mm:.1f}",
                    mean=f"{core.mean_diameter_mm:.1f}",
                    volume=f"{core.volume_mm3:.0f}",
                )
            )
        elif nodule.texture == "part_solid":
            lines.append(say("report.nodule.no_core"))
        score, density = f"{nodule.finding.score:.2f}", f"{sizes.mean_hu:.0f}"
        return [*lines, say("report.nodule.density", hu=density, score=score, x=x, y=y, z=z)]

    def _growth(self, growth: Growth) -> str:
        say = self._say
        state = say(f"growth.state.{growth.state}")
        if growth.doublings_per_year is None or growth.doublings_interval is None:
            return say("report.nodule.growth_none", date=date(growth.prior_date), state=state)
        low, high = growth.doublings_interval
        return say(
            "report.nodule.growth",
            date=date(growth.prior_date),
            days=number(growth.interval_days),
            state=state,
            then=f"{growth.prior_volume_mm3:.0f}",
            mean=f"{growth.prior_mean_diameter_mm:.1f}",
            vdt=self._vdt(growth),
            rate=f"{growth.doublings_per_year:.2f}",
            low=f"{low:.2f}",
            high=f"{high:.2f}",
        )

    def _vdt(self, growth: Growth) -> str:
        interval = growth.vdt_interval_days
        if interval is None:
            return self._say("report.nodule.vdt_none")
        low, high = (f"{end:.0f}" for end in interval)
        if growth.vdt_days is None:
            return self._say("report.nodule.vdt_negative", low=low)
        key = "vdt" if math.isfinite(interval[1]) else "vdt_half"
        return self._say(f"report.nodule.{key}", days=f"{growth.vdt_days:.0f}", low=low, high=high)

    def _model(self) -> str:
        model, none = self._study.model, self._say("report.none")
        return self._say(
            "report.model.text",
            name=model.name,
            version=model.version,
            sha256=model.sha256,
            data=model.trained_on or none,
            runtime=model.runtime or none,
            thresholds=", ".join(f"{k} {v:g}" for k, v in model.thresholds.items()) or none,
        )

    def _signature(self) -> list[Flowable]:
        say = self._say
        cells = [
            self._text(say(f"report.signature.{k}"), "small") for k in ("name", "date", "sign")
        ]
        line = Table([["", "", ""], cells], colWidths=[WIDTH / 3] * 3, rowHeights=[9 * mm, None])
        line.setStyle(TableStyle([("LINEBELOW", (0, 0), (-1, 0), 0.6, FAINT), *PADDING]))
        free = Table([[""]] * 2, colWidths=[WIDTH], rowHeights=[6 * mm] * 2)
        free.setStyle(TableStyle([("LINEBELOW", (0, 0), (-1, -1), 0.4, RULE), *PADDING]))
        return [
            self._heading("report.signature.title"),
            self._text(say("report.signature.text")),
            free,
            line,
        ]


def _grid(rows: list[list[Flowable]], shares: Sequence[float], *, head: bool = True) -> Table:
    table = Table(rows, colWidths=[share * WIDTH for share in shares], repeatRows=int(head))
    style = [
        ("VALIGN", (0, 0), (-1, -1), "TOP"),
        ("LINEBELOW", (0, 0), (-1, -1), 0.4, RULE),
        ("LEFTPADDING", (0, 0), (-1, -1), 3),
        ("RIGHTPADDING", (0, 0), (-1, -1), 3),
        ("TOPPADDING", (0, 0), (-1, -1), 2),
        ("BOTTOMPADDING", (0, 0), (-1, -1), 2.5),
        ("FONT", (0, 0), (-1, -1), PLAIN),
    ]
    table.setStyle(
        TableStyle([*style, *([("BACKGROUND", (0, 0), (-1, 0), SHADE)] if head else [])])
    )
    return table
