import math

import pytest

from apps import Terminal


@pytest.fixture
def fedloom(capsys, monkeypatch):
    return Terminal(capsys, monkeypatch)


@pytest.mark.slow
@pytest.mark.parametrize(("delta", "z"), [("1e-3", 4.57), ("1e-5", 6.30)])
def test_the_noise_and_what_it_assumes(fedloom, delta, z):
    said = fedloom("calibrate", "--epsilon", 2, "--delta", delta, "--rounds", 10, "--everyone")
    assert said.code == 0
    assert f"noise multiplier {z}" in said.out
    for part in ("keeps 10 rounds within ε = 2", "zero-out", "everyone every round", "Against: ", "by RDP it would be"):
        assert part in said.err
    (told,) = fedloom("calibrate", "--epsilon", 2, "--delta", delta, "--rounds", 10, "--json").events
    assert math.floor(told["noise_multiplier"] * 100) / 100 == z
    assert told["guarantee"]["epsilon"] <= 2.0 < told["guarantee"]["cross_check"]
    costs = [row["epsilon"] for row in told["table"]]
    assert costs == sorted(costs, reverse=True)


@pytest.mark.slow
def test_the_noise_of_the_mean_where_the_clients_are_known(fedloom):
    words = ("--epsilon", 2, "--delta", "1e-4", "--rounds", 1, "--rate", 0.5, "--clients", 1000, "--clip", 0.5)
    (told,) = fedloom("calibrate", *words, "--json").events
    assert told["noise_of_mean"] == pytest.approx(told["noise_multiplier"] * 0.5 / 500)
    assert told["guarantee"]["sampling"] == "Poisson sampling, rate 0.5"


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (("--rate", 0.1, "--everyone"), "give one of --rate and --everyone"),
        (("--rate", 0.0), "Poisson.rate must be in (0, 1], got 0.0"),
        (("--clients", 10), "delta of 0.5 is not below one over 10 clients"),
        (("--rounds", 0), "rounds must be at least 1, got 0"),
        (("--clients", -3), "--clients is 1 or more, got -3"),
        (("--clip", -1), "--clip is a number above 0, got -1"),
        (("--clip", "nan"), "--clip is a number above 0, got nan"),
        (("--mechanism", "skellam", "--survivors", 0), "--survivors is 1 or more, got 0"),
        (("--mechanism", "bands", "--bands", 0), "--bands is 1 or more, got 0"),
        (("--every", 0), "--every is 1 or more, got 0"),
    ],
)
def test_what_means_nothing_is_refused(fedloom, words, text):
    said = fedloom("calibrate", "--epsilon", 2, "--delta", 0.5, "--rounds", 10, *words)
    assert said.code == 2
    assert text in said.err


@pytest.mark.slow
def test_without_a_word_on_who_takes_part_it_says_what_it_assumes(fedloom):
    words = ("calibrate", "--epsilon", 2, "--delta", 1e-3, "--rounds", 1)
    assumed = "Neither --rate nor --everyone is given, so this is for all clients in every round."
    assert assumed in fedloom(*words).err
    assert assumed not in fedloom(*words, "--everyone").err


@pytest.mark.slow
@pytest.mark.parametrize(
    ("words", "z", "parts"),
    [
        (("--mechanism", "local"), 3.731, ("any two reports of one client", "everybody")),
        (("--mechanism", "skellam", "--survivors", 70), 4.0, ("the coordinator too", "70 honest clients")),
        (("--mechanism", "tree", "--every", 4), 6.462, ("in one of any 4 rounds in a row", "nodes of a tree of 4")),
        (("--mechanism", "bands", "--every", 4, "--bands", 1), 3.731, ("correlated over 1 rounds",)),
        (("--every", 4), 3.731, ("in one of any 4 rounds in a row", "not the coordinator")),
    ],
)
def test_other_mechanisms_and_what_each_assumes(fedloom, words, z, parts):
    """One part at epsilon 1, delta 1e-5: 3.730632 by Balle and Wang, ICML 2018; root 3 of it on a tree of 4 rounds."""
    said = fedloom("calibrate", "--epsilon", 1, "--delta", "1e-5", "--rounds", 1, *words, "--json")
    assert said.code == 0, said.err
    (told,) = said.events
    assert told["noise_multiplier"] == pytest.approx(z, rel=0.05 if "skellam" in words else 2e-4)
    assert told["guarantee"]["epsilon"] <= 1.0
    assert all(part in " ".join(map(str, told["guarantee"].values())) for part in parts)


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (("--mechanism", "skellam", "--rate", 0.1), "sampling amplifies nothing for skellam; leave --rate out"),
        (("--mechanism", "local", "--every", 3), "--every is for gaussian, tree and bands, and without --rate"),
        (("--mechanism", "tree"), "--mechanism tree needs --every: a tree is over so many rounds, and each client"),
        (("--every", 3, "--rate", 0.1), "--every is for gaussian, tree and bands, and without --rate"),
    ],
)
def test_what_does_not_go_together_is_refused(fedloom, words, text):
    said = fedloom("calibrate", "--epsilon", 2, "--delta", "1e-5", "--rounds", 10, *words)
    assert said.code == 2
    assert text in " ".join(said.err.split())
