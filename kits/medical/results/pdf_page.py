"""What is on every page: banners, whose report it is, page numbers; and how values are written."""

from __future__ import annotations

from reportlab.lib.pagesizes import A4
from reportlab.lib.units import mm
from reportlab.pdfgen.canvas import Canvas

from kits.medical.results.pdf_text import FAINT, NOTICE, WARNING, WHITE, Typesetter
from kits.medical.results.study import Study
from kits.medical.results.wording import Wording

MARGIN = 15 * mm
FRAME = 6  # that a page's frame keeps free on each side
WIDTH = A4[0] - 2 * MARGIN - 2 * FRAME
BAR = 5.6 * mm  # of one banner


class PageCanvas(Canvas):
    """Draws banners and page numbers once all pages are known."""

    def __init__(
        self, study: Study, say: Wording, setter: Typesetter, *args: object, **kwargs: object
    ) -> None:
        super().__init__(*args, **kwargs)  # type: ignore[arg-type]
        self._study, self._say, self._setter = study, say, setter
        self._states: list[dict[str, object]] = []

    def showPage(self) -> None:  # noqa: N802 - reportlab's name
        """Keep the page until their number is known."""
        self._states.append(dict(self.__dict__))
        self._startPage()

    def save(self) -> None:
        """Finish every page, then the file."""
        for page, state in enumerate(self._states, start=1):
            self.__dict__.update(state)
            self._decorate(page, len(self._states))
            super().showPage()
        super().save()

    def _decorate(self, page: int, pages: int) -> None:
        top = A4[1] - BAR
        self._banner(self._say("report.unverified"), top, WARNING)
        if self._study.is_phantom:
            self._banner(self._say("report.phantom"), top - BAR, NOTICE)
        self.setFillColor(FAINT)
        source = self._study.source
        left = joined(source.patient_id, date(source.study_date), source.study_uid)
        self._line(left, MARGIN + FRAME, 8 * mm, 6)
        count = self._say("report.page", page=page, pages=pages)
        self._line(count, A4[0] - MARGIN - FRAME, 8 * mm, 6, -1)

    def _banner(self, text: str, bottom: float, colour: object) -> None:
        self.setFillColor(colour)
        self.rect(0, bottom, A4[0], BAR, stroke=0, fill=1)
        self.setFillColor(WHITE)
        self._line(text, A4[0] / 2, bottom + 1.8 * mm, 8.2, 0)

    def _line(self, text: str, x: float, y: float, size: float, align: int = 1) -> None:
        """Text from x on (1), around it (0) or up to it (-1)."""
        runs = self._setter.runs(text)
        width = sum(self.stringWidth(run, font, size) for font, run in runs)
        x -= {1: 0.0, 0: width / 2, -1: width}[align]
        for font, run in runs:
            self.setFont(font, size)
            self.drawString(x, y, run)
            x += self.stringWidth(run, font, size)


def date(text: str) -> str:
    """DICOM's YYYYMMDD as YYYY-MM-DD; anything else as it is."""
    is_date = len(text) == 8 and text.isdigit()
    return f"{text[:4]}-{text[4:6]}-{text[6:]}" if is_date else text


def number(value: float | None) -> str:
    """At most three decimals, none that say nothing; empty if not known."""
    return "" if value is None else f"{value:.3f}".rstrip("0").rstrip(".")


def joined(*parts: str) -> str:
    """What there is of some parts."""
    return " · ".join(part for part in parts if part)
