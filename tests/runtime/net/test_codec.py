"""What travels comes back as it was; whatever else arrives is refused in one way."""

import json
from contextlib import suppress
from dataclasses import fields, is_dataclass

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import save

from fedloom.core.errors import RunError, WireError
from fedloom.core.layout import Layout, Leaf
from fedloom.core.metrics import SCORE_BINS, Metrics, total
from fedloom.core.task import Evaluate, Evaluated, Fault, Measure, Prepare, Ready, Train, Trained
from fedloom.core.update import Update
from fedloom.runtime.net.codec import MOST_NUMBER, MOST_ROWS, reply_of, reply_tree, task_of, task_tree
from fedloom.store.files import dump, restore
from mutated import mutated
from small import same_tree

LAYOUT = Layout((Leaf("w", (2,)),)).weighted(4)
LAYOUTS = {LAYOUT.digest: LAYOUT}
VECTOR = np.float32([1, 2, 0.5])

numbers = st.integers(-(2**40), 2**40) | st.floats(-1e90, 1e90)
texts = st.text(st.characters(exclude_categories=("Cs", "Cc", "Cf", "Cn", "Co", "Zl", "Zp", "Zs")), max_size=30)
vectors = st.lists(st.floats(width=32, allow_nan=False, allow_infinity=False), max_size=5).map(np.float32)
trees = st.recursive(
    st.none() | st.booleans() | numbers | texts | vectors,
    lambda inner: (
        st.lists(inner, max_size=3) | st.lists(inner, max_size=3).map(tuple) | st.dictionaries(texts, inner, max_size=3)
    ),
    max_leaves=8,
)
columns = st.dictionaries(texts, trees, max_size=3)
tasks = st.one_of(
    st.builds(
        Train,
        st.integers(1, 10**6),
        vectors,
        texts,
        st.integers(1, 1024),
        st.lists(trees, max_size=2).map(tuple),
        st.integers(1, 1000),
        st.lists(texts, max_size=2).map(tuple),
    ),
    st.builds(Evaluate, vectors, texts, st.integers(0, 1000)),
    st.builds(Measure, texts, columns),
    st.builds(Prepare, columns),
)
sums = st.dictionaries(st.sampled_from(["loss", "correct", "mine"]), numbers, max_size=3)
metrics = st.builds(lambda named, n: Metrics({**named, "examples": n}), sums, st.integers(0, 10**6))
histograms = st.integers(0, 2**30).map(lambda n: np.full(SCORE_BINS, n))
scored = st.builds(
    lambda base, p, n: Metrics({**base.sums, "positives": p, "negatives": n}), metrics, histograms, histograms
)
sides = st.dictionaries(texts, numbers | vectors, max_size=2)
updates = st.builds(Update, vectors, st.just(LAYOUT), st.integers(1, 9), sides)
replies = st.one_of(
    st.builds(Trained, updates, metrics),
    st.builds(Evaluated, metrics | scored, st.none() | st.tuples(*[st.floats(-1, 1)] * 3)),
    updates,
    st.builds(Ready, st.integers(0, MOST_ROWS - 1), st.integers(0, MOST_ROWS - 1)),
    st.builds(Fault, st.just("north"), texts, texts, texts, st.lists(texts, max_size=3).map(tuple)),
)


def plain(value):
    """Return a value of the union as a tree, by another way than the codec's."""
    if isinstance(value, Layout):
        return value.digest
    if is_dataclass(value):
        return {"type": type(value).__name__} | {f.name: plain(getattr(value, f.name)) for f in fields(value)}
    if isinstance(value, dict) or hasattr(value, "keys"):
        return {key: plain(value[key]) for key in sorted(value)}
    return value


@given(tasks)
def test_a_task_comes_back_as_it_was(body):
    assert same_tree(plain(task_of(restore(dump(task_tree(body))))), plain(body))


@given(replies)
def test_a_reply_comes_back_as_it_was(body):
    assert same_tree(plain(reply_of(restore(dump(reply_tree(body))), LAYOUTS, "north")), plain(body))


def test_what_is_not_in_the_union_is_not_sent():
    with pytest.raises(TypeError, match="a reply cannot be a str"):
        reply_tree("trained")
    with pytest.raises(StopIteration):
        task_tree("train")


def test_a_fault_is_in_its_sender_s_name_whatever_it_says():
    tree = reply_tree(Fault("south", "train", "ValueError", "no", ("a.py:1 f",)))
    assert reply_of(tree, LAYOUTS, "north") == Fault("north", "train", "ValueError", "no", ("a.py:1 f",))


def test_a_fault_can_be_stored_and_shown_anywhere():
    tree = {"reply": "fault", "phase": "p\x1b[2J" * 50, "error": "E\ud800", "message": "a\nb\r\0" * 4000, "trace": [1]}
    fault = reply_of(tree, LAYOUTS, "north")
    for text in (fault.phase, fault.error, fault.message, *fault.trace):
        text.encode()
        assert all(letter.isprintable() or letter == "\n" for letter in text)
    assert (len(fault.phase), fault.error, len(fault.message)) == (40, "E\ufffd", 4000)
    assert fault.message[:5] == "a\nb\ufffd\ufffd"


def trained(**changes):
    tree = {"reply": "trained", "vector": VECTOR, "layout": LAYOUT.digest, "count": 1, "side": {}}
    return {**tree, "metrics": {"examples": 3}} | changes


def evaluated(**found):
    return {"reply": "evaluated", "metrics": {"examples": 3, **found}, "estimate": None}


BINS = np.ones(SCORE_BINS)
REFUSED = [
    (None, "no kind"),
    ([], "no kind"),
    ({}, "no kind"),
    ({"reply": "pickle"}, "no kind"),
    ({"reply": ["trained"]}, "no kind"),
    (trained(vector=[1, 2, 3]), "lacks its vector"),
    (trained(count=1.0), "lacks its vector"),
    (trained(side=[]), "lacks its vector"),
    (trained(layout="0" * 64), "an update of layout 000000000000 was not asked for; those that were: "),
    (trained(count=0), "sums at least one client"),
    (trained(side={"w": "x"}), "has numbers or arrays beside it"),
    (trained(side={"w": float("nan")}), "has numbers or arrays beside it"),
    (trained(side={"w": 10**400}), "has numbers or arrays beside it"),
    (trained(side={"w": True}), "has numbers or arrays beside it"),
    (trained(metrics=[]), "metrics are at most"),
    (trained(metrics={str(i): 0 for i in range(65)}), "metrics are at most 64"),
    (trained(metrics={}), "must say of how many examples"),
    (trained(metrics={"examples": -1}), "must say of how many examples"),
    (trained(metrics={"examples": 1.5}), "must say of how many examples"),
    (trained(metrics={"examples": MOST_ROWS}), "must say of how many examples"),
    (trained(metrics={"examples": 10**400}), "'examples' among the metrics is not finite"),
    (trained(metrics={"examples": True}), "'examples' among the metrics"),
    (trained(metrics={"examples": 1, "loss": float("inf")}), "'loss' among the metrics is not finite"),
    (trained(metrics={"examples": 1, "loss": MOST_NUMBER * 2}), "'loss' among the metrics is not finite"),
    (trained(metrics={"examples": 1, "loss": "x"}), "'loss' among the metrics"),
    (trained(metrics={"examples": 1, "positives": BINS, "negatives": BINS}), "'positives' among the metrics"),
    (trained(metrics={"examples": 1, "positives": 1.0, "negatives": 1.0}), "'positives' among the metrics"),
    (trained(metrics={"examples": 1, "negatives": 2**63}), "'negatives' among the metrics"),
    (trained(metrics={"examples": 1, "positives": BINS[:0]}), "'positives' among the metrics"),
    (trained(metrics={"examples": 1, "x" * 81: 1.0}), "a printable name of at most 80 letters"),
    (trained(metrics={"examples": 1, "\ud800": 1.0}), "a printable name"),
    (evaluated(positives=1.0, negatives=1.0), "'positives' among the metrics"),
    (evaluated(positives=BINS), "lack a sum that their figures need"),
    (evaluated(positives=BINS[1:], negatives=BINS), "'positives' among the metrics"),
    (evaluated(positives=-BINS, negatives=BINS), "'positives' among the metrics"),
    (evaluated(positives=BINS * np.nan, negatives=BINS), "'positives' among the metrics"),
    (evaluated(positives=BINS * 1e300, negatives=BINS), "'positives' among the metrics"),
    (evaluated(positives=BINS.astype("?"), negatives=BINS), "'positives' among the metrics"),
    (evaluated(squared_error=-1.0), "lack a sum"),
    (evaluated(target_square=1.0), "lack a sum"),
    (evaluated(examples=0, squared_error=-1.0), "lack a sum"),
    (evaluated(examples=0, target_square=1.0), "lack a sum"),
    ({**evaluated(), "estimate": (1.0, 2.0)}, "an estimate is a value with"),
    ({**evaluated(), "estimate": [1.0, 2.0, 3.0]}, "an estimate is a value with"),
    ({**evaluated(), "estimate": (1, 2, 3)}, "an estimate is a value with"),
    ({"reply": "ready", "train": -1, "held_out": 0}, "no kind"),
    ({"reply": "ready", "train": 1, "held_out": MOST_ROWS}, "no kind"),
    ({"reply": "ready", "train": 1, "held_out": 10**400}, "no kind"),
    ({"reply": "ready", "train": 1.0, "held_out": 0}, "no kind"),
    ({"reply": "fault", "phase": "train", "error": "E", "message": 3, "trace": []}, "no kind"),
]


@pytest.mark.parametrize(("tree", "sentence"), REFUSED)
def test_a_malformed_reply_is_refused(tree, sentence):
    with pytest.raises(WireError, match=sentence):
        reply_of(tree, LAYOUTS, "north")


TASK = task_tree(Train(1, VECTOR, "d", 2))


@pytest.mark.parametrize(
    ("tree", "sentence"),
    [
        (None, "no kind"),
        ([], "no kind"),
        ({"task": "exec"}, "no kind"),
        ({"task": []}, "no kind"),
        ({"task": {}}, "no kind"),
        ({"task": "train"}, "other fields than here"),
        ({**TASK, "more": 1}, "other fields than here"),
        ({**TASK, "round": "1"}, "has a str as its round"),
        ({**TASK, "round": True}, "has a bool as its round"),
        ({**TASK, "public": []}, "has a list as its public"),
        ({**TASK, "start": [1.0]}, "has a list as its start"),
        ({**TASK, "start": VECTOR[None]}, "one row of finite numbers"),
        ({**TASK, "start": np.arange(3)}, "one row of finite numbers"),
        ({**TASK, "start": VECTOR * np.nan}, "one row of finite numbers"),
        ({"task": "prepare", "statistics": []}, "has a list as its statistics"),
    ],
)
def test_a_malformed_task_is_refused(tree, sentence):
    with pytest.raises(WireError, match=sentence):
        task_of(tree)


def test_figures_of_what_was_let_in_can_be_added_and_read():
    """The largest and the emptiest that are let in, together and with an honest site's."""
    extremes = {"examples": 0, "loss": MOST_NUMBER, "target": -MOST_NUMBER, "target_square": MOST_NUMBER}
    extremes |= {"squared_error": MOST_NUMBER}
    found = reply_of(evaluated(**extremes), LAYOUTS, "north").metrics
    honest = Metrics({"examples": 2, "loss": 0.5, "target": 1.0, "target_square": 2.0, "squared_error": 1.0})
    assert (found + honest + found).view()["examples"] == 2


@pytest.mark.parametrize("kind", [np.int8, np.uint8, np.float16, np.uint64, np.float32])
def test_a_histogram_of_a_small_type_is_added_without_overflow(kind):
    many = BINS.astype(kind) * kind(100)
    found = reply_of(evaluated(positives=many, negatives=many), LAYOUTS, "north").metrics
    assert (found + found + found).sums["positives"].max() == 300


# -- fuzzing that knows the structure: a valid value, changed anywhere, as a tree and as bytes

junk = (
    trees
    | st.integers(-(10**400), 10**400)
    | st.floats()
    | st.sampled_from([10**400, -(2**63), float("nan"), "\ud800", "trained", {"$array": "0"}, True])
)


named = st.sampled_from(["positives", "negatives", "squared_error", "target", "target_square", "loss", "side"])
kinds = st.sampled_from([np.int8, np.uint8, np.float16, np.int64, np.uint64, np.bool_])
counts = st.builds(BINS.astype, kinds)
HONEST = Metrics({"examples": 1, "loss": 1.0, "positives": np.ones(SCORE_BINS, int), "negatives": BINS.astype(int)})


@settings(max_examples=150)
@given(st.data())
def test_a_changed_reply_is_refused_or_harmless(data):
    tree = reply_tree(data.draw(replies))
    for _ in range(data.draw(st.integers(1, 3))):
        tree = mutated(data, tree, texts | named, junk | counts, junk)
    try:
        body = reply_of(tree, LAYOUTS, "north")
    except WireError:
        return
    if isinstance(body, Trained | Evaluated):
        json.dumps([(body.metrics + HONEST).view(), total([HONEST, body.metrics, body.metrics]).view()])
    if isinstance(body, Fault):
        str(body).encode()


@pytest.mark.parametrize("kind", [np.float32([]), np.float32([1, 2]), 3, None, ["trained"]])
def test_a_kind_that_is_no_word_is_refused(kind):
    for tree in (reply_tree(Ready(1, 1)) | {"reply": kind}, {"reply": kind}):
        with pytest.raises(WireError, match="of no kind that is known"):
            reply_of(tree, LAYOUTS, "north")
    with pytest.raises(WireError, match="of no kind that is known"):
        task_of({"task": kind})


@settings(max_examples=150)
@given(st.data())
def test_a_changed_task_is_refused_or_a_task(data):
    tree = task_tree(data.draw(tasks))
    for _ in range(data.draw(st.integers(1, 3))):
        tree = mutated(data, tree, texts | named, junk | counts, junk)
    with suppress(WireError):
        assert isinstance(task_of(tree), Train | Evaluate | Measure | Prepare)


SPECIAL = [b"null", b"[]", b"{}", b"9" * 400, b"-1", b"1e999", b'"\\ud800"', b"[" * 3000, b'"BOOL"', b'{"$array":[]}']


@settings(max_examples=150)
@given(st.data())
def test_changed_bytes_are_refused_or_a_reply(data):
    content = bytearray(dump(reply_tree(data.draw(replies))))
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(content)))
        match data.draw(st.integers(0, 3)):
            case 0:
                del content[at:]
            case 1:
                content[at : at + 1] = data.draw(st.binary(max_size=2))
            case 2:
                content[at : at + data.draw(st.integers(0, 9))] = data.draw(st.sampled_from(SPECIAL))
            case 3:
                content[:8] = data.draw(st.integers(0, 2**64 - 1)).to_bytes(8, "little")
    with suppress(RunError):
        reply_of(restore(bytes(content)), LAYOUTS, "north")


HEADERS = [
    b"[]",
    b"3",
    b'"x"',
    b"null",
    b'{"$skeleton":3}',
    b'{"$skeleton":[]}',
    b'{"$skeleton":{}}',
    b'{"$skeleton":{"dtype":"U8","shape":[2],"data_offsets":[0]}}',
    b'{"$skeleton":{"dtype":"U8","shape":[2],"data_offsets":[0,2,3]}}',
    b'{"$skeleton":{"dtype":"U8","shape":[2],"data_offsets":["a","b"]}}',
    b'{"$skeleton":{"dtype":"U8","shape":[2],"data_offsets":[0.0,2.0]}}',
    b'{"$skeleton":{"dtype":"U8","shape":[2],"data_offsets":[0,99]}}',
    b'{"$skeleton":{"dtype":"U8","shape":[2],"data_offsets":[2,0]}}',
    b'{"$skeleton":{"dtype":"O","shape":[2],"data_offsets":[0,2]}}',
    b'{"$skeleton":{"dtype":["U8"],"shape":[2],"data_offsets":[0,2]}}',
    b'{"$skeleton":{"dtype":"U8","shape":2,"data_offsets":[0,2]}}',
    b'{"$skeleton":{"dtype":"U8","shape":[-1],"data_offsets":[0,2]}}',
    b'{"$skeleton":{"dtype":"U8","shape":[true],"data_offsets":[0,2]}}',
    b'{"$skeleton":{"dtype":"F64","shape":[1],"data_offsets":[0,2]}}',
    b'{"$skeleton":{"dtype":"U8","shape":[0,1' + b"0" * 400 + b'],"data_offsets":[0,0]}}',
    b'{"a":{"dtype":"U8","shape":[0,' + b"9" * 30 + b'],"data_offsets":[0,0]}}',
    b'{"$skeleton":{"dtype":"U8","shape":[2],"data_offsets":[0,2],"more":1}}',
]


@pytest.mark.parametrize("header", HEADERS)
def test_a_header_that_lies_is_refused(header):
    with pytest.raises(RunError, match="not a stored value"):
        restore(len(header).to_bytes(8, "little") + header + b"{}")


@pytest.mark.parametrize(
    "skeleton", [b'{"$array": "x"}', b'{"$array": []}', b'{"$tuple": 3}', b"[" * 100_000, b"\xff\xfe", b"1" * 5000]
)
def test_a_skeleton_that_lies_is_refused(skeleton):
    with pytest.raises(RunError, match="not a stored value"):
        restore(save({"$skeleton": np.frombuffer(skeleton, np.uint8)}))
