"""Whoever waits does so for a time that ends, and that a date can be told of."""

from datetime import UTC, datetime
from time import monotonic

import pytest

from fedloom.core.errors import ConfigError
from fedloom.runtime.net.leases import LONGEST_BEAT_S, YEAR_S, Leases
from fedloom.runtime.net.snapshot import snapshot
from posts import Office, train

OPTIONS = {"away_s": "--away", "task_s": "--lease", "evaluate_s": "--evaluate"}


@pytest.mark.parametrize("name", OPTIONS)
@pytest.mark.parametrize("seconds", [0.0, -1.0, 1e11, float("inf"), float("nan")])
def test_a_time_that_nobody_can_wait_for_is_refused(name, seconds):
    with pytest.raises(ConfigError, match=rf"Leases\.{name}.* above 0 s and at most .* a year, got ") as said:
        Leases(**{name: seconds})
    assert OPTIONS[name] in str(said.value)
    assert f"got {seconds:g};" in str(said.value)


@pytest.mark.parametrize("seconds", [0.0, -1.0, 0.01, 1e5, float("inf"), float("nan")])
def test_signs_of_life_come_neither_at_once_nor_never(seconds):
    with pytest.raises(ConfigError, match=r"Leases\.beat_s must be from 0\.1 to 3,600 s, got "):
        Leases(beat_s=seconds)


def test_the_longest_lease_can_be_waited_for_and_told(tmp_path):
    office = Office(tmp_path, clock=monotonic)
    office.hall.leases = Leases(**dict.fromkeys(OPTIONS, YEAR_S), beat_s=LONGEST_BEAT_S)
    ask = office.come().kept.send(train((1, "a")))
    assert office.kept.receive(ask, 0.01) is None
    assert len(snapshot(office.hall, datetime.now(UTC))["awaited"]) == 1
    office.close()
