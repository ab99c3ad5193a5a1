"""What has to fit before a student learns from a teacher; told before any training."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import asdict
from typing import Any

import torch
from torch import nn

from core.compress.config import DistillConfig
from core.compress.taps import find_module
from core.compress.teacher import Opinion, Teacher, digest_of
from core.compress.terms import Pair, used_features, used_outputs, used_relations
from core.train.batches import Batches


def run_fingerprint(cfg: DistillConfig, teacher: Teacher) -> bytes:
    """Of the teacher and of all settings that change the loss: what a resumed run must share."""
    settings = asdict(cfg)
    del settings["cache_dir"], settings["cache_limit_mib"]
    return hashlib.sha256(repr((teacher.fingerprint, settings)).encode()).digest()


def check_models(cfg: DistillConfig, student: nn.Module, teacher: Teacher) -> None:
    """Two models, and modules that they have.

    Raises:
        ValueError: they share weights, a name is wrong, or nothing is to be learned.
    """
    ours = {id(parameter) for parameter in student.parameters()}
    if any(id(parameter) in ours for parameter in teacher.model.parameters()):
        raise ValueError("teacher and student share weights; give the student a model of its own")
    pairs: list[Pair] = [*used_features(cfg), *used_relations(cfg)]
    if cfg.weight > 0 and not (pairs or used_outputs(cfg)):
        raise ValueError(
            f"distill.weight={cfg.weight} weighs nothing: no outputs, features or relations; name "
            "some, or set it to 0"
        )
    for name in {*(pair.student for pair in pairs), cfg.student_outputs} - {""}:
        find_module(student, name)
    for name in {*teacher.feature_names, cfg.teacher_outputs} - {""}:
        find_module(teacher.model, name)


def check_outputs(cfg: DistillConfig, student: Opinion, teacher: Opinion) -> None:
    """Both answer the same questions.

    Raises:
        ValueError: an output is missing, or of another shape.
    """
    outputs = used_outputs(cfg)
    for who, opinion in (("student", student), ("teacher", teacher)):
        # What says where an output counts is asked of the teacher alone.
        places = {one.where for one in outputs.values()} - {""} if who == "teacher" else set()
        for name in sorted({*outputs, *places} - opinion.outputs.keys()):
            raise ValueError(
                f"distill.outputs: {name} is no output of the {who}; choose from "
                f"{', '.join(opinion.outputs)}"
            )
    for name in outputs:
        ours, theirs = student.outputs[name].shape, teacher.outputs[name].shape
        if ours != theirs:
            raise ValueError(
                f"output {name} has shape {tuple(ours)} from the student, {tuple(theirs)} from the "
                "teacher; they must answer the same question"
            )


def check_repeats(cfg: DistillConfig, batches: Iterable[Any]) -> None:
    """A sample collated for two epochs has to be the same, where the batches can be asked.

    Raises:
        ValueError: it is not, so that no opinion of it can be kept.
    """
    if not isinstance(batches, Batches):
        return
    before, index = batches.epoch, batches.last_indices[:1]
    digests = set()
    for epoch in (before, before + 1):
        batches.set_epoch(epoch)
        digests.add(digest_of(batches.collate(index)))
    batches.set_epoch(before)
    if len(digests) > 1:
        raise ValueError(
            f"distill.cache_dir={cfg.cache_dir!r} cannot keep opinions: a sample is not the same "
            "in two epochs (random augmentation); set it to null"
        )


def follow_memory_format(student: nn.Module, teacher: nn.Module) -> None:
    """Convolutions of the teacher are laid out as the student's are."""
    for dimensions, memory_format in ((4, torch.channels_last), (5, torch.channels_last_3d)):
        if any(
            p.ndim == dimensions
            and p.is_contiguous(memory_format=memory_format)
            and not p.is_contiguous()
            for p in student.parameters()
        ):
            teacher.to(memory_format=memory_format)
