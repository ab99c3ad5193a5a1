"""From findings to a study: measured, numbered, placed, compared, categorised."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from kits.medical.findings import Findings
from kits.medical.geometry import Volume
from kits.medical.results.categories import Facts, categorise, facts_of, summarise
from kits.medical.results.detectability import noise_hu, not_detectable
from kits.medical.results.growth import Earlier
from kits.medical.results.matching import Box, lung_box
from kits.medical.results.measure import measure, texture_of
from kits.medical.results.priors import Prior, compare_all
from kits.medical.results.rules import load
from kits.medical.results.study import (
    Growth,
    Measures,
    ModelFacts,
    Nodule,
    Person,
    Source,
    Study,
    Texts,
)
from kits.medical.results.uids import derived_uid
from kits.medical.results.wording import LANGUAGES, wording

# A mask that reaches farther has spilt out of its nodule (30 mm at most, by definition) or mass.
LARGEST_MM = 100.0


@dataclass(frozen=True)
class Context:
    """What is known beyond the images."""

    source: Source
    model: ModelFacts
    is_phantom: bool
    person: Person
    rule_sets: tuple[str, ...]  # names of rule files
    notes: tuple[str, ...] = ()  # of the reader of the files


def build_study(
    volume: Volume, findings: Findings, context: Context, prior: Prior | None = None
) -> Study:
    """Make a study of what was found.

    Args:
        volume: the scan.
        findings: of it, on its grid.
        context: the rest.
        prior: an earlier scan of the patient.

    Raises:
        ValueError: findings and scan do not fit, or a rule set is not known.
    """
    rule_sets = [load(name) for name in context.rule_sets]
    box = lung_box(findings.grid, findings.lung_window)
    found = [(finding, measure(finding, volume)) for finding in findings.findings]
    sized = [pair for pair in found if pair[1].max_diameter_3d_mm <= LARGEST_MM]
    spilt = [pair[1] for pair in found if pair[1].max_diameter_3d_mm > LARGEST_MM]
    # The largest first, as people read; equal ones by their score.
    sized.sort(key=lambda pair: (-pair[1].mean_diameter_mm, -pair[0].score))
    measures = [each for _, each in sized]
    textures = [texture_of(finding) for finding, _ in sized]
    growth: Sequence[Growth | None] = [None] * len(sized)
    partners: Sequence[Earlier | None] = growth  # type: ignore[assignment]
    gone: Mapping[str, tuple[str, ...]] = {}
    if prior is not None:
        compared = compare_all(prior, measures, textures, box)
        growth, partners, gone = compared.growth, compared.partners, compared.notes
    facts = [
        _facts(place, measures, textures, context.person, (growth[place], partners[place]))
        for place in range(len(sized))
    ]
    nodules = tuple(
        Nodule(
            number=place + 1,
            finding=finding,
            measures=sizes,
            texture=textures[place],
            location=location(sizes.centre_mm, box),
            tracking_id=f"nodule-{place + 1}",
            tracking_uid=_tracking_uid(context, sizes, partners[place]),
            categories=tuple(categorise(rules, facts[place]) for rules in rule_sets),
            growth=growth[place],
        )
        for place, (finding, sizes) in enumerate(sized)
    )
    noise = noise_hu(volume)
    source = context.source
    return Study(
        source=source,
        grid=volume.grid,
        nodules=nodules,
        not_detectable=not_detectable(volume.grid.spacing_mm[0], source.slice_thickness_mm, noise),
        model=context.model,
        is_phantom=context.is_phantom,
        lung_volume_ml=findings.lung_volume_ml,
        categories=tuple(
            summarise(rules, [nodule.categories[place] for nodule in nodules])
            for place, rules in enumerate(rule_sets)
        ),
        person=context.person,
        prior_date=prior.date if prior else "",
        prior_study_uid=prior.study_uid if prior else "",
        notes=_notes(context, findings, spilt, gone),
        seconds=dict(findings.seconds),
    )


def _tracking_uid(context: Context, sizes: Measures, partner: Earlier | None) -> str:
    """That of the nodule on the prior; a new one follows from the scan, the model and the place."""
    if partner is not None and partner.tracking_uid:
        return partner.tracking_uid
    scan, model = context.source.series_uid, context.model.sha256
    return derived_uid(scan, model, "nodule", str(sizes.centre_mm))


def _facts(
    place: int,
    measures: Sequence[Measures],
    textures: Sequence[str],
    person: Person,
    compared: tuple[Growth | None, Earlier | None],
) -> Facts:
    texture, (growth, partner) = textures[place], compared
    same_kind = [(each == "solid") == (texture == "solid") for each in textures]
    return facts_of(
        measures[place],
        texture,
        growth,
        count=sum(same_kind),
        person=person,
        prior=(partner.texture, dict(partner.codes)) if partner else None,
    )


def location(centre_mm: tuple[float, float, float], box: Box) -> Texts:
    """Side and third of the lungs' box that a point lies in: an estimate, no lobe."""
    middle = (np.asarray(box.low_mm) + np.asarray(box.high_mm)) / 2
    side = "left" if centre_mm[0] > middle[0] else "right"
    height = (centre_mm[2] - box.low_mm[2]) / max(box.high_mm[2] - box.low_mm[2], 1e-6)
    third = "upper" if height > 2 / 3 else "middle" if height > 1 / 3 else "lower"
    return {
        language: wording(language)(
            "location.text",
            side=wording(language)(f"location.{side}"),
            third=wording(language)(f"location.{third}"),
        )
        for language in LANGUAGES
    }


def _notes(
    context: Context,
    findings: Findings,
    spilt: Sequence[Measures],
    gone: Mapping[str, tuple[str, ...]],
) -> Mapping[str, tuple[str, ...]]:
    """What concerns the whole scan; what the readers of files and lungs say is in English."""
    notes = {}
    for language in LANGUAGES:
        say = wording(language)
        lines = [say("report.model_phantom")] if context.model.is_phantom else []
        for sizes in spilt:
            x, y, z = (f"{value:.0f}" for value in sizes.centre_mm)
            length = f"{sizes.max_diameter_3d_mm:.0f}"
            lines.append(
                say("notes.spilt", length=length, largest=f"{LARGEST_MM:g}", x=x, y=y, z=z)
            )
        lines += [*gone.get(language, ()), *context.notes, *findings.notes]
        notes[language] = tuple(lines)
    return notes
