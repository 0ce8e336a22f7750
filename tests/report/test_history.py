import math

from fedloom.report.history import Curve, FaultLine, Traffic, curve, faults, site_curves, traffic

ROUNDS = [
    {"round": 1, "training": {"loss": 0.9}, "bytes_down": 10, "seconds": 1.5},
    {"round": 2, "metrics": {"auc": math.nan}, "sites": {"b": {"auc": 0.5}, "a": {"auc": None}}, "bytes_down": 20},
    {"round": 3, "metrics": {"auc": 0.7}, "sites": {"b": {"auc": 0.6}}, "faults": [{"site": "a", "message": "gone"}]},
]


def test_what_was_not_measured_is_left_out():
    assert curve(ROUNDS, "metrics", "auc") == Curve((3,), (0.7,))
    assert curve(ROUNDS, "training", "loss") == Curve((1,), (0.9,))
    assert not curve(ROUNDS, "metrics", "loss")
    assert site_curves(ROUNDS, "auc") == {"b": Curve((2, 3), (0.5, 0.6))}


def test_totals_tell_nothing_counted_from_zero():
    assert traffic(ROUNDS) == Traffic(3, 30, None, 1.5)
    assert traffic([]) == Traffic(0, None, None, None)


def test_faults_carry_their_round_and_forgive_gaps():
    assert faults(ROUNDS) == [FaultLine(3, "a", "", "", "gone")]
