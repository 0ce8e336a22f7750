"""Puts this folder on the path, so that tests of any folder can import `small` and `apps`."""

import pytest

from apps import Terminal


@pytest.fixture
def command(capsys, monkeypatch, tmp_path):
    """Return the command line, in an empty folder."""
    monkeypatch.chdir(tmp_path)
    return Terminal(capsys, monkeypatch)
