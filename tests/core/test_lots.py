import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedloom.core.errors import StrategyError
from fedloom.core.lots import Lots, lots


@given(st.integers(1, 10**6), st.integers(1, 1000), st.integers(1, 5))
def test_a_whole_number_is_expected_or_all_there_are(examples, lot, epochs):
    plan = lots(examples, {"lot": lot, "epochs": epochs})
    assert plan.expected == pytest.approx(min(lot, examples))
    assert 0 < plan.rate <= 1
    assert abs(plan.steps * plan.rate - epochs) <= plan.rate / 2 + 1e-9 or plan.steps == 1


@given(st.integers(1, 10**6), st.floats(1e-3, 1), st.integers(1, 50))
def test_a_fraction_is_the_same_for_all(examples, fraction, steps):
    assert lots(examples, {"fraction": fraction, "steps": steps}) == Lots(fraction, steps, fraction * examples)


def test_nobody_draws_from_nothing():
    with pytest.raises(StrategyError, match="a client without examples draws no lots; leave it out"):
        lots(0, {"lot": 5, "epochs": 1})
