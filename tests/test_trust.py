from dataclasses import dataclass, replace
from typing import ClassVar

import pytest

import fedloom
from fedloom.gather import Plain
from fedloom.recipes import RECIPES, dp_fedavg, dp_ftrl, dp_secagg_fedavg, dp_sgd_fedavg, local_dp_fedavg
from fedloom.trust import trust


@pytest.mark.parametrize(
    "recipe",
    [r for r in RECIPES if r not in (dp_fedavg, dp_ftrl, dp_sgd_fedavg, dp_secagg_fedavg, local_dp_fedavg)],
    ids=lambda recipe: recipe.__name__,
)
def test_it_is_never_left_blank_that_nothing_is_private(recipe):
    said = trust(recipe())
    assert "nothing is differentially private here (ε = ∞)" in said
    assert "everybody must trust the coordinator" in said


def test_private_weights_are_told():
    assert "It also sees how many examples" in trust(fedloom.fedavg())
    assert "how many examples" not in trust(replace(fedloom.fedavg(), weights=fedloom.Equal()))


def test_who_can_spoil_the_model():
    assert "can spoil the model" in trust(fedloom.fedavg())
    assert "outvoted" in trust(fedloom.median())


def test_a_hidden_sum_says_what_it_shows_and_what_it_rests_on():
    said = trust(replace(fedloom.fedavg(), gather=fedloom.SecAgg(), stages=(fedloom.FixedPoint(),)))
    for words in ("no single one", "not private by being a sum", "identity keys", "is told by site"):
        assert words in said


def test_few_neighbours_are_said_to_protect_against_less():
    strategy = replace(fedloom.fedavg(), gather=fedloom.SecAgg(neighbours="auto"), stages=(fedloom.FixedPoint(),))
    said = trust(strategy)
    assert "follows the protocol, while up to 10% of the clients help it" in said
    assert "in cohorts of more than 200" in said
    assert "nothing is claimed against it" not in trust(replace(strategy, gather=fedloom.SecAgg()))


def test_a_gather_that_hides_is_not_said_to_show():
    @dataclass(frozen=True)
    class Hidden(Plain):
        hides: ClassVar[bool] = True

    assert "every client's update by itself" not in trust(replace(fedloom.fedavg(), gather=Hidden()))
