"""What a run says follows docs/events.schema.json, however it ends."""

import json
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import jsonschema
import numpy as np
import pytest

import fedloom
from fedloom import events
from fedloom.core.errors import QuorumLost
from fedloom.running import begin

SCHEMA = json.loads((Path(__file__).parents[1] / "docs" / "events.schema.json").read_text())
VALIDATOR = jsonschema.Draft202012Validator(SCHEMA)


def app(**changes):
    data = fedloom.Data(source=fedloom.SklearnSet("breast_cancer"), partition=fedloom.Iid(3))
    return fedloom.App(**{"model": fedloom.BuiltIn(name="logistic"), "data": data, "rounds": 2} | changes)


def told(recording):
    """Run a recording to its end; return its events as a reader of strict JSON gets them."""
    with closing(recording):
        said = [events.round_event(state) for state in recording.rounds()]
    return read([*said, recording.summary])


def read(said):
    return [json.loads(json.dumps(event, allow_nan=False)) for event in said]


def failing(sizes):
    """Return a strategy in which clients with so many training examples fail."""

    def train(params, data, config):
        if data.size in sizes:
            raise OSError("disk full")
        return params

    return replace(fedloom.fedavg(), local=fedloom.Custom(function=train), schedule=fedloom.Sync(quorum=1))


def test_the_schema_is_a_schema():
    jsonschema.Draft202012Validator.check_schema(SCHEMA)


def test_a_run_says_its_rounds_and_one_end():
    said = told(begin(app()))
    assert [event["event"] for event in said] == ["round", "round", "end"]
    for event in said:
        VALIDATOR.validate(event)
    assert (said[0]["counted"], said[-1]["status"], said[-1]["metrics"]) == (3, "completed", said[1]["metrics"])


def test_a_round_that_was_not_evaluated_has_no_figures():
    first, second, end = told(begin(app(evaluate_every=2)))
    for event in (first, second, end):
        VALIDATOR.validate(event)
    assert not {"metrics", "measured_on", "sites"} & set(first)
    assert {"metrics", "measured_on", "sites"} <= set(second)


def test_figures_of_an_official_test_part_say_so():
    inputs, targets = np.eye(12, dtype=np.float32), np.arange(12) % 2
    source = fedloom.Arrays(inputs, targets, classes=2, test_part=(inputs[:5], targets[:5]))
    said = told(begin(app(data=fedloom.Data(source=source, partition=fedloom.Iid(2)))))
    for event in said:
        VALIDATOR.validate(event)
    assert (said[0]["measured_on"], said[0]["metrics"]["examples"]) == ("test", 5)


def test_a_fault_is_told_with_its_site_and_phase():
    said = told(begin(app(strategy=failing({152}))))
    for event in said:
        VALIDATOR.validate(event)
    assert said[0]["counted"] == 3 - len(said[0]["faults"])
    assert {(fault["phase"], fault["error"]) for fault in said[0]["faults"]} == {("train", "OSError")}


def test_a_run_that_fails_or_is_stopped_still_says_how_it_ended():
    recording = begin(app(strategy=failing(range(1000))))
    with pytest.raises(QuorumLost):
        told(recording)
    stopped = begin(app())
    rounds = stopped.rounds()
    next(rounds)
    rounds.close()
    for event, status in zip(read([recording.summary, stopped.summary]), ("failed", "stopped"), strict=True):
        VALIDATOR.validate(event)
        assert event["status"] == status


def test_a_recorded_run_names_its_model_and_digest(tmp_path):
    end = told(begin(app(rounds=1), tmp_path))[-1]
    VALIDATOR.validate(end)
    assert Path(end["model"]).is_file()
    assert len(end["sha256"]) == 64


def test_what_the_schema_does_not_know_is_an_error():
    event = told(begin(app(rounds=1)))[0]
    assert not VALIDATOR.is_valid(event | {"surplus": 1})
    assert not VALIDATOR.is_valid({name: value for name, value in event.items() if name != "epsilon"})
    assert not VALIDATOR.is_valid({name: value for name, value in event.items() if name != "sites"})


def test_a_buffered_step_tells_how_stale_its_updates_were():
    strategy = fedloom.fedbuff(size=2, concurrency=3)
    said = told(begin(app(strategy=strategy, rounds=4), traces=fedloom.Traces(mean_s=5.0)))
    for event in said:
        VALIDATOR.validate(event)
    assert all(len(event["staleness"]) == len(event["cohort"]) == event["counted"] == 2 for event in said[:-1])
    assert max(max(event["staleness"]) for event in said[:-1]) > 0
    assert "staleness" not in told(begin(app()))[0]
