"""A part that needs a mean over all members does not get another."""

from dataclasses import replace

import pytest

from fedloom import Mean, Median, StrategyError, scaffold


@pytest.mark.parametrize("aggregate", [Mean(), Median()])
def test_scaffold_needs_its_control_averaged_over_all_members(aggregate: object) -> None:
    with pytest.raises(StrategyError, match=r"Scaffold needs a mean over all members: aggregate=Mean\(over="):
        replace(scaffold(), aggregate=aggregate)
