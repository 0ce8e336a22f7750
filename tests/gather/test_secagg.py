"""A strategy with a hidden sum trains like one without, bit for bit, and what does not fit it is refused."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import fedloom
from fedloom import Clip, FixedPoint, Plain, Quantize, SecAgg, Sync, Traces
from fedloom.adapters.numpy import linear, logistic
from fedloom.core.errors import ConfigError, MissingExtra, QuorumLost, StrategyError
from fedloom.core.hidden import HIDDEN, Advertise, Confirm, Share, Unmask
from fedloom.core.layout import Layout, Leaf
from fedloom.core.task import Fault, Member, Task, Trained
from fedloom.gather.secure.registry import Registry
from fedloom.recipes import fedadam, fedavg, fedbuff, krum, median, scaffold
from small import classification, regression, same_tree, small

LAYOUT = Layout((Leaf("w", (3,)),))


def hidden(strategy=None, *stages, **changes):
    return replace(strategy or fedavg(), stages=(*stages, FixedPoint()), gather=SecAgg(), **changes)


def plain(strategy):
    return replace(strategy, gather=Plain())


def there(strategy, model=None, splits=None, **options):
    """Return a small federation whose parties have identities."""
    made = small(model or logistic(4), strategy, splits or classification(), **options)
    registry = Registry(list(made.parties))
    for name, party in made.parties.items():
        party.identity = registry.identity(name)
    return made


@pytest.mark.parametrize(
    "strategy",
    [
        hidden(),
        hidden(fedadam()),
        hidden(scaffold()),
        hidden(None, Clip(0.1)),
        hidden(None, weights=fedloom.Equal()),
        hidden(fedavg(cohort=4)),
        replace(hidden(), stages=(FixedPoint(limit=0.01),)),
    ],
    ids=["fedavg", "fedadam", "scaffold", "clip", "equal", "cohort of 4", "limit"],
)
def test_a_hidden_sum_trains_to_the_bits_of_the_plain_one(strategy):
    one, other = there(strategy), there(plain(strategy))
    for with_masks, without in zip(one.run(4), other.run(4), strict=True):
        assert same_tree(with_masks.tree(), without.tree())
        mine, theirs = with_masks.record, without.record
        assert (mine.counted, mine.parties, mine.faults) == (theirs.counted, theirs.parties, theirs.faults)
        assert mine.training["examples"] == theirs.training["examples"]
        assert mine.training["loss"] == pytest.approx(theirs.training["loss"], abs=1e-5)


def test_the_server_sees_no_update_before_their_sum():
    """What passes the seam is uniform noise, whatever was trained, and metrics are not beside it."""
    made, seen = there(hidden()), []
    receive = made.federation.receive
    made.federation.receive = lambda ask, timeout_s: seen.append(receive(ask, timeout_s)) or seen[-1]
    made.run(1)
    masked = [reply.body for reply in seen if reply is not None and isinstance(reply.body, Trained)]
    assert len(masked) == 5
    for body in masked:
        assert body.update.vector.dtype == np.uint32
        assert body.metrics.sums == {"examples": 0}
        assert (np.abs(body.update.vector.view(np.int32)) > 2**20).mean() > 0.5  # a delta here is far below


def test_who_drops_out_is_a_fault_and_the_others_are_summed():
    strategy = hidden(schedule=Sync(quorum=4))
    made = there(strategy)
    made.parties["site2"].strategy = replace(strategy, local=Failing())
    (state,) = made.run(1)
    assert state.record.parties == ("site0", "site1", "site3", "site4")
    assert [(fault.site, fault.phase, fault.error) for fault in state.record.faults] == [
        ("site2", "train", "ZeroDivisionError")
    ]


class Failing(fedloom.Sgd):
    def train(self, *given, **named):
        raise ZeroDivisionError("a bug in the user's code")


def test_below_the_threshold_the_round_is_lost_and_says_why():
    strategy = hidden(schedule=Sync(quorum=1))
    made = there(strategy)
    for name in ("site0", "site2"):
        made.parties[name].strategy = replace(strategy, local=Failing())
    with pytest.raises(
        QuorumLost, match="3 of 5 clients sent masked updates, and a hidden sum of 5 needs 4 to the end"
    ):
        made.run(1)


def test_in_virtual_time_clients_drop_out_and_the_rest_is_summed():
    data = fedloom.Data(source=fedloom.SklearnSet("breast_cancer"), partition=fedloom.Iid(12))
    app = fedloom.App(
        model=fedloom.BuiltIn(name="logistic"),
        data=data,
        rounds=4,
        strategy=hidden(fedavg(), schedule=Sync(quorum=9)),
    )
    slow = Traces(dropout=0.08, timeout_s=50.0)
    one = [s.vector.tobytes() for s in fedloom.run(app, traces=slow)]
    other = [s.vector.tobytes() for s in fedloom.run(replace(app, strategy=plain(app.strategy)), traces=slow)]
    assert one == other
    *_, last = fedloom.run(app, traces=slow)
    assert last.status == "completed"


def test_a_run_that_was_stopped_goes_on_to_the_same_bits(tmp_path):
    from fedloom.running import begin, resume

    app = fedloom.App(
        model=fedloom.BuiltIn(name="logistic"),
        data=fedloom.Data(source=fedloom.SklearnSet("breast_cancer"), partition=fedloom.Iid(4)),
        rounds=4,
        strategy=hidden(scaffold()),
    )
    *_, whole = fedloom.run(app)
    recording = begin(app, tmp_path)
    states = recording.rounds()
    next(states), next(states)
    states.close()
    recording.close()
    again = resume(app, recording.folder)
    *_, last = again.rounds()
    again.close()
    assert last.round == 4
    assert last.vector.tobytes() == whole.vector.tobytes()


def test_a_toml_app_may_ask_for_it(tmp_path):
    from fedloom.spec import load

    path = tmp_path / "app.toml"
    path.write_text(
        'data = "breast_cancer"\nclients = 4\nrounds = 1\n'
        '[strategy]\ngather = "secagg"\nstages = [{name = "clip", norm = 1.0}, {name = "fixed_point", limit = 0.5}]\n'
    )
    app = load(path)
    assert app.strategy.gather == SecAgg()
    assert app.strategy.stages == (Clip(1.0), FixedPoint(limit=0.5))
    path.write_text(path.read_text().replace("secagg", "hidden"))
    with pytest.raises(ConfigError, match="secagg"):
        load(path)


# -- refused


@pytest.mark.parametrize("fraction", [0.0, 0.49, 1.0, 2.0, float("nan")])
def test_a_threshold_that_protects_nobody_is_refused(fraction):
    with pytest.raises(StrategyError, match=r"SecAgg.fraction must be in \[1/2, 1\)"):
        SecAgg(fraction=fraction)


@pytest.mark.parametrize("fraction", [0.5, 0.6, 2 / 3, 0.75, 0.9, 0.99])
def test_two_thresholds_never_fit_into_one_cohort(fraction):
    """2t > n: two disjoint groups, or two lists of survivors, cannot both reach it."""
    for clients in range(3, 400):
        threshold = SecAgg(fraction=fraction).threshold(clients)
        assert 2 * threshold > clients
        assert threshold >= 3
        assert threshold > fraction * clients - 1e-9


def test_a_cohort_in_which_nobody_could_hide_is_refused():
    members = [Member(name, 10) for name in "ab"]
    with pytest.raises(StrategyError, match="SecAgg needs a cohort of 3 clients or more, got 2"):
        hidden().bind(LAYOUT, members)
    hidden().bind(LAYOUT, [*members, Member("c", 10)])


def test_a_sum_that_does_not_fit_32_bits_is_refused():
    with pytest.raises(StrategyError, match=r"add FixedPoint\(\) to the strategy's stages"):
        replace(fedavg(), gather=SecAgg()).bind(LAYOUT, [Member(name, 10) for name in "abc"])


@pytest.mark.parametrize(
    ("strategy", "who"),
    [
        (lambda: replace(fedavg(), stages=(Quantize(8),), gather=SecAgg()), "Quantize"),
        (lambda: replace(median(), gather=SecAgg()), "Median"),
        (lambda: replace(krum(byzantine=1), gather=SecAgg()), "Krum"),
        (lambda: replace(fedbuff(), stages=(FixedPoint(),), gather=SecAgg()), "Buffered"),
    ],
    ids=["a stage for each client", "median", "krum", "buffered"],
)
def test_parts_that_must_see_single_clients_or_have_no_cohort_are_refused(strategy, who):
    with pytest.raises(StrategyError, match=who):
        strategy()


def test_rounding_comes_before_noise_which_counts_it():
    noise = fedloom.GaussianNoise(clip=1.0, noise_multiplier=1.0, delta=1e-5)
    with pytest.raises(StrategyError, match="FixedPoint comes behind GaussianNoise and could undo its clip"):
        replace(fedloom.dp_fedavg(), stages=(noise, FixedPoint()))
    terms = replace(fedloom.dp_fedavg(), stages=(FixedPoint(), noise)).bind(
        LAYOUT, [Member(name, 10) for name in "abc"]
    )
    assert terms.total.bits == 30


@pytest.mark.parametrize("engine", ["pool", "vectorized", "vectorized/2", "ray"])
def test_engines_that_carry_whole_rounds_are_refused(engine):
    app = fedloom.App(
        model=fedloom.BuiltIn(name="logistic"), data=fedloom.Data(source=fedloom.SklearnSet("breast_cancer")), rounds=1
    )
    with pytest.raises(ConfigError, match=r"SecAgg takes clients one by one, and .* whole rounds; take sequential"):
        list(fedloom.run(replace(app, strategy=hidden()), engine=engine))
    *_, last = fedloom.run(replace(app, strategy=hidden()), engine="auto")
    assert last.status == "completed"


def test_masked_updates_are_not_merged_on_the_way():
    assert not hidden().merges
    assert plain(hidden()).merges


@pytest.mark.parametrize(
    "body",
    [
        Advertise("0" * 32, 1, "", ("site0", "site1", "site2")),
        Share("", (), None, None),
        Confirm("", ()),
        Unmask("", (), None, (), None),
    ],
    ids=lambda body: type(body).__name__,
)
def test_a_party_whose_app_hides_nothing_does_not_take_part(body):
    made = there(plain(hidden()))
    (reply,) = made.parties["site0"].answer([Task(1, "site0", body)])
    assert isinstance(reply.body, Fault)
    assert "is not known here; it is refused" in reply.body.message


def test_a_coordinator_cannot_talk_a_party_out_of_hiding():
    """Asked to train as if nothing were hidden, a party of a hiding app refuses."""
    made = there(hidden())
    other = there(plain(hidden()))
    other.federation.parties = made.parties
    with pytest.raises(QuorumLost, match="Train belongs to no hidden sum that is open here"):
        other.run(1)


def test_without_the_library_it_says_what_to_install(monkeypatch):
    for name in [name for name in sys.modules if name.startswith(("cryptography", "fedloom.gather.secure"))]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "cryptography", None)
    monkeypatch.setitem(sys.modules, "cryptography.exceptions", None)
    with pytest.raises(MissingExtra, match=r"pip install 'fedloom\[privacy\]'"):
        list(SecAgg().collect(None, [], lambda: None))


def test_importing_it_does_not_load_cryptography():
    code = "import sys, fedloom; fedloom.SecAgg(); sys.exit('cryptography' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_memory_of_what_was_revealed_moves_at_once_and_the_rest_when_it_is_counted():
    made = there(hidden(scaffold()), linear(3), regression())
    made.run(1)
    party = made.parties["site0"]
    assert party.memory["gather"]["done"] == 1
    kept = party.memory
    task = Task(99, "site0", Advertise("1" * 32, 2, "", tuple(made.parties)))
    next(iter(party.answer([task])))
    assert party.memory["gather"]["session"]["session"] == "1" * 32
    party.settle([])
    assert party.memory["gather"]["session"]["session"] == "1" * 32
    assert same_tree(party.memory["local"], kept["local"])


def test_a_site_may_insist_on_it():
    from fedloom.runtime.policy import Policy

    assert Policy(protections=("secagg",)).lacking(hidden()) == []
    assert Policy(protections=("secagg",)).lacking(plain(hidden())) == ["secagg"]


def test_the_schema_of_events_knows_where_a_hidden_sum_can_fail():
    schema = (Path(__file__).parents[2] / "docs" / "events.schema.json").read_text(encoding="utf-8")
    (fault,) = [part for part in json.loads(schema)["$defs"].values() if "phase" in part.get("properties", {})]
    steps = {kind.__name__.lower() for kind in HIDDEN}
    assert {*steps, "train", "gather"} <= set(fault["properties"]["phase"]["enum"])
