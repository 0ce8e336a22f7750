import numpy as np
import pytest

import fedloom
from fedloom.canaries import Nothing
from fedloom.core.errors import ConfigError, DataError
from fedloom.local.canary import Canary
from fedloom.local.solo import Solo


def test_who_works_alone_says_so_and_what_to_do():
    canary = Canary(fedloom.sgd(), np.zeros(3))
    assert isinstance(canary, Solo)
    assert not canary.stacks
    with pytest.raises(ConfigError, match="Canary trains one client at a time; take the engine pool or sequential"):
        canary.train_many(None, None, np.zeros(3), [], [], round=1, streams=[])


def test_a_canary_has_nothing_to_measure():
    with pytest.raises(DataError, match="a canary has no columns to measure 'sums' of; give the trainer its statist"):
        Nothing().measure("sums", {})
