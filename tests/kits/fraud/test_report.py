import io
import json
import re
import shutil
import subprocess
from dataclasses import replace
from types import SimpleNamespace
from xml.etree import ElementTree

import numpy as np
import pytest
from PIL import Image
from rich.console import Console

from core.launch import launch
from kits.fraud import evaluate, plots
from kits.fraud.kit import KIT
from kits.fraud.report import Facts, LeakCheck, ReportContent, gain_sentence, write_report
from kits.fraud.scores import Model, Period, Scored, Scores, load_scores, save_scores
from kits.fraud.tables import comparison_rows, comparison_table

HOSTILE = "<script>alert(1)</script>\x07&\"'$x_{1}$ 漢"
QUALITY = {  # model -> how far frauds stand out
    "lstm_gat": 3.6,
    "lightgbm": 3.4,
    "random forest": 3.0,
    "logistic regression": 2.2,
    "no graph": 3.2,
    "shuffled edges": 3.1,
    "seven days": 2.6,
}
MODELS = [
    Model("lstm_gat", "primary", "LSTM and graph attention stacked with the trees"),
    Model("lightgbm", "baseline", "gradient-boosted trees on the same features"),
    Model("random forest", "baseline"),
    Model("logistic regression", "baseline"),
    Model("no graph", "control", "neighbours removed"),
    Model("shuffled edges", "control", "neighbours of another account"),
    Model("seven days", "window", "our model, trained on seven days"),
]
FACTS = Facts(
    title="Card fraud, four test weeks",
    summary="Simulated card payments; labels become known seven days late.",
    importance={f"feature {n}": 1 / (n + 1) for n in range(40)},
    leak_checks=[LeakCheck("future labels permuted", passed=True, detail="equal to the last bit")],
    data={"Source": "handbook", "Transactions": 1754155, "Rejected rows": 0},
    seconds={"Training": 251.4},
    references=[{"name": "book, XGBoost", "ap": 0.687, "auc": 0.870, "cp_at_100": 0.303}],
    limits=["The data is simulated."],
    metrics={"events_per_s": 210000.0},
)


def scored_by_all(rng, n=3000, accounts=400):
    label = (rng.random(n) < 0.02).astype(np.int64)
    seen = (label == 1) & (rng.random(n) < 0.8)
    noise = rng.normal(size=n)
    events = Scored(
        score=noise,
        probability=None,
        label=label,
        day=rng.integers(0, 7, n),
        account=rng.integers(0, accounts, n).astype(np.uint64),
        amount=np.round(rng.exponential(50, n), 2),
        pattern=(label * rng.integers(1, 4, n)).astype(np.int8),
        detectable=seen,
    )
    scored = {}
    for model, quality in QUALITY.items():
        score = (0.8 * noise + 0.6 * rng.normal(size=n) + quality * seen).astype(np.float32)
        odds = np.exp(quality * score - quality**2 / 2) * 0.016
        scored[model] = events.with_scores(score, odds / (1 + odds))
    return scored


def some_scores(**changes):
    rng = np.random.default_rng(0)
    weeks = ["2018-07-04", "2018-07-11"]
    periods = [Period(week, scored_by_all(rng), scored_by_all(rng)) for week in weeks]
    patterns = ["none", "large amount", "bad terminal", "stolen card"]
    return replace(Scores(periods, MODELS, patterns, trees="lightgbm"), **changes)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    save_scores(folder / "scores.npz", some_scores())
    FACTS.save(folder)
    environment = {
        "time": "2026-11-23T19:00:00+00:00",
        "git_commit": "0123456789abcdef",
        "git_dirty": True,
        "processor": "A processor",
        "num_cores": 2,
        "memory_mib": 8192,
        "platform": "Linux",
        "python": "3.11.7",
        "command": ["train.py", "data=handbook"],
        "packages": {"numpy": "2.0.0", "lightgbm": "4.6.0"},
    }
    (folder / "environment.json").write_text(json.dumps(environment))
    (folder / "data.json").write_text(json.dumps({"sha256": "ab" * 32}))
    (folder / "config.yaml").write_text("trainer:\n  seed: 0\n")
    evaluate.evaluate_run(folder)
    return folder


def read(run):
    return json.loads((run / "metrics.json").read_text())


def test_scores_come_back_bit_for_bit(tmp_path):
    scores = some_scores()
    save_scores(tmp_path / "scores.npz", scores)
    loaded = load_scores(tmp_path / "scores.npz")
    assert loaded.models == list(scores.models)
    assert (loaded.trees, loaded.smoke) == ("lightgbm", False)
    assert loaded.pattern_names == scores.pattern_names
    for period, again in zip(scores.periods, loaded.periods, strict=True):
        for split in ("test", "validation"):
            for model, scored in getattr(period, split).items():
                for name, column in vars(scored).items():
                    other = getattr(getattr(again, split)[model], name)
                    assert other.dtype == column.dtype
                    assert np.array_equal(other, column)


def test_scores_without_probability_or_in_one_week_only_come_back(tmp_path):
    scores = some_scores()
    first = scores.periods[0]
    test = {name: week.with_scores(week.score) for name, week in first.test.items()}
    for split in (test, first.validation):
        del split["no graph"]
    scores = replace(scores, periods=[replace(first, test=test), scores.periods[1]])
    save_scores(tmp_path / "scores.npz", scores)
    loaded = load_scores(tmp_path / "scores.npz")
    assert loaded.periods[0].test["lstm_gat"].probability is None
    assert list(loaded.weeks("no graph")[0]) == ["2018-07-11"]
    metrics = evaluate.measure(loaded)
    assert metrics["control.no graph.num_weeks"] == 1


def test_scores_refuse_other_rows(tmp_path):
    scores = some_scores()
    week = scores.periods[0]
    other = replace(week.test["lightgbm"], amount=week.test["lightgbm"].amount + 1)
    period = replace(week, test={**week.test, "lightgbm": other})
    with pytest.raises(ValueError, match=r"'lightgbm' was scored on other rows"):
        save_scores(tmp_path / "scores.npz", replace(scores, periods=[period]))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"periods": []}, "periods is empty"),
        ({"models": MODELS[1:]}, "exactly one primary"),
        ({"models": [*MODELS, Model("lightgbm", "control")]}, "a name twice"),
        ({"models": [*MODELS, Model("a.b", "baseline")]}, "has a dot"),
        ({"models": MODELS[:-1]}, "score both splits"),
        ({"models": [*MODELS, Model("x", "control", against="y")]}, "against='y' is not one of"),
        ({"trees": "no graph"}, "not one of the baselines"),
    ],
)
def test_scores_refuse_what_the_tables_cannot_place(changes, message):
    with pytest.raises(ValueError, match=message):
        some_scores(**changes)


def test_scores_of_another_format_are_refused(tmp_path):
    np.savez(tmp_path / "scores.npz", label=np.zeros(3))
    with pytest.raises(ValueError, match="has format None, this release reads 1"):
        load_scores(tmp_path / "scores.npz")


def test_evaluating_again_gives_the_same_files(run):
    files = [run / "metrics.json", run / "report.html"]
    before = [file.read_bytes() for file in files]
    for file in files:
        file.unlink()
    evaluate.evaluate_run(run)
    assert [file.read_bytes() for file in files] == before


def test_metrics_hold_every_promised_key(run):
    metrics = read(run)
    keys = ["ap", "auc", "cp_at_100", "recall_at_fpr_0.003", "detectable_recall_at_fpr_0.003"]
    keys += ["fpr_test", "value_recall_at_fpr_0.003", "ece"]
    for key in keys:
        assert metrics[f"{key}.low"] <= metrics[key] <= metrics[f"{key}.high"]
        assert 0 <= metrics[f"week.2018-07-04.{key}"] <= 1
        assert 0 <= metrics[f"baseline.lightgbm.{key}"] <= 1
        weeks = [metrics[f"week.{week}.{key}"] for week in ("2018-07-04", "2018-07-11")]
        assert metrics[key] == pytest.approx(np.mean(weeks))
    assert metrics["smoke"] is False
    assert metrics["events_per_s"] == 210000.0
    assert metrics["scenario.stolen card.recall_at_fpr_0.003"] > 0
    gain = metrics["ap"] - metrics["baseline.lightgbm.ap"]
    assert metrics["neural_gain.ap"] == pytest.approx(gain)
    worth = metrics["ap"] - metrics["control.shuffled edges.ap"]
    assert metrics["control.shuffled edges.worth.ap"] == pytest.approx(worth)
    assert metrics["oracle.ap"] > metrics["ap"]


def test_evaluate_names_a_run_without_scores(tmp_path):
    with pytest.raises(SystemExit, match=r"has no scores\.npz"):
        evaluate.evaluate(SimpleNamespace(run=str(tmp_path)))


def test_the_command_prints_the_table(run, capsys):
    launch(evaluate.evaluate, KIT, "evaluate", arguments=[f"run={run}"])
    printed = capsys.readouterr().out
    assert "lstm_gat" in printed
    assert "report.html" in printed


def test_report_is_well_formed_and_fetches_nothing(run):
    text = (run / "report.html").read_text()
    root = ElementTree.fromstring(text)
    assert root.tag == "html"
    assert not re.findall(r"https?:|//[a-z]|<script|@import|<link|<iframe", text)
    ids = [element.get("id") for element in root.iter() if element.get("id")]
    assert len(ids) == len(set(ids))
    assert set(re.findall(r'href="#([^"]+)"', text)) <= set(ids)
    assert set(re.findall(r"url\(#([^)]+)\)", text)) <= set(ids)
    defined = set(re.findall(r"(--[\w-]+):", text))
    assert set(re.findall(r"var\((--[\w-]+)\)", text)) <= defined
    words = " ".join(root.itertext())
    for part in ("Against the baselines", "Leak checks", "Limits", "book, XGBoost", "1,754,155"):
        assert part in words


def test_report_shows_the_numbers_of_the_metrics(run):
    metrics, words = (
        read(run),
        " ".join(ElementTree.parse(run / "report.html").getroot().itertext()),
    )
    assert f"{metrics['ap']:.3f}" in words
    assert f"{metrics['ap.low']:.3f}–{metrics['ap.high']:.3f}" in words
    assert f"{100 * metrics['detectable_recall_at_fpr_0.003']:.1f} %" in words
    assert f"{metrics['neural_gain.ap']:+.3f}".replace("-", "−") in words


def test_report_escapes_names_from_the_data(tmp_path):
    rename = {"lightgbm": HOSTILE, "lstm_gat": HOSTILE + "2"}
    scores = some_scores()

    def renamed(split):
        return {rename.get(name, name): scored for name, scored in split.items()}

    models = [
        replace(m, name=rename.get(m.name, m.name), description=HOSTILE) for m in scores.models
    ]
    periods = [
        Period(f"{HOSTILE}{n}", renamed(period.test), renamed(period.validation))
        for n, period in enumerate(scores.periods)
    ]
    patterns = ["none", HOSTILE, "b", "c"]
    scores = Scores(periods, models, patterns, trees=HOSTILE, smoke=True)
    facts = replace(
        FACTS,
        title=HOSTILE,
        importance={HOSTILE: 1.0},
        data={HOSTILE: HOSTILE},
        limits=[HOSTILE],
        references=[{"name": HOSTILE, "ap": 0.5}],
        leak_checks=[LeakCheck(HOSTILE, passed=False, detail=HOSTILE)],
    )
    metrics = evaluate.measure(scores)
    content = ReportContent(scores, metrics, facts, config=f"a: {HOSTILE}")
    text = write_report(tmp_path, content).read_text()
    assert "<script" not in text
    assert "\x07" not in text
    words = "".join(ElementTree.fromstring(text).itertext())
    assert words.count("<script>alert(1)</script>") >= 10
    assert "Smoke run" in words

    console = Console(width=200, record=True, file=io.StringIO())
    console.print(comparison_table(metrics, primary="[red]" + HOSTILE))
    printed = console.export_text()
    assert "[red]<script>" in printed
    assert "\x07" not in printed


def test_report_without_any_extras_is_still_whole(tmp_path):
    rng = np.random.default_rng(3)
    week = scored_by_all(rng)["lstm_gat"]
    week = {"m": week.with_scores(week.score)}
    scores = Scores([Period("w", week, week)], [Model("m", "primary")], ["none"])
    content = ReportContent(scores, evaluate.measure(scores))
    root = ElementTree.parse(write_report(tmp_path, content)).getroot()
    sections = {section.get("id") for section in root.iter("section")}
    assert {"comparison", "curve", "thresholds", "weeks"} <= sections
    assert not sections & {"gain", "calibration", "controls", "leaks", "importance"}


def test_the_best_of_the_comparable_rows_is_marked():
    metrics = {"ap": 0.7, "auc": 0.8, "ece": 0.01, "fpr_test": 0.002}
    metrics |= {"baseline.b.ap": 0.7001, "baseline.b.auc": 0.9, "baseline.b.ece": 0.02}
    metrics |= {"window.w.ap": 0.99, "oracle.ap": 0.999, "baseline.b.week.w.ap": 1.0}
    rows = {row.name: row for row in comparison_rows(metrics, [{"name": "book", "ap": 0.9}])}
    assert list(rows) == ["this model", "b", "w", "book", "upper bound"]
    marked = {name: [cell.is_best for cell in row.cells] for name, row in rows.items()}
    assert marked["this model"] == [True, *[False] * 6, True]  # AP ties as printed; lowest error
    assert marked["b"] == [True, True, *[False] * 6]
    assert not any(marked["w"] + marked["book"] + marked["upper bound"])


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ((0.012, 0.004, 0.02), "adds +0.012 (95 % interval +0.004 to +0.020)"),
        ((0.001, -0.004, 0.006), "adds nothing measurable"),
        ((-0.02, -0.03, -0.01), "costs average precision"),
    ],
)
def test_the_gain_is_told_as_it_is(values, words):
    metrics = dict(zip(("g.ap", "g.ap.low", "g.ap.high"), values, strict=True))
    assert words in gain_sentence(metrics, "g.", "The neural part", "the trees")


def test_precision_at_recall_follows_the_highest_threshold_that_reaches_it():
    n = 5
    columns = {name: np.zeros(n) for name in ("day", "account", "amount", "pattern")}
    score, label = np.array([5.0, 4, 4, 2, 1]), np.array([1, 0, 1, 0, 1])
    scored = Scored(score, None, label, detectable=label == 1, **columns)
    found = plots.precision_at(np.array([0.0, 1 / 3, 0.5, 2 / 3, 0.7, 1.0]), scored)
    assert found.tolist() == pytest.approx([1, 1, 2 / 3, 2 / 3, 3 / 5, 3 / 5])


@pytest.mark.skipif(
    shutil.which("chromium") is None, reason="chromium is not installed; run make system"
)
@pytest.mark.parametrize("width", [1280, 420])
def test_a_browser_draws_the_report(run, tmp_path, width):
    picture = screenshot(run / "report.html", tmp_path, width, 2400)
    assert picture.shape == (2400, width, 3)
    shades, counts = np.unique(picture.reshape(-1, 3), axis=0, return_counts=True)
    assert len(shades) > 100
    assert counts.max() < 0.97 * counts.sum()
    # The plots are drawn in the page's own colour, not in the stand-ins.
    accent = np.array([0x12, 0x57, 0xC9])
    assert (np.abs(picture.astype(int) - accent).sum(axis=2) < 12).sum() > 200


def screenshot(page, folder, width, height, *more):
    command = "chromium --headless --no-sandbox --disable-gpu --disable-quic --no-first-run"
    command += " --disable-background-networking --disable-component-update --disable-sync"
    command += f" --hide-scrollbars --user-data-dir={folder / 'profile'}"
    command += f" --window-size={width},{height} --screenshot={folder / 'page.png'}"
    arguments = [*command.split(), *more, page.as_uri()]
    subprocess.run(arguments, check=True, capture_output=True, timeout=90)
    return np.asarray(Image.open(folder / "page.png").convert("RGB"))
