from itertools import combinations

import numpy as np
import pytest
from scipy.stats import binom, chisquare

from fedloom.core.errors import StrategyError
from fedloom.core.event import DpEvent
from fedloom.core.rng import stream
from fedloom.core.task import Member
from fedloom.select import Everyone, Poisson, Uniform

MEMBERS = [Member(f"m{i}", 10 * i) for i in range(6)]


def names(selector, round, members=MEMBERS):
    return tuple(member.name for member in selector.pick(members, round, stream(0, f"round {round}").child("select")))


def test_every_subset_is_as_likely_as_any_other():
    """20 subsets of 3 of 6, 4000 draws; a uniform selector fails this once in 10^4 seeds, and the seed is fixed."""
    seen = dict.fromkeys(combinations([m.name for m in MEMBERS], 3), 0)
    for round in range(4000):
        seen[names(Uniform(clients=3), round)] += 1
    assert len(seen) == 20
    assert chisquare(list(seen.values())).pvalue > 1e-4


def test_poisson_draws_each_member_by_itself():
    """All 2^3 subsets of three members against rate^k·(1 - rate)^(3 - k)."""
    rate, seen = 0.3, {}
    for round in range(4000):
        cohort = names(Poisson(rate), round, MEMBERS[:3])
        seen[cohort] = seen.get(cohort, 0) + 1
    assert () in seen
    expected = [4000 * rate ** len(s) * (1 - rate) ** (3 - len(s)) for s in seen]
    assert len(seen) == 8
    assert chisquare(list(seen.values()), expected).pvalue > 1e-4


def test_poisson_keeps_its_rate_over_many_members():
    members = [Member(str(i), 1) for i in range(10_000)]
    asked = len(names(Poisson(0.05), 1, members))
    assert binom.ppf(1e-5, 10_000, 0.05) < asked < binom.ppf(1 - 1e-5, 10_000, 0.05)


@pytest.mark.parametrize(
    ("members", "fraction", "asked"), [(10, 0.3, 3), (10, 0.01, 1), (5, 0.5, 2), (7, 0.5, 4), (3, 1.0, 3)]
)
def test_a_fraction_asks_at_least_one_and_rounds_to_even(members, fraction, asked):
    """max(1, round(C·K)); Python rounds 2.5 to 2 and 3.5 to 4."""
    selector = Uniform(fraction=fraction)
    assert selector.most(members) == asked
    assert len(names(selector, 1, [Member(str(i), 1) for i in range(members)])) == asked


def test_everyone_is_everyone():
    assert names(Everyone(), 3) == tuple(m.name for m in MEMBERS)


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (Uniform, "Uniform needs either clients or fraction"),
        (lambda: Uniform(clients=3, fraction=0.5), "Uniform needs either clients or fraction"),
        (lambda: Uniform(clients=0), "Uniform.clients must be at least 1, got 0"),
        (lambda: Uniform(fraction=0.0), r"Uniform.fraction must be in \(0, 1\], got 0.0"),
        (lambda: Uniform(fraction=1.5), r"Uniform.fraction must be in \(0, 1\], got 1.5"),
        (lambda: Uniform(fraction=np.nan), r"Uniform.fraction must be in \(0, 1\], got nan"),
        (lambda: Poisson(0.0), r"Poisson.rate must be in \(0, 1\], got 0.0"),
        (lambda: Poisson(0.5, cap=0), "Poisson.cap must be at least 1, got 0"),
        (lambda: Poisson(1.01), r"Poisson.rate must be in \(0, 1\], got 1.01"),
        (lambda: Uniform(clients=7).most(6), "a cohort of 7 clients cannot be drawn from 6 members; ask for at most 6"),
        (lambda: Uniform(clients=7).pick(MEMBERS, 1, stream(0, 1)), "cannot be drawn from 6 members"),
    ],
)
def test_what_cannot_be_drawn_is_refused(make, text):
    with pytest.raises(StrategyError, match=text):
        make()


def test_poisson_describes_its_sampling():
    noise = DpEvent("gaussian", {"noise_multiplier": 2.0})
    assert Poisson(0.1).event(noise) == DpEvent("poisson sampled", {"rate": 0.1}, (noise,))
    assert Poisson(0.1, cap=3).event(noise) == DpEvent("poisson sampled", {"rate": 0.1, "cap": 3}, (noise,))
    assert Uniform(clients=1).event(noise) == DpEvent("sampled without replacement", {"clients": 1}, (noise,))
    assert Uniform(fraction=0.5).event(noise).values == {"fraction": 0.5}
    assert Everyone().event(noise) is noise


def test_a_cap_keeps_a_uniform_part_of_a_sample_that_is_too_large():
    times = dict.fromkeys((m.name for m in MEMBERS), 0)
    for round in range(1, 3001):
        for name in names(Poisson(0.9, cap=3), round):
            times[name] += 1
    assert sum(times.values()) <= 9000
    assert all(abs(n - 1499) < 140 for n in times.values())  # E min(3, B(6, 0.9)) / 6 = 0.4998; 5 standard deviations
    small = [names(Poisson(0.2, cap=6), round) for round in range(1, 200)]
    assert small == [names(Poisson(0.2), round) for round in range(1, 200)]
