"""What may pass, such as a database that is not there now, is told from what will not."""

import pytest
from sqlalchemy import create_engine
from sqlalchemy.exc import ProgrammingError

from fedloom.core.errors import RunError, StorageError
from fedloom.store.gone import unusable


@pytest.mark.parametrize(
    ("state", "kind"), [("28P01", StorageError), ("3D000", StorageError), ("53100", StorageError), ("42P01", RunError)]
)
def test_a_missing_database_is_as_good_as_one_that_lets_nobody_in(state, kind):
    said = ProgrammingError("SELECT 1", {}, Exception({"C": state, "M": "it says why"}))
    told = unusable(create_engine("sqlite://"), said)
    assert type(told) is kind
    assert str(told) == "the journal None cannot be read or written: it says why."
