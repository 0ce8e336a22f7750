from inspect import signature

import numpy as np
import pytest

from fedloom.adapters.numpy import linear
from fedloom.core.errors import RunError
from fedloom.core.state import State
from fedloom.recipes import RECIPES, fedasync, fedbn, fedbuff, scaffold, sgd
from fedloom.store.files import dump, restore
from small import regression, same_tree, small


def made(recipe):
    settings = {fedbn: {"leaves": ("bias",)}, fedbuff: {"size": 2, "concurrency": 4}, fedasync: {"concurrency": 4}}
    noise = {"seeded": True} if "seeded" in signature(recipe).parameters else {}
    return recipe(**settings.get(recipe, noise))


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda recipe: recipe.__name__)
def test_a_stored_state_goes_on_with_the_same_bits(recipe):
    splits = regression()
    ahead = small(linear(3), made(recipe), splits).run(4)
    first = small(linear(3), made(recipe), splits)
    state = first.run(2)[-1]
    restored = State.of(restore(dump(state.tree())))
    assert same_tree(restored.tree(), state.tree())
    first.state = restored
    assert [s.vector.tobytes() for s in first.run(2)] == [s.vector.tobytes() for s in ahead[2:]]


def test_memories_of_the_clients_are_trees_too():
    splits = regression()
    ahead = small(linear(3), scaffold(sgd(0.05)), splits).run(3)
    first = small(linear(3), scaffold(sgd(0.05)), splits)
    state = first.run(2)[-1]
    second = small(linear(3), scaffold(sgd(0.05)), splits)
    second.state = State.of(restore(dump(state.tree())))
    for name, party in second.parties.items():
        party.memory = restore(dump(first.parties[name].memory))
    assert second.run(1)[0].vector.tobytes() == ahead[2].vector.tobytes()


def test_scalar_leaves_stay_scalars(tmp_path):
    tree = State(0, small(linear(3), made(fedbn), regression()).terms.payload, np.zeros(3), stop={"x": np.array(1.0)})
    assert State.of(restore(dump(tree.tree()))).stop["x"].shape == ()


@pytest.mark.parametrize("tree", [None, [], {}, {"version": 1}, {"version": "2"}, 3])
def test_something_else_is_refused(tree):
    with pytest.raises(RunError, match="not a state of version 2"):
        State.of(tree)


def test_a_state_is_a_value():
    state = small(linear(3), scaffold(), regression()).state
    moved = state.but(round=5)
    assert (state.round, moved.round, moved.vector is state.vector) == (0, 5, True)
