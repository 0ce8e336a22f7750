import math

import pytest

from fedloom.core.budget import Budget
from fedloom.core.errors import ConfigError


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"epsilon": 0.0}, "Budget.epsilon must be above 0 and finite, got 0.0"),
        ({"epsilon": math.inf}, "got inf"),
        ({"epsilon": math.nan}, "got nan"),
        ({"delta": 1.0}, r"Budget.delta must be in \(0, 1\), got 1.0"),
        ({"unit": "patient"}, "Budget.unit must be one of client, example, got 'patient'"),
    ],
)
def test_a_budget_that_means_nothing_is_refused(changes, said):
    with pytest.raises(ConfigError, match=said):
        Budget(**{"epsilon": 1.0, "delta": 1e-5} | changes)


def test_it_says_itself_in_words():
    assert str(Budget(epsilon=3, delta=1e-5, unit="example")) == "ε = 3 at δ = 1e-05 for one example"
