import re
from dataclasses import replace

import numpy as np
import pytest

from fedloom.adapters.numpy import linear, logistic
from fedloom.core.rng import stream
from fedloom.core.task import Evaluate, Evaluated, Fault, Measure, Prepare, Ready, Task, Train, Trained
from fedloom.core.update import Update, verify
from fedloom.local import Custom
from fedloom.recipes import fedavg, scaffold
from fedloom.runtime.trainer import Trainer
from fedloom.stages import Clip, Quantize
from small import Rows, classification, same_tree, small

SPLITS = classification()


def made(strategy=None, **options):
    return small(logistic(4), strategy or fedavg(), SPLITS, **options)


def train_task(there, number=1, party="site0", **changes):
    body = Train(1, there.state.vector, there.terms.total.digest, there.terms.cap, (None, None))
    return Task(number, party, replace(body, **changes))


def answer(party, task):
    (reply,) = party.answer([task])
    assert (reply.numbers, reply.parties) == ((task.number,), (party.name,))
    assert reply.seconds >= 0
    return reply.body


def test_it_trains_and_sends_a_weighed_update():
    there = made()
    body = answer(there.parties["site0"], train_task(there))
    assert isinstance(body, Trained)
    assert verify(body.update, there.terms.total).count == 1
    assert body.update.vector[-1] == 12 / there.terms.cap
    assert body.metrics.examples == 12


def test_an_encoded_update_carries_its_weight_beside_it():
    there = made(replace(fedavg(), stages=(Clip(1.0), Quantize(8))))
    update = answer(there.parties["site0"], train_task(there)).update
    assert update.vector.dtype == np.uint8
    assert update.side["weight"] == 12 / 32
    assert update.layout == there.terms.payload


def test_a_task_sent_again_gives_the_same_bits_and_another_number_does_not():
    there = made(replace(fedavg(), stages=(Quantize(14),)))
    party = there.parties["site0"]
    found = [answer(party, train_task(there, number)).update.vector.tobytes() for number in (1, 1, 2, 3, 4, 5)]
    assert found[0] == found[1]
    assert len(set(found)) > 2


def test_memory_moves_only_when_it_learns_that_it_was_counted():
    there = made(scaffold())
    party = there.parties["site0"]
    answer(party, train_task(there, 1))
    assert not party.remembered()["local"].any()
    party.settle([2, 3])
    assert not party.remembered()["local"].any()
    assert party.pending == {}
    answer(party, train_task(there, 4))
    pending = party.pending[4]
    party.settle([3, 4])
    assert party.remembered()["local"].any()
    assert same_tree(party.memory, pending)
    assert party.pending == {}


def test_a_task_for_another_layout_is_refused():
    there = made()
    fault = answer(there.parties["site0"], train_task(there, layout="0" * 64))
    assert (fault.phase, fault.error) == ("train", "DigestMismatch")
    assert "the task is for layout 000000000000, this party has" in fault.message
    alone = Trainer("site0", there.model, there.strategy, Rows(SPLITS["site0"]), 0)
    assert "this party has none" in answer(alone, train_task(there)).message


def test_without_prepared_rows_it_says_what_to_do():
    there = made()
    party = there.parties["site0"]
    party.split = None
    assert "send a Prepare task first" in answer(party, train_task(there)).message
    assert "send a Prepare task first" in answer(party, Task(2, "site0", Evaluate(there.state.vector))).message
    assert answer(party, Task(3, "site0", Prepare({}))) == Ready(12, 4)
    assert isinstance(answer(party, train_task(there)), Trained)


def test_it_measures_its_rows():
    party = made().parties["site0"]
    body = answer(party, Task(1, "site0", Measure("sums")))
    assert isinstance(body, Update)
    assert body.vector.tolist() == [12.0]
    assert answer(party, Task(1, "site0", Measure("medians"))).error == "ValueError"


def test_it_evaluates_on_what_it_holds_out():
    there = made()
    party = there.parties["site1"]
    body = answer(party, Task(1, "site1", Evaluate(there.state.vector)))
    expected = there.model.evaluate(there.state.vector, SPLITS["site1"].held_out)
    assert isinstance(body, Evaluated)
    assert (body.metrics.view(), body.estimate) == (expected.view(), None)
    assert party.memory is None or party.remembered()["local"] is None


def test_a_bootstrap_is_handed_in_or_refused():
    there = made()
    party, task = there.parties["site1"], Task(1, "site1", Evaluate(there.state.vector, "accuracy", 50))
    assert "set up without a bootstrap" in answer(party, task).message
    party.bootstrap = lambda model, vector, data, figure, resamples, seed: (data.size, resamples, seed)
    assert answer(party, task).estimate == (4, 50, 0)


@pytest.mark.parametrize(
    ("found", "said"),
    [
        ({"mean": np.arange(12.0)}, "its mean must be one finite number for all rows"),
        ({"mean": [1.0] * 12}, "its mean must be one finite number for all rows"),
        ({"mean": np.array(1.0)}, "its mean must be one finite number for all rows"),
        ({"mean": float("nan")}, "its mean must be one finite number for all rows"),
        ({"mean": True}, "its mean must be one finite number for all rows"),
        ({"mean": 0.0, "scale": float("inf")}, "its scale must be one finite number for all rows"),
        ({"mean": 0.0, "scale": 0.0}, "its scale must be above 0, got 0.0"),
        (np.arange(12.0), "a mean and a scale are expected, got ndarray"),
    ],
    ids=str,
)
def test_statistics_that_tell_rows_apart_are_refused(found, said):
    """With a mean for each row, a sum of squares is one cell; with infinite scales, all rows but those meant are 0."""
    party = made().parties["site0"]
    for body in (Measure("sums", {"age": found}), Prepare({"age": found})):
        fault = answer(party, Task(1, "site0", body))
        assert fault.error == "DataError"
        assert said in fault.message


def test_what_is_not_a_task_is_refused():
    party = made().parties["site0"]
    fault = answer(party, Task(1, "site0", {"train": True}))
    assert (fault.phase, fault.error) == ("dict", "DataError")
    assert "a task of type dict is not known here" in fault.message


def test_whatever_the_users_code_raises_is_a_fault_without_folders():
    def broken(params, data, config):
        raise KeyError("age")

    there = made(replace(fedavg(), local=Custom(function=broken)))
    party = there.parties["site0"]
    fault = answer(party, train_task(there))
    assert isinstance(fault, Fault)
    assert (fault.site, fault.phase, fault.error) == ("site0", "train", "KeyError")
    assert re.fullmatch(r"test_trainer\.py:\d+ broken", fault.trace[-1])
    assert not any("/" in line or "\\" in line for line in fault.trace)
    assert party.pending == {}


@pytest.mark.parametrize("strategy", [fedavg(), scaffold()], ids=["fedavg", "scaffold"])
@pytest.mark.parametrize("size", [0, 4, 9, 12])
def test_a_shared_vector_of_another_size_is_refused(strategy, size):
    there = made(strategy)
    for task in (train_task(there, start=np.zeros(size)), Task(1, "site0", Evaluate(np.zeros(size)))):
        fault = answer(there.parties["site0"], task)
        assert fault.error == "LayoutMismatch"
        assert f"got shape ({size},)" in fault.message


def test_an_exception_without_words_has_a_message():
    def broken(params, data, config):
        raise RuntimeError

    there = made(replace(fedavg(), local=Custom(function=broken)))
    assert answer(there.parties["site0"], train_task(there)).message == "no message"


def test_an_interrupt_is_no_fault():
    def stopped(params, data, config):
        raise KeyboardInterrupt

    there = made(replace(fedavg(), local=Custom(function=stopped)))
    with pytest.raises(KeyboardInterrupt):
        answer(there.parties["site0"], train_task(there))


def test_each_task_of_several_is_answered():
    there = made()
    party = there.parties["site0"]
    replies = list(party.answer([train_task(there, 1), Task(2, "site0", Evaluate(np.zeros(1))), train_task(there, 3)]))
    assert [type(reply.body).__name__ for reply in replies] == ["Trained", "Fault", "Trained"]


def test_the_streams_of_stages_and_local_work_are_its_own():
    """By hand: stream(seed, number), child "local" and child "stage" i."""
    there = made(replace(fedavg(), stages=(Clip(1.0), Quantize(8))), seed=5)
    party, streams = there.parties["site3"], stream(5, 11)
    work = there.strategy.local.train(
        there.model, there.state.vector, SPLITS["site3"].train, None, round=1, streams=streams.child("local")
    )
    update, _ = Clip(1.0).encode(Update(work.delta, there.terms.payload), None, None, streams.child("stage").child(0))
    update, _ = Quantize(8).encode(update, None, None, streams.child("stage").child(1))
    sent = answer(party, train_task(there, 11, "site3")).update
    assert sent.vector.tobytes() == update.vector.tobytes()


def test_another_model_shape_is_another_digest():
    assert made().terms.total.digest != small(linear(5), fedavg(), SPLITS).terms.total.digest
