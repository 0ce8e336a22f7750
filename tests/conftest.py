"""Puts this folder on the path, so that tests of any folder can import `small` and `apps`."""

import errno
import os

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


@pytest.fixture
def read_only(monkeypatch):
    """Return a function from which on nothing can be written, made or taken away: rights of folders bind no root."""

    def refused(path, *_, **__):
        raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(path))

    def opened(path, flags, *args, real=os.open, **options):
        writes = flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)
        return refused(path) if writes else real(path, flags, *args, **options)

    def begin():
        monkeypatch.setattr(os, "open", opened)
        for name in ("mkdir", "unlink", "rename", "replace", "rmdir"):
            monkeypatch.setattr(os, name, refused)

    return begin
