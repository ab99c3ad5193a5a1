"""Text on a page: embedded fonts, and for each character one that has it."""

from __future__ import annotations

from itertools import groupby
from pathlib import Path
from xml.sax.saxutils import escape

import reportlab
from reportlab.lib.colors import Color, HexColor
from reportlab.lib.styles import ParagraphStyle
from reportlab.pdfbase import pdfmetrics
from reportlab.pdfbase.ttfonts import TTFError, TTFont
from reportlab.platypus import Paragraph

FONTS = Path(reportlab.__file__).parent / "fonts"
PLAIN, BOLD, CHINESE = "Kit", "Kit-Bold", "Kit-Chinese"
CHINESE_FILE = Path("/usr/share/fonts/truetype/droid/DroidSansFallbackFull.ttf")
CHINESE_PACKAGE = "fonts-droid-fallback"

INK, FAINT, RULE = HexColor("#1a1d21"), HexColor("#5c636b"), HexColor("#c9cdd2")
SHADE, WARNING, NOTICE = HexColor("#f1f3f5"), HexColor("#b3261e"), HexColor("#0b57a4")
WHITE = HexColor("#ffffff")

SIZES_PT = {"title": 15, "heading": 10.5, "text": 8.3, "cell": 7.8, "small": 7, "tiny": 6.2}


class Typesetter:
    """Makes paragraphs of one language."""

    def __init__(self, language: str) -> None:
        self._is_chinese = language == "zh"
        _register(needs_chinese=self._is_chinese)
        self._plain = set(pdfmetrics.getFont(PLAIN).face.charToGlyph)
        names = pdfmetrics.getRegisteredFontNames()
        self._chinese = (
            set(pdfmetrics.getFont(CHINESE).face.charToGlyph) if CHINESE in names else set()
        )

    def paragraph(self, text: str, kind: str = "text", colour: Color = INK) -> Paragraph:
        """A paragraph that breaks where its language does."""
        size = SIZES_PT[kind]
        # There is no bold Chinese font: bold digits in between would stand out.
        bold = kind in ("title", "heading") and not self._is_chinese
        style = ParagraphStyle(
            kind,
            fontName=BOLD if bold else PLAIN,
            fontSize=size,
            leading=size * (1.42 if self._is_chinese else 1.28),
            textColor=colour,
            wordWrap="CJK" if self._is_chinese else None,
            spaceBefore=7 if kind == "heading" else 0,
            spaceAfter=3 if kind in ("heading", "title") else 0,
        )
        return Paragraph(self.markup(text), style)

    def markup(self, text: str) -> str:
        """Escaped text with the Chinese font named where the other lacks a character.

        Raises:
            ValueError: characters are needed that only the font which is missing has.
        """
        return "".join(
            escape(run) if font == PLAIN else f'<font name="{font}">{escape(run)}</font>'
            for font, run in self.runs(text)
        )

    def runs(self, text: str) -> list[tuple[str, str]]:
        """Parts of a text with the font that has their characters."""
        return [
            (font, "".join(run).replace("\0", "?"))
            for font, run in (
                (font, [self._shown(char) for char in part])
                for font, part in groupby(text, key=self._font)
            )
        ]

    def _font(self, char: str) -> str:
        if ord(char) in self._plain or char.isspace():
            return PLAIN
        if not self._chinese:
            _register(needs_chinese=True)
            self._chinese = set(pdfmetrics.getFont(CHINESE).face.charToGlyph)
        return CHINESE if ord(char) in self._chinese else PLAIN

    def _shown(self, char: str) -> str:
        is_known = ord(char) in self._plain or ord(char) in self._chinese or char.isspace()
        return char if is_known else "\0"


def _register(*, needs_chinese: bool) -> None:
    known = pdfmetrics.getRegisteredFontNames()
    if PLAIN not in known:
        pdfmetrics.registerFont(TTFont(PLAIN, FONTS / "Vera.ttf"))
        pdfmetrics.registerFont(TTFont(BOLD, FONTS / "VeraBd.ttf"))
        pdfmetrics.registerFontFamily(PLAIN, normal=PLAIN, bold=BOLD, italic=PLAIN, boldItalic=BOLD)
    if needs_chinese and CHINESE not in known:
        try:
            pdfmetrics.registerFont(TTFont(CHINESE, CHINESE_FILE))
        except (TTFError, OSError) as error:
            raise ValueError(
                f"font {CHINESE_FILE} is not there, which Chinese text needs; "
                f"apt install {CHINESE_PACKAGE}"
            ) from error
        pdfmetrics.registerFontFamily(
            CHINESE, normal=CHINESE, bold=CHINESE, italic=CHINESE, boldItalic=CHINESE
        )
