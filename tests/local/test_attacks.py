"""Attacks do what their papers say, on arrays that can be checked by hand."""

import numpy as np
import pytest
from scipy.stats import norm

from fedloom.core.errors import ConfigError
from fedloom.core.examples import Examples
from fedloom.core.rng import stream
from fedloom.local.attacks import ALittle, Backdoor, LabelFlip, Noise, Scaling, SignFlip

STREAMS = stream(0, 1)
ROWS = Examples(np.random.default_rng(0).random((8, 6, 6)), np.arange(8) % 4)
DELTAS = [np.array([1.0, 2.0, -3.0]), np.array([3.0, 2.0, -1.0])]


def test_attacks_on_deltas_leave_rows_alone():
    for attack in (SignFlip(), Scaling(), Noise(), ALittle()):
        assert attack.poison(ROWS, 4, STREAMS) is ROWS


def test_a_sign_is_flipped_and_a_delta_scaled():
    assert SignFlip(3.0).forge(DELTAS, 10, STREAMS).tolist() == [-3, -6, 9]
    assert Scaling(2.0).forge(DELTAS, 10, STREAMS).tolist() == [2, 4, -6]


def test_noise_has_nothing_of_the_delta():
    one, other = (Noise(0.5).forge([np.full(2000, size)], 10, STREAMS) for size in (0.0, 100.0))
    assert (one == other).all()
    assert one.std() == pytest.approx(0.5, rel=0.1)


def test_labels_turn_over_and_back():
    once = LabelFlip().poison(ROWS, 4, STREAMS)
    assert (once.targets == 3 - ROWS.targets).all()
    assert (LabelFlip().poison(once, 4, STREAMS).targets == ROWS.targets).all()
    assert once.inputs is ROWS.inputs
    with pytest.raises(ConfigError, match="labels are flipped between classes, and this task has none"):
        LabelFlip().poison(ROWS, 0, STREAMS)


def test_a_backdoor_stamps_a_part_of_the_rows_and_no_other_pixel():
    kept = ROWS.inputs.copy()
    found = Backdoor(target=1, size=2, value=9.0, part=0.5).poison(ROWS, 4, STREAMS)
    stamped = (found.inputs[:, -2:, -2:] == 9).all(axis=(1, 2))
    assert stamped.sum() == 4
    assert (found.targets[stamped] == 1).all()
    assert (found.targets[~stamped] == ROWS.targets[~stamped]).all()
    assert (found.inputs[:, :4] == kept[:, :4]).all()
    assert (ROWS.inputs == kept).all()
    flat = Backdoor(size=2, value=9.0).stamped(np.zeros((1, 5)))
    assert flat.tolist() == [[0, 0, 0, 9, 9]]


def test_success_counts_other_classes_alone():
    class Fooled:
        def load(self, vector):
            return vector

        def predict(self, x, inputs):
            return np.eye(4)[np.where(inputs[:, -1, -1] == 1, 1, 0)]

    assert Backdoor(target=1, size=1).success(Fooled(), None, ROWS) == 1
    assert Backdoor(target=2, size=1).success(Fooled(), None, ROWS) == 0


@pytest.mark.parametrize(("clients", "attackers"), [(50, 12), (50, 24), (20, 6), (10, 2)])
def test_a_little_hides_among_the_honest(clients, attackers):
    needed = clients // 2 + 1 - attackers
    z = ALittle().most(clients, attackers)
    assert norm.cdf(z) == pytest.approx(max(0.5, (clients - attackers - needed) / (clients - attackers)))
    table = np.array(DELTAS)
    assert ALittle(z=2.0).forge(DELTAS, 10, STREAMS).tolist() == (table.mean(0) - 2 * table.std(0)).tolist()


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: SignFlip(0), "SignFlip.scale must be above 0"),
        (lambda: Scaling(float("inf")), "Scaling.scale must be above 0 and finite"),
        (lambda: Noise(-1), "Noise.deviation"),
        (lambda: Backdoor(part=1.5), r"a part in \(0, 1\]"),
        (lambda: Backdoor(target=9).poison(ROWS, 4, STREAMS), "there is no class 9 among 4"),
    ],
)
def test_settings_that_mean_nothing_are_refused(make, said):
    with pytest.raises(ConfigError, match=said):
        make()
