"""A run in a database is held by one at a time, and let go of with its connection."""

import pytest
from postgres import controlled, server

from fedloom.core.errors import RunError, StorageError
from fedloom.store.hold import held
from fedloom.store.journal import opened_engine

RUN, OTHER = "20260103-000001-app-00f1", "20260103-000002-app-00f2"


def test_a_run_in_a_file_is_held_by_its_folder(tmp_path):
    engine = opened_engine(f"sqlite:///{tmp_path / 'journal.db'}")
    with held(engine, RUN), held(engine, RUN):
        pass
    engine.dispose()


@pytest.mark.slow
def test_one_at_a_time():
    with server() as url:
        first, second = opened_engine(url, run=RUN), opened_engine(url, run=RUN)
        with held(first, RUN):
            with (
                pytest.raises(RunError, match=f"the run {RUN} in this database is served by another"),
                held(second, RUN),
            ):
                pass
            with held(second, OTHER):
                pass
        with held(second, RUN):
            pass
        first.dispose(), second.dispose()


@pytest.mark.slow
def test_a_database_that_goes_takes_the_hold_with_it_and_is_no_error_at_the_end():
    with controlled() as (url, control):
        engine = opened_engine(url, run=RUN)
        with held(engine, RUN):
            control("-m", "fast", "stop")
        with pytest.raises(StorageError), held(engine, RUN):
            pass
        control("start")
        with held(engine, RUN):
            pass
        engine.dispose()
