from kits.defect.line.alarms import Alarms


def test_an_alarm_is_told_when_it_begins_and_when_it_ends():
    told = []
    alarms = Alarms(told.append)
    for _ in range(3):
        alarms.begin("camera", "left", "no image")
    alarms.begin("camera", "right", "no image")
    alarms.end("camera", "left")
    alarms.end("camera", "left")
    alarms.end("disk", "ledger")
    assert [(one.subject, one.is_on) for one in told] == [
        ("left", True), ("right", True), ("left", False),
    ]  # fmt: skip
    assert alarms.counts == {"camera": 4}
    assert list(alarms.active) == [("camera", "right")]


def test_what_is_over_already_is_told_and_not_kept():
    told = []
    alarms = Alarms(told.append)
    alarms.once("recovered", "ledger", "3 parts")
    assert [one.text for one in told] == ["3 parts"]
    assert not alarms.active
    assert alarms.told == told
