"""A coordinator goes on with what lies in its home, and begins nothing beside a run that it cannot read."""

import pytest

from apps import of_format, trained
from fedloom.core.errors import OtherFormat
from fedloom.load import load
from fedloom.resuming import RUNS, TOLD_FILE, folder_of, unfinished


def test_no_run_is_begun_beside_one_of_another_format(tmp_path):
    runs, loaded = tmp_path / RUNS, load("demo")
    old = runs / trained(runs, rounds=1)["run"]
    of_format(1, old)
    for asked in (lambda: folder_of(runs, loaded), lambda: unfinished(tmp_path, loaded)):
        with pytest.raises(OtherFormat, match="take the fedloom that wrote it"):
            asked()
    assert list(runs.iterdir()) == [old]
    (old / TOLD_FILE).write_text("[]")  # it has ended, and nobody waits for it
    assert unfinished(tmp_path, loaded) == ""
    assert folder_of(runs, loaded).parent == runs
