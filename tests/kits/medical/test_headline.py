from kits.medical.headline import SUMMARY_FILE, write_headline

METRICS = {
    "num_cases": 40, "data": "phantom", "split": "test", "is_phantom": True, "num_targets": 300,
    "sensitivity_at_1_fp": 0.93, "sensitivity_at_1_fp.low": 0.9, "sensitivity_at_1_fp.high": 0.96,
    "cpm": 0.9, "human_normalised_dice": 1.02, "human_normalised_dice.low": 1.0,
    "human_normalised_dice.high": 1.04, "human_dice_vs_others": 0.8,
}  # fmt: skip
KEPT = {
    "retention.hits_kept_at_1_fp": 0.98, "retention.hits_kept_at_1_fp.of": 280,
    "retention.hits_kept_at_1_fp.low": 0.96, "retention.dice_loss_points": 0.3,
    "retention.dice_loss_points.low": -0.1, "retention.dice_loss_points.high": 0.7,
    "retention.flop_per_voxel_ratio": 1.9, "retention.published_flop_per_voxel_ratio": 31.7,
    "retention.steps": 800,
}  # fmt: skip


def test_no_number_stands_without_what_it_depends_on(tmp_path):
    text = write_headline(tmp_path, METRICS, is_smoke=False)
    assert (tmp_path / SUMMARY_FILE).read_text() == text
    assert "simulated: no patient was seen" in text
    assert "93.0% (90.0% to 96.0%) of 300 nodules at 1 false positive per scan" in text
    assert "1.020 (1.000 to 1.040) of a reader's own 0.800" in text
    assert text.endswith(f"reports: {tmp_path / 'report.html'}\n")


def test_a_student_says_what_it_kept(tmp_path):
    text = write_headline(tmp_path, METRICS | KEPT, is_smoke=True)
    assert "smoke run: these numbers mean nothing" in text
    assert "of the teacher's 280 hits the student keeps 98.0% (95 % sure: 96.0% or more)" in text
    assert "Dice lost: +0.30 points (-0.10 to +0.70)" in text
    assert "1/1.9 of this teacher's, 1/31.7 of the published size's" in text
    assert str(tmp_path / "report_retention.html") in text


def test_patches_have_no_false_positives_to_tell(tmp_path):
    metrics = {key: value for key, value in METRICS.items() if "sensitivity" not in key}
    del metrics["cpm"]
    assert "false positive" not in write_headline(tmp_path, metrics, is_smoke=False)
