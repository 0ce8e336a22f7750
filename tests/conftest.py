"""Puts this folder on the path, so that tests of any folder can import `small` and `apps`."""

import pytest
from hypothesis import HealthCheck, settings

from apps import Terminal

# No deadline, and no complaint of slowness: how long an example takes is a matter of who else uses the machine.
settings.register_profile("fedloom", deadline=None, max_examples=50, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("fedloom")


@pytest.fixture
def command(capsys, monkeypatch, tmp_path):
    """Return the command line, in an empty folder."""
    monkeypatch.chdir(tmp_path)
    return Terminal(capsys, monkeypatch)
