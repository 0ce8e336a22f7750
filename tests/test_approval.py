"""What leaves, as a site's own copy of an app says, and the approvals of it."""

import json
from dataclasses import replace

import pytest

import fedloom
from apps import app, written
from fedloom.approval import (
    Approval,
    approval_of,
    approved,
    difference,
    last,
    leaving,
    listed,
    revoke,
    store,
)
from fedloom.core.errors import ConfigError
from fedloom.core.task import Evaluated, Trained
from fedloom.load import load
from fedloom.simulation import simulate
from fedloom.trust import trust

TABLE = """\
name = "ward"
rounds = 10
evaluate_every = 3

[data]
source = "csv"
path = "ward.csv"
label = { column = "sick", classes = ["no", "yes"] }

[data.columns]
age = { kind = "numeric" }
weight = { kind = "numeric" }
sex = { kind = "categorical", categories = ["f", "m"] }

[strategy]
name = "fedavg"
weights = "equal"
stages = [{ name = "clip", norm = 1.0 }, { name = "quantize", bits = 8 }]
"""

# By hand: 2 numeric columns and 2 categories are 4 inputs of a logistic model, so 4 weights and a bias; 5 values of 8
# bits and two float32 scales (one for each leaf) are 13 bytes, and the weight beside them counts 8. An evaluation: 3
# sums and two histograms of 4096 bins, 8 bytes each. 10 rounds measured every 3, and the last: rounds 3, 6, 9, 10.
GOLDEN = """\
tensor: weight [1, 4] float32 parameter, 8 bits a value
tensor: bias [1] float32 parameter, 8 bits a value
protection: stage Clip(norm=1.0)
protection: stage Quantize(bits=8)
protection: gather Plain(): the coordinator sees each update
protection: differential privacy: none, epsilon = ∞ (no differential privacy)
measured: examples
measured: loss
measured: correct
measured: positives (4096 bins)
measured: negatives (4096 bins)
statistic: age: count, sum, squares
statistic: weight: count, sum, squares
on the wire: uint8
bytes up a round: 21
bytes up an evaluation: 65,560
rounds at most: 10
evaluations at most: 4, besides those for a report after the last round
with each update: sums of the local training's metrics (of this library: examples, loss)
weight: Equal(), tells nothing of the rows; the numbers of training and held-out rows are declared besides
"""


@pytest.fixture
def ward(tmp_path):
    return load(written(tmp_path, TABLE, "ward.toml"))


def made(digit, name="ward", when="2026-01-01T00:00:00.000Z", lines=("rounds: 1",), revoked=""):
    return Approval(digit * 64, name, when, "ida", "0", lines, revoked)


def test_the_summary_of_an_app_in_a_file(ward):
    lines = leaving(ward.app).lines()
    assert "".join(f"{line}\n" for line in lines[:-1]) == GOLDEN
    assert lines[-1] == f"trust: {trust(ward.app.strategy)}"


def test_it_needs_no_rows(ward, tmp_path):
    assert not (tmp_path / "ward.csv").exists()
    assert leaving(ward.app).tensors[0].name == "weight"


STRATEGIES = {
    "plain": fedloom.fedavg(),
    "encoded": replace(fedloom.fedavg(), stages=(fedloom.Clip(1.0), fedloom.Quantize(4))),
    "more blocks": fedloom.scaffold(),
}


@pytest.mark.parametrize("name", STRATEGIES)
def test_what_is_said_is_what_a_party_sends(name):
    """Oracle: the replies of real parties of a real round."""
    ours = app(strategy=STRATEGIES[name], rounds=1)
    shown, there, sent = leaving(ours), simulate(ours), []
    for party in there.parties.values():
        party.answer = _listening(party.answer, sent)
    (state,) = there.rounds(there.first())
    updates = [body.update for body in sent if isinstance(body, Trained)]
    assert len(updates) == 3
    assert {update.size_bytes for update in updates} == {shown.bytes_up}
    assert {str(update.vector.dtype) for update in updates} == {shown.wire}
    leaves = {key for key, leaf in updates[0].layout.named() if leaf.block != "weight"}
    assert leaves == {tensor.name for tensor in shown.tensors}
    sums = {key for body in sent if isinstance(body, Evaluated) for key in body.metrics.sums}
    assert sums == {said.split(" ")[0] for said in shown.metrics}
    assert state.round == 1


def _listening(answer, sent):
    def answered(tasks):
        for reply in answer(tasks):
            sent.append(reply.body)
            yield reply

    return answered


def test_leaves_that_stay_at_home_are_named():
    strategy = fedloom.fedavg()
    kept = replace(strategy, local=fedloom.AtHome(local=strategy.local, leaves=("bias",)))
    shown = leaving(app(strategy=kept))
    assert ([tensor.name for tensor in shown.tensors], shown.home) == (["weight"], ("bias",))
    assert "stays at home: bias" in shown.lines()


def test_a_model_that_cannot_be_measured_on_made_up_rows_is_not_shown(monkeypatch):
    ours = app()

    def evaluate(self, x, rows):
        raise ValueError("three rows at least")

    monkeypatch.setattr(type(ours.built), "evaluate", evaluate)
    with pytest.raises(
        ConfigError, match=r"fails on made-up rows of shape \(30,\) \(ValueError: three rows at least\)"
    ):
        leaving(ours)


def test_an_approval_comes_back_and_is_revoked(tmp_path, ward):
    assert not approved(tmp_path, ward.identity)
    given = approval_of(ward, leaving(ward.app))
    path = store(tmp_path, given)
    assert path == tmp_path / "approvals" / f"{ward.identity}.json"
    assert approved(tmp_path, ward.identity)
    assert listed(tmp_path) == [given]
    assert (given.name, given.version, bool(given.who)) == ("ward", fedloom.__version__, True)
    ended = revoke(tmp_path, ward.identity[:12])
    assert not approved(tmp_path, ward.identity)
    assert listed(tmp_path) == [ended]
    assert replace(ended, revoked="") == given


def test_what_happens_to_the_file_is_seen_at_the_next_question(tmp_path, ward):
    path = store(tmp_path, approval_of(ward, leaving(ward.app)))
    content = path.read_text()
    assert approved(tmp_path, ward.identity)
    path.write_text(content.replace('"revoked": ""', '"revoked": "now"'))
    assert not approved(tmp_path, ward.identity)
    path.write_text(content)
    assert approved(tmp_path, ward.identity)
    path.unlink()
    assert not approved(tmp_path, ward.identity)


def test_another_version_of_the_app_is_not_approved(tmp_path, ward):
    store(tmp_path, approval_of(ward, leaving(ward.app)))
    other = load(ward.source, ["rounds=11"])
    assert not approved(tmp_path, other.identity)


def test_the_last_version_is_the_newest_of_that_name_that_holds(tmp_path):
    days = {"a": "01", "b": "03", "c": "02", "d": "04"}
    for digit, day in days.items():
        store(tmp_path, made(digit, when=f"2026-01-{day}T00:00:00.000Z", revoked="x" if digit == "d" else ""))
    store(tmp_path, made("e", name="another", when="2026-02-01T00:00:00.000Z"))
    assert last(tmp_path, "ward").digest == "b" * 64
    assert last(tmp_path, "nobody's") is None
    assert [each.digest[0] for each in listed(tmp_path)] == ["a", "c", "b", "d", "e"]


def test_a_revocation_names_one_approval(tmp_path):
    for digit in "ab":
        store(tmp_path, made(digit))
    for wrong in ("c", ""):
        with pytest.raises(ConfigError, match=f"'{wrong}' is no approval that holds; there are a{{12}}, b{{12}}"):
            revoke(tmp_path, wrong)
    store(tmp_path, replace(made("a"), digest="a" * 63 + "0"))
    with pytest.raises(ConfigError, match="is more than one approval"):
        revoke(tmp_path, "aa")
    revoke(tmp_path, "b")
    with pytest.raises(ConfigError, match="is no approval that holds"):
        revoke(tmp_path, "b")


@pytest.mark.parametrize("digest", ["", "abc", "../" * 21 + "a", "A" * 64, "g" * 64])
def test_what_is_no_digest_is_no_path(tmp_path, digest):
    with pytest.raises(ConfigError, match="64 hexadecimal digits"):
        approved(tmp_path, digest)


@pytest.mark.parametrize("content", ["", "[]", '{"digest": "a"}', "{", "\x00"])
def test_a_damaged_approval_does_not_hold(tmp_path, content):
    path = store(tmp_path, made("a"))
    path.write_text(content)
    with pytest.raises(ConfigError, match=r"cannot be read: .*; delete it, and approve again"):
        approved(tmp_path, "a" * 64)


def test_an_approval_under_another_apps_digest_does_not_hold(tmp_path):
    path = store(tmp_path, made("a"))
    path.rename(path.with_name(f"{'b' * 64}.json"))
    with pytest.raises(ConfigError, match="is of another app"):
        approved(tmp_path, "b" * 64)


def test_a_folder_that_cannot_be_made(tmp_path):
    (tmp_path / "home").write_text("a file")
    with pytest.raises(ConfigError, match="choose another --home"):
        store(tmp_path / "home", made("a"))


def test_what_is_stored_is_plain_json(tmp_path):
    found = json.loads(store(tmp_path, made("a")).read_text())
    assert found["lines"] == ["rounds: 1"]
    assert (found["who"], found["revoked"]) == ("ida", "")


def test_a_difference_is_by_field():
    before = leaving(app(rounds=2)).lines()
    after = leaving(app(rounds=3, strategy=replace(fedloom.fedavg(), stages=(fedloom.Clip(1.0),)))).lines()
    changed = [line for line in difference(before, after) if line[0] != " "]
    assert changed == [
        "-protection: stages: none",
        "+protection: stage Clip(norm=1.0)",
        "-rounds at most: 2",
        "-evaluations at most: 2, besides those for a report after the last round",
        "+rounds at most: 3",
        "+evaluations at most: 3, besides those for a report after the last round",
    ]
    assert difference(before, before) == []
