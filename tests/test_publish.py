import json
from contextlib import closing
from dataclasses import replace

import pytest

import fedloom
from apps import app, ended
from fedloom.core.errors import UnknownRun
from fedloom.publish import COMPARISON_FILE, publish, settings, written
from fedloom.running import begin, resume
from fedloom.training import NETWORK


@pytest.fixture
def recording(tmp_path):
    with closing(begin(app(), tmp_path)) as recording:
        for _ in recording.rounds():
            pass
        yield recording


def test_a_report_and_its_comparison_are_written(recording):
    made = publish(recording, recording.state)
    assert made.path == recording.folder / "report.html"
    page = made.path.read_text()
    for text in (recording.run, "client-002", recording.summary["sha256"], "31", "alone", "pooled"):
        assert text in page
    assert json.loads((recording.folder / COMPARISON_FILE).read_text())["round"] == 2


def test_a_stored_comparison_is_used_again(recording):
    told = []
    first = publish(recording, recording.state, tick=told.append)
    assert told
    second = publish(recording, recording.state, tick=told.append)
    assert second.comparison == first.comparison
    assert told == ["pooled", "client-000", "client-001", "client-002"]


def test_a_comparison_of_another_round_is_not(recording):
    publish(recording, recording.state)
    told = []
    publish(recording, recording.state.but(round=1), tick=told.append)
    assert told


def test_it_can_be_left_out(recording):
    made = publish(recording, recording.state, wanted=False)
    assert made.comparison.rows == ()
    assert f"`fedloom report {recording.run} --compare` trains 3 sites alone" in made.comparison.note
    assert not (recording.folder / COMPARISON_FILE).exists()


def test_many_sites_are_only_compared_when_that_is_asked_for(tmp_path):
    data = fedloom.Data(source=fedloom.SklearnSet("breast_cancer"), partition=fedloom.Iid(13))
    with closing(begin(app(data=data, rounds=1), tmp_path)) as recording:
        *_, state = recording.rounds()
        assert publish(recording, state).comparison.rows == ()
        assert len(publish(recording, state, wanted=True).comparison.rows) == 13


def test_a_resumed_run_is_published_alike(tmp_path):
    recording = begin(app(), tmp_path)
    ended(recording)
    with closing(resume(app(), recording.folder, ended=True)) as again:
        made = publish(again, again.state)
    assert [row.site for row in made.comparison.rows] == ["client-000", "client-001", "client-002"]


@pytest.mark.parametrize(("limit", "told"), [(128, True), (256, False)])
def test_weights_that_were_cut_off_are_said(tmp_path, limit, told):
    """The three clients have some 150 rows each to train on."""
    strategy = replace(fedloom.fedavg(), weights=fedloom.ByExamples(limit=limit))
    with closing(begin(app(strategy=strategy, rounds=1), tmp_path)) as recording:
        *_, state = recording.rounds()
        page = publish(recording, state, wanted=False).path.read_text()
    assert ("3 of 3 clients have more than 128 examples and count as 128" in page) is told
    assert ("weights cut off" in page) is told


def test_settings_are_said_in_words():
    said = settings(app(strategy=fedloom.fedprox(fedloom.sgd(0.5), mu=0.3)))
    assert said["local work"].startswith("Prox(mu 0.3, sgd Sgd(")
    assert said["stages"] == "none"
    assert (said["rounds"], said["held out"]) == ("2", "0.2")
    assert said["partition"] == "Iid(clients 3)"


@pytest.mark.parametrize(
    ("described", "text"),
    [
        ({"code": "abc"}, "own code"),
        ({"model": "0123456789abcdef", "figures": ["auc", "loss"]}, "own model 0123456789ab, measured by auc, loss"),
        ({"model": "0123456789abcdef", "figures": ["loss"], "l2": 0.1}, "own model 0123456789ab, measured by loss"),
        ({"Everyone": {}}, "Everyone"),
        ([], "none"),
        ([{"Clip": {"norm": 1.0}}, {"Plain": {}}], "Clip(norm 1.0), Plain"),
        ({"a": 1, "b": 2}, "a 1, b 2"),
        ({}, "none"),
    ],
)
def test_described_values_as_people_read_them(described, text):
    assert written(described) == text


def test_the_report_of_a_run_between_institutions_compares_nothing_and_says_so(recording, monkeypatch):
    """Reopened where the app's own rows can be read, these are not what the sites have trained on."""
    publish(recording, recording.state)
    row = recording.journal.row()
    monkeypatch.setattr(recording.journal, "row", lambda: replace(row, engine=NETWORK))
    made = publish(recording, recording.state, wanted=True)
    assert (made.comparison.rows, made.comparison.note) == ((), "There is no comparison: the rows are at the sites.")
    assert "the rows are at the sites" in made.path.read_text()
    assert "client-002" in made.path.read_text()  # whose figures were told


@pytest.mark.parametrize(
    ("ended", "said"),
    [
        ({"status": "stopped"}, r"is one between institutions; `fedloom serve`, with the words that began it"),
        (
            {"status": "failed", "reason": "two are away."},
            r"know that it failed: two are away\. `fedloom serve`",
        ),
    ],
)
def test_a_run_between_institutions_is_not_resumed_here(recording, monkeypatch, ended, said):
    recording.close()
    monkeypatch.setattr("fedloom.running._continuable", lambda *_: None)
    with closing(resume(app(), recording.folder, ended=True)) as again:
        row = again.journal.row()
    monkeypatch.setattr("fedloom.store.journal.Journal.row", lambda self: replace(row, engine=NETWORK, **ended))
    with pytest.raises(UnknownRun, match=said):
        resume(app(), recording.folder)
