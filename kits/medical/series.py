"""Which series of a folder is read, and why.

The rule, in this order; what is refused is never chosen while another can be read:

1. the whole chest: at least 90 % of the longest stack, at least 250 mm wide where one is;
2. thin slices: up to 1.5 mm, then up to 2.5 mm, then thicker;
3. a lung or sharp kernel before others, for the edges of nodules;
4. closer slices, then more of them, then the smaller series UID.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from kits.medical.geometry import Grid
from kits.medical.headers import Header
from kits.medical.pixels import check_decodable, pixel_digest
from kits.medical.refusals import Refusal
from kits.medical.slices import CT_IMAGE, Slice, check_kind, is_localiser, read_slice
from kits.medical.stack import FEWEST_SLICES, build_grid, sort_slices

THIN_MM = (1.5, 2.5)
WHOLE_EXTENT, WHOLE_WIDTH_MM = 0.9, 250.0
SHARP_WORDS = ("LUNG", "SHARP", "EDGE", "BONE", "DETAIL", "CHST", "ULTRA")
SHARP_PHILIPS = ("L", "YA", "YB", "YC", "YD", "E")
# Images that are known to be none of a scan's slices, whatever their series' number.
APART = ("secondary_capture", "enhanced_multiframe", "localiser", "derived")
KINDS = ("secondary_capture", "wrong_modality", "enhanced_multiframe", "localiser", "derived")


@dataclass(frozen=True)
class Candidate:
    """One series, readable or not."""

    uid: str
    headers: tuple[Header, ...]
    slices: tuple[Slice, ...] = ()  # in order; empty where refused
    grid: Grid | None = None
    refusal: Refusal | None = None
    num_copies: int = 0  # files that say the same again

    @property
    def name(self) -> str:
        """Number and description, for people."""
        first = self.headers[0]
        number, text = first.text("SeriesNumber", "?"), first.text("SeriesDescription", "")
        return f"series {number}" + (f" ({text})" if text else "")


@dataclass(frozen=True)
class Choice:
    """The chosen series."""

    series: Candidate
    reasons: tuple[str, ...]  # sentences: what it is, and why the others are not taken


def is_sharp(kernel: str, manufacturer: str) -> bool:
    """A lung or otherwise sharp kernel, by the makers' names for them."""
    name = kernel.upper().split("\\")[0].strip()
    if any(word in name for word in SHARP_WORDS):
        return True
    if "PHILIPS" in manufacturer.upper():
        return name in SHARP_PHILIPS
    if found := re.match(r"FC(\d\d)", name):  # Canon, Toshiba
        return 50 <= int(found[1]) < 60 or 80 <= int(found[1]) < 90
    found = re.match(r"[A-Z]{1,2}(\d\d)", name)  # Siemens: B70f, Bl57, I70f
    return bool(found) and int(found[1]) >= 50


def list_series(images: Sequence[Header]) -> list[Candidate]:
    """All series of the folder's images, each checked by its headers."""
    groups: dict[str, list[Header]] = {}
    for header in images:
        groups.setdefault(header.text("SeriesInstanceUID"), []).append(header)
    return [_candidate(uid, groups[uid]) for uid in sorted(groups)]


def _candidate(uid: str, headers: list[Header]) -> Candidate:
    try:
        _check_kinds(headers)
        slices = [read_slice(header) for header in headers]
        for one in slices:
            check_decodable(one)
        single = _without_copies(slices)
        ordered = sort_slices(single)
        grid = build_grid(ordered)
    except Refusal as refusal:
        return Candidate(uid, tuple(headers), refusal=refusal)
    copies = len(slices) - len(single)
    return Candidate(uid, tuple(headers), tuple(ordered), grid, num_copies=copies)


def _check_kinds(headers: Sequence[Header]) -> None:
    scouts = sum(map(is_localiser, headers))
    if 0 < scouts < len(headers):
        raise Refusal(
            "localiser_inside",
            f"{scouts} of {len(headers)} images of the series are scout views; export the slices "
            "as a series of their own",
        )
    for header in headers:
        check_kind(header)


def _without_copies(slices: Sequence[Slice]) -> list[Slice]:
    """Each image once: files with one SOP UID must say one thing.

    Raises:
        Refusal: they do not.
    """
    first: dict[str, Slice] = {}
    for one in slices:
        other = first.setdefault(one.sop_uid, one)
        if other is one:
            continue
        if _content(one) != _content(other):
            raise Refusal(
                "conflicting_copies",
                f"{one.header.path.name} and {other.header.path.name} have one SOPInstanceUID but "
                "differ in pixels or position, so which one is right is unknown; "
                "copy the scan again",
            )
    return list(first.values())


def _content(one: Slice) -> tuple[object, ...]:
    place = one.position_mm, one.row_axis.tolist(), one.column_axis.tolist(), one.spacing_mm
    values = one.slope, one.intercept, one.is_signed, one.padding, one.thickness_mm
    return one.shape, place, values, pixel_digest(one)


def check_one_patient(images: Sequence[Header]) -> None:
    """All images are of one patient.

    Raises:
        Refusal: they are not.
    """
    found = {(one.text("PatientID", ""), one.text("PatientBirthDate", "")) for one in images}
    if len(found) > 1:
        raise Refusal(
            "several_patients",
            f"the folder holds images of {len(found)} patients (PatientID with PatientBirthDate); "
            "give one patient's folder",
        )


def choose(candidates: Sequence[Candidate], wanted: str | None = None) -> Choice:
    """The series to read: the wanted one, or the best by the rule above.

    Raises:
        Refusal: it, or every one, cannot be read; or the folder holds several CT studies.
    """
    if wanted is not None:
        return _wanted(candidates, wanted)
    _check_one_study(candidates)
    usable = [one for one in candidates if one.refusal is None]
    if not usable:
        # The nearest to a chest CT tells why; a folder of scout views says so too.
        best = max(candidates, key=lambda one: (_is_ct(one), len(one.headers)))
        assert best.refusal is not None
        raise best.refusal
    longest = max(_extent(one) for one in usable)
    ranked = sorted(usable, key=lambda one: _rank(one, longest))
    best = ranked[0]
    _check_strays(best, candidates)
    reasons = [f"{best.name}: {_facts(best)}"]
    if len(usable) > 1:
        reasons.append(
            "chosen by: whole chest, thin slices, lung or sharp kernel, closer slices, in this "
            "order"
        )
    reasons += [f"not {other.name}: {_facts(other)}" for other in ranked[1:]]
    reasons += [f"not {one.name}: {one.refusal}" for one in candidates if one.refusal]
    return Choice(best, tuple(reasons))


def _wanted(candidates: Sequence[Candidate], wanted: str) -> Choice:
    found = [one for one in candidates if one.uid == wanted]
    if not found:
        there = ", ".join(f"{one.uid} {one.name}" for one in candidates)
        raise Refusal("unknown_series", f"series={wanted} is not in the folder; it holds {there}")
    if found[0].refusal is not None:
        raise found[0].refusal
    _check_strays(found[0], candidates)
    return Choice(found[0], (f"{found[0].name}: named by the user; {_facts(found[0])}",))


def _check_strays(chosen: Candidate, candidates: Sequence[Candidate]) -> None:
    """No unreadable few images share the chosen series' number: damage to a UID splits a series.

    A slice that is lost at an end leaves no gap, so nothing else would tell.
    """
    number = chosen.headers[0].text("SeriesNumber", "")
    for one in candidates:
        if one.refusal is None or one.refusal.code in APART or len(one.headers) >= FEWEST_SLICES:
            continue
        if {number, ""} & {header.text("SeriesNumber", "") for header in one.headers}:
            raise Refusal(
                "split_series",
                f"{len(one.headers)} image(s) have the SeriesNumber={number!r} of the chosen "
                f"series, or none, but SeriesInstanceUID={one.uid}, so slices may be lost (first: "
                f"{one.headers[0].path.name}; {one.refusal}); copy the scan again, or take them "
                "away",
            )


def _check_one_study(candidates: Sequence[Candidate]) -> None:
    studies = {
        header.text("StudyInstanceUID")
        for one in candidates
        for header in one.headers
        if header.text("SOPClassUID", "") == CT_IMAGE
    }
    if len(studies) > 1:
        raise Refusal(
            "several_studies",
            f"the folder holds {len(studies)} CT studies; give the folder of one, or name the "
            "series",
        )


def _is_ct(one: Candidate) -> bool:
    return one.refusal is not None and one.refusal.code not in KINDS


def _extent(one: Candidate) -> float:
    assert one.grid is not None
    return one.grid.shape[0] * one.grid.spacing_mm[0]


def _width(one: Candidate) -> float:
    assert one.grid is not None
    return min(one.grid.shape[axis] * one.grid.spacing_mm[axis] for axis in (1, 2))


def _rank(one: Candidate, longest: float) -> tuple[object, ...]:
    """Smaller is better."""
    first = one.slices[0]
    thick = sum(first.thickness_mm > limit + 0.05 for limit in THIN_MM)
    assert one.grid is not None
    return (
        _extent(one) < WHOLE_EXTENT * longest,
        _width(one) < WHOLE_WIDTH_MM,
        thick,
        not _sharp(one),
        round(one.grid.spacing_mm[0], 2),
        -len(one.slices),
        one.uid,
    )


def _sharp(one: Candidate) -> bool:
    return is_sharp(one.slices[0].kernel, one.headers[0].text("Manufacturer", ""))


def _facts(one: Candidate) -> str:
    assert one.grid is not None
    first = one.slices[0]
    kernel = f"{'sharp' if _sharp(one) else 'smooth or unknown'} kernel {first.kernel or '?'}"
    return (
        f"{len(one.slices)} slices of {first.thickness_mm:g} mm every "
        f"{one.grid.spacing_mm[0]:.3f} mm, {_extent(one):.0f} mm long, {_width(one):.0f} mm wide, "
        f"{kernel}"
    )
