import pytest

from fedloom.core.errors import ConfigError
from fedloom.optimize import Constant, Cosine, Exponential, Staircase


@pytest.mark.parametrize("rate", [Constant(), Exponential(0.5), Staircase(3, 0.1), Cosine(10), Cosine(2, last=0.5)])
def test_every_schedule_starts_at_one_and_never_rises(rate):
    found = [rate(round) for round in range(1, 15)]
    assert found[0] == 1.0
    assert found == sorted(found, reverse=True)
    assert min(found) >= 0


def test_the_cosine_stays_at_its_last_value():
    assert Cosine(5, last=0.25)(5) == pytest.approx(0.25)
    assert Cosine(5, last=0.25)(50) == pytest.approx(0.25)
    assert Cosine(5)(3) == pytest.approx(0.5)


@pytest.mark.parametrize(
    "make", [lambda: Exponential(0), lambda: Staircase(0, 0.5), lambda: Cosine(1), lambda: Cosine(5, 1.0)]
)
def test_settings_out_of_range_are_refused(make):
    with pytest.raises(ConfigError, match="must be at least"):
        make()
