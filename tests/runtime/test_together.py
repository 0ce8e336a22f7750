"""Parties that are measured together: each one's figures are its own, and so is each one's fault."""

import pytest
from torch import nn

from fedloom.adapters.torch import torch_model
from fedloom.core.examples import Examples, Split
from fedloom.core.task import Evaluate, Evaluated, Fault, Task
from fedloom.recipes import fedavg, fedbn
from fedloom.runtime.together import evaluate_together
from small import classification, small


def asked(strategy, splits):
    """Return the parties of a small federation, an `Evaluate` task for each, and how often the model is loaded."""
    model = torch_model(lambda: nn.Linear(4, 2))
    there, loads = small(model, strategy, splits), []
    kept = model.flat.load
    object.__setattr__(model.flat, "load", lambda vector: loads.append(1) or kept(vector))
    body = Evaluate(there.state.vector)
    parties = list(there.parties.values())
    return parties, [Task(n, party.name, body) for n, party in enumerate(parties, start=1)], body, loads


@pytest.mark.parametrize(("strategy", "loaded"), [(fedavg(), 1), (fedbn(leaves=("bias",)), 5)])
def test_figures_are_those_of_each_by_itself(strategy, loaded):
    """What has leaves at home deploys models of its own, and is not measured together."""
    parties, tasks, body, loads = asked(strategy, classification())
    replies = list(evaluate_together(parties, tasks, body))
    assert len(loads) == loaded
    for party, task, reply in zip(parties, tasks, replies, strict=True):
        (alone,) = party.answer([task])
        assert (reply.numbers, reply.parties) == (alone.numbers, alone.parties)
        assert isinstance(reply.body, Evaluated)
        assert reply.body.metrics.view() == pytest.approx(alone.body.metrics.view(), rel=1e-6, nan_ok=True)


def test_only_who_fails_is_at_fault():
    splits = classification()
    bad = splits["site1"]
    splits["site1"] = Split(bad.train, Examples(bad.held_out.inputs[:, :3], bad.held_out.targets))
    parties, tasks, body, _ = asked(fedavg(), splits)
    bodies = {reply.parties[0]: reply.body for reply in evaluate_together(parties, tasks, body)}
    assert [name for name, found in bodies.items() if isinstance(found, Fault)] == ["site1"]
