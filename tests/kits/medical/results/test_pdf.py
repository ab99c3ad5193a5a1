"""The pages say every number, in both languages, and are the same bytes each time."""

import re
from dataclasses import replace

import numpy as np
import pypdf
import pypdfium2
import pytest

from kits.medical.results import pdf_text
from kits.medical.results.assemble import build_study
from kits.medical.results.matching import lung_box
from kits.medical.results.pdf import write_pdf
from kits.medical.results.pdf_pictures import PIXELS, cut
from kits.medical.results.pdf_text import CHINESE_FILE, Typesetter
from kits.medical.results.priors import from_study

needs_chinese = pytest.mark.skipif(
    not CHINESE_FILE.is_file(), reason="fonts-droid-fallback is missing: `make system` installs it"
)
LANGUAGES = ["en", pytest.param("zh", marks=needs_chinese)]


@pytest.fixture
def followed(chest, make_chest, context):
    """A study with growth, and the scan it is of."""
    volume, findings = chest
    before = build_study(volume, findings, context)
    prior = from_study(before, lung_box(findings.grid, findings.lung_window), 365.0)
    prior = replace(prior, nodules=prior.nodules[:2])
    source = replace(context.source, study_date="20210310")
    volume, findings = make_chest(scale=1.3)
    return build_study(volume, findings, replace(context, source=source), prior), volume


def text_of(path):
    pages = [page.extract_text() for page in pypdf.PdfReader(path).pages]
    return re.sub(r"\s+", "", "".join(pages)), pages


def expected(study):
    """Numbers and codes that have to be on the page."""
    for nodule in study.nodules:
        sizes = nodule.measures
        lengths = [
            sizes.mean_diameter_mm, sizes.long_axis_mm, sizes.short_axis_mm,
            sizes.max_diameter_3d_mm, *sizes.centre_mm,
        ]  # fmt: skip
        volumes = [sizes.volume_mm3, *sizes.volume_interval_mm3]
        if sizes.core is not None:
            lengths += [sizes.core.mean_diameter_mm, sizes.core.long_axis_mm]
            volumes.append(sizes.core.volume_mm3)
        growth = nodule.growth
        if growth is not None and growth.vdt_days is not None:
            volumes += [growth.prior_volume_mm3, growth.vdt_days, growth.vdt_interval_days[0]]
            lengths.append(growth.prior_mean_diameter_mm)
            yield from (f"{end:.2f}" for end in growth.doublings_interval)
        yield from (f"{value:.1f}" for value in lengths)
        yield from (f"{value:.0f}" for value in volumes)
        yield from (f"{nodule.finding.score:.2f}", str(sizes.slice_index + 1))
        for category in nodule.categories:
            yield f"{category.rule_set}{category.version}"
            yield category.code
    source = study.source
    yield from (source.patient_id, "DoeJane", "1956-02-03", "2021-03-10", source.accession_number)
    yield from (study.model.sha256, study.model.version, f"{study.lung_volume_ml:.0f}")


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_number_and_every_reason_is_on_the_page(followed, language, tmp_path):
    study, volume = followed
    text, pages = text_of(write_pdf(study, volume, language, tmp_path / "report.pdf"))
    for value in expected(study):
        assert value in text
    for nodule in study.nodules:
        for category in nodule.categories:
            for line in (*category.rationale[language], category.meaning[language]):
                assert re.sub(r"\s+", "", line) in text
    for line in (*study.not_detectable.lines[language], *study.notes[language]):
        assert re.sub(r"\s+", "", line) in text
    assert 1 <= len(pages) <= 3


def test_no_code_of_a_category_is_broken_between_lines(followed, tmp_path):
    study, volume = followed
    long = "3-6-suspicious"
    nodules = tuple(
        replace(one, categories=(*one.categories[:-1], replace(one.categories[-1], code=long)))
        for one in study.nodules
    )
    path = write_pdf(replace(study, nodules=nodules), volume, "en", tmp_path / "report.pdf")
    text, pages = text_of(path)
    for code in {category.code for one in nodules for category in one.categories}:
        assert "".join(pages).count(code) == text.count(code)


@pytest.mark.parametrize(
    ("language", "unverified", "phantom"),
    [
        ("en", "UNVERIFIED", "PHANTOM:"),
        pytest.param("zh", "未经核实", "体模：", marks=needs_chinese),
    ],
)
def test_banners_are_on_every_page(followed, language, unverified, phantom, tmp_path):
    study, volume = followed
    _, pages = text_of(write_pdf(study, volume, language, tmp_path / "a.pdf"))
    assert all(unverified in page for page in pages)
    assert not any(phantom in page for page in pages)
    study = replace(study, is_phantom=True)
    _, pages = text_of(write_pdf(study, volume, language, tmp_path / "b.pdf"))
    assert all(unverified in page and phantom in page for page in pages)


@pytest.mark.parametrize("language", LANGUAGES)
def test_the_same_study_gives_the_same_bytes(followed, language, tmp_path):
    study, volume = followed
    first = write_pdf(study, volume, language, tmp_path / "a.pdf").read_bytes()
    assert write_pdf(study, volume, language, tmp_path / "b.pdf").read_bytes() == first


def test_a_scan_without_nodules_says_that_this_is_no_proof(chest, context, tmp_path):
    volume, findings = chest
    study = build_study(volume, replace(findings, findings=()), context)
    text, _ = text_of(write_pdf(study, volume, "en", tmp_path / "report.pdf"))
    assert "Nonodulewasfound" in text
    assert "noproof" in text


def test_all_fonts_are_embedded(followed, tmp_path):
    study, volume = followed
    reader = pypdf.PdfReader(write_pdf(study, volume, "en", tmp_path / "report.pdf"))
    for page in reader.pages:
        fonts = [font.get_object() for font in page["/Resources"]["/Font"].values()]
        used = [font for font in fonts if is_drawn_with(page, font)]
        assert used
        assert all("/FontFile2" in font["/FontDescriptor"] for font in used)


def is_drawn_with(page, font):
    name = next(k for k, v in page["/Resources"]["/Font"].items() if v.get_object() == font)
    return f"{name} " in page.get_contents().get_data().decode("latin-1")


@needs_chinese
def test_a_chinese_name_is_written_in_an_english_report(followed, tmp_path):
    study, volume = followed
    source = replace(study.source, patient_name="张^伟 <&> \u1f00")
    text, _ = text_of(
        write_pdf(replace(study, source=source), volume, "en", tmp_path / "report.pdf")
    )
    assert "张伟<&>" in text


def test_chinese_without_its_font_names_the_package(monkeypatch, tmp_path):
    monkeypatch.setattr(pdf_text, "CHINESE_FILE", tmp_path / "missing.ttf")
    monkeypatch.setattr(pdf_text, "CHINESE", "Kit-Chinese-Missing")
    with pytest.raises(ValueError, match="apt install fonts-droid-fallback"):
        Typesetter("zh")


@pytest.mark.parametrize("language", LANGUAGES)
def test_pages_can_be_drawn_and_are_not_blank(followed, language, tmp_path):
    study, volume = followed
    document = pypdfium2.PdfDocument(write_pdf(study, volume, language, tmp_path / "r.pdf"))
    for page in document:
        shown = np.asarray(page.render(scale=0.5).to_pil())
        assert (shown < 128).mean() > 0.01
    document.close()


def test_cuts_show_the_nodule_in_the_middle_the_way_people_look(followed):
    study, volume = followed
    solid = study.nodules[2]
    axial, field_mm = cut(volume, solid, is_coronal=False)
    middle = axial[PIXELS // 2 - 3 : PIXELS // 2 + 3, PIXELS // 2 - 3 : PIXELS // 2 + 3]
    assert middle.mean() > 200  # soft tissue in the lung window
    assert field_mm >= 40
    # A scan that is stored the other way round looks the same.
    mirrored = type(volume)(
        replace(
            volume.grid,
            origin_mm=tuple(volume.grid.to_patient(np.array([0, 0, volume.grid.shape[2] - 1]))),
            axes=volume.grid.axes * [[1], [1], [-1]],
        ),
        volume.voxels[..., ::-1],
    )
    depth, height, width = solid.finding.window
    turned = slice(volume.grid.shape[2] - width.stop, volume.grid.shape[2] - width.start)
    finding = replace(
        solid.finding, window=(depth, height, turned), mask=solid.finding.mask[..., ::-1]
    )
    same, _ = cut(mirrored, replace(solid, finding=finding), is_coronal=False)
    assert np.abs(same.astype(int) - axial).mean() < 1
    coronal, _ = cut(volume, solid, is_coronal=True)
    assert coronal.shape == (PIXELS, PIXELS, 3)
