import json

import numpy as np
import pytest

from kits.medical.answers_file import ANSWERS_FILE, question, read_answers, write_answers
from kits.medical.metrics.froc import ScanResult, Target
from kits.medical.retention import Answers, Outline, retention_metrics

ASKED = question(data_sha256="ab", split="test", network="step-1", is_mirrored=True)


@pytest.fixture
def answers():
    targets = (Target("n1", (1.0, 2.0, 3.0), 6.0, is_included=True),)
    found = ScanResult("a", "a", targets, np.array([[1.0, 2, 3], [40, 0, 0]]), np.array([0.9, 0.2]))
    empty = ScanResult("b", "b", (), np.empty((0, 3)), np.empty(0))
    outline = Outline("a/n1", "a", 6.0, "solid", dice=0.8, human=0.75)
    return Answers((found, empty), (outline,), {"a/n1": "solid"})


def test_answers_come_back_as_they_were(answers, tmp_path):
    write_answers(tmp_path, answers, ASKED)
    again = read_answers(tmp_path, ASKED)
    assert again.outlines == answers.outlines
    assert again.textures == answers.textures
    assert [scan.targets for scan in again.scans] == [scan.targets for scan in answers.scans]
    assert again.scans[1].centres_mm.shape == (0, 3)
    assert retention_metrics(again, answers)["hits_kept_at_1_fp"] == 1.0


@pytest.mark.parametrize("name", ["data_sha256", "split", "network", "is_mirrored", "code_sha256"])
def test_answers_to_another_question_are_not_taken(answers, tmp_path, name):
    write_answers(tmp_path, answers, ASKED)
    assert read_answers(tmp_path, {**ASKED, name: "other"}) is None


def test_nothing_is_read_where_nothing_was_kept(tmp_path):
    assert read_answers(tmp_path, ASKED) is None


def test_the_file_is_plain_json(answers, tmp_path):
    write_answers(tmp_path, answers, ASKED)
    content = json.loads((tmp_path / ANSWERS_FILE).read_text())
    assert content["scans"][0]["scores"] == [0.9, 0.2]
