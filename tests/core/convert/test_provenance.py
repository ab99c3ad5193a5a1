import json

import pytest

from core.convert.provenance import run_facts, statement


@pytest.fixture
def run(tmp_path, monkeypatch):
    monkeypatch.delenv("SOURCE_DATE_EPOCH", raising=False)
    environment = {"kit": "toy", "time": "2026-01-02T03:04:05+00:00", "git_commit": None}
    (tmp_path / "environment.json").write_text(json.dumps(environment))
    (tmp_path / "data.json").write_text(json.dumps({"sha256": "d" * 64}))
    (tmp_path / "config.yaml").write_text("a: 1\n")
    return tmp_path


def test_the_time_is_the_runs_own_or_that_of_the_variable(run, monkeypatch):
    assert run_facts(run)["created"] == 1767323045
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "5")
    assert run_facts(run)["created"] == 5
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "yesterday")
    with pytest.raises(ValueError, match="SOURCE_DATE_EPOCH='yesterday' is not whole seconds"):
        run_facts(run)


def test_a_changed_setting_or_data_changes_the_statement(run):
    def made():
        facts = run_facts(run)
        return statement(run, facts, model_sha256="ab" * 32, export={"opset": 17}, model={})

    first = made()
    assert first == made()
    (run / "config.yaml").write_text("a: 2\n")
    assert first != (second := made())
    (run / "data.json").write_text(json.dumps({"sha256": "e" * 64}))
    assert second != made()
    assert first["subject"] == [{"name": "model/model.onnx", "digest": {"sha256": "ab" * 32}}]


def test_folders_of_the_machine_stay_out(run):
    facts = run_facts(run)
    facts["environment"]["command"] = ["/home/x/train.py", "data.path=/data/y.csv", "trainer=smoke"]
    found = statement(run, facts, model_sha256="ab" * 32, export={}, model={})
    command = found["predicate"]["buildDefinition"]["externalParameters"]["command"]
    assert command == ["train.py", "data.path=y.csv", "trainer=smoke"]
