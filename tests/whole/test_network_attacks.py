"""Strangers, and a party with a good certificate and bad manners: each is refused, and nobody else feels it."""

import json
import os
import random
import socket
import ssl
import time
from contextlib import closing, suppress
from datetime import UTC, datetime, timedelta

import numpy as np
import psutil
import pytest
from rogue import WAIT_S, Rogue, heard

from fedloom.core.errors import AccessDenied, WireError
from fedloom.runtime.authority import Authority
from fedloom.runtime.channel import trusting
from fedloom.runtime.enrolment import prepare_enrolment
from fedloom.runtime.keys import PKI, ROOT
from fedloom.runtime.net.line import CHUNK, CONTROL, ENROL, Line, LineLost
from fedloom.runtime.net.reception import PROTOCOL
from fedloom.store.files import dump
from wired import COORDINATOR, HOST, Federated, authority, clients, enrolled, simulated, slow

pytestmark = pytest.mark.slow

MESSAGES = int(os.environ.get("FEDLOOM_MESSAGES", "3000"))
PLAIN = {"kind": "Sgd", "recipe": "fedavg", "seconds": 0.02}
LOST = (LineLost, WireError, OSError)


@pytest.fixture
def there(tmp_path):
    """A federation of two honest sites with room for a third, whose run goes on for a while."""
    app = slow(tmp_path, sites=2, rounds=150, **PLAIN, changes="local=Slow()")
    with Federated(tmp_path, app, clients(2), ("--capacity", "3", "--away", "10")) as there:
        there.start().until(lambda: there.rounds() > 0)
        yield there


def invited(there, name="rogue"):
    credentials, there.tokens[name] = enrolled(there.authority, there.folder / name, name)
    return Rogue(credentials, there.port, there.app)


def unharmed(there):
    """The run goes on, and ends with the bits that it would have had."""
    assert there.processes[COORDINATOR].poll() is None
    seen = there.rounds()
    there.until(lambda: there.rounds() > seen)
    end = there.ended()
    assert end["sha256"] == simulated(there.app, there.folder)["sha256"]
    there.consistent()
    assert "Traceback" not in there.said(COORDINATOR)


def tls(there, context=None):
    """Return a connection of somebody without a certificate."""
    context = context or trusting(there.home / PKI / ROOT)
    return context.wrap_socket(socket.create_connection((HOST, there.port), WAIT_S), server_hostname=HOST)


def enrolling(there, content):
    """Send bytes as a request to enrol; return the answer, or nothing."""
    with closing(tls(there)) as sock:
        line = Line(sock, WAIT_S)
        line.send(ENROL, content)
        try:
            frame = heard(line)
        except LineLost:
            return None
        return json.loads(bytes(frame[1]))


def test_whoever_may_not_come_in_is_refused_with_a_reason_and_logged(there, tmp_path):
    # without a certificate: it may only enrol, and a frame of another kind ends it
    with closing(tls(there)) as sock:
        line = Line(sock, WAIT_S)
        line.send(CONTROL, bytes(64), b'[{"kind":"hello"}]')
        with pytest.raises(LineLost):
            heard(line)
    there.until_said(COORDINATOR, "no frame that is taken in here")
    # of another federation with the same names
    foreign, _ = enrolled(authority(tmp_path / "foreign"), tmp_path / "spy", clients(2)[0])
    spy = Rogue(foreign, there.port, there.app)
    with pytest.raises((ssl.SSLError, *LOST)):
        spy.connect()
    context = trusting(there.home / PKI / ROOT)
    foreign.reload(context)
    with pytest.raises((ssl.SSLError, *LOST)), closing(tls(there, context)) as sock:
        heard(Line(sock, WAIT_S))
    there.until_said(COORDINATOR, "CERTIFICATE_VERIFY_FAILED")
    # expired
    yesterday = Authority(there.home, lambda: datetime.now(UTC) - timedelta(hours=24, seconds=-4))
    late, _ = enrolled(yesterday, tmp_path / "late", "late")
    there.until(lambda: late.peer.expires < datetime.now(UTC))
    with pytest.raises((ssl.SSLError, *LOST)):
        Rogue(late, there.port, there.app).connect().hello()
    there.until_said(COORDINATOR, "certificate has expired")
    # a token that was used, by somebody else's keys
    (tmp_path / "thief" / PKI).mkdir(parents=True)
    used = there.tokens[clients(2)[0]]
    answer = enrolling(there, json.dumps(prepare_enrolment(tmp_path / "thief", used)).encode())
    assert "refused" in answer
    there.until_said(COORDINATOR, "AccessDenied")
    unharmed(there)


def beating(rogue):
    """Live, until the line is lost."""
    while True:
        rogue.message(kind="beat")
        rogue.channel.receive(0.05)


def hung_up(rogue):
    """Listen until the line is lost, which must be soon."""
    for _ in range(1000):
        heard(rogue.channel)


def test_a_party_that_says_what_it_may_not_is_refused(there):
    rogue, first = invited(there), clients(2)[0]
    refusals = [
        ({"app": "0" * 64}, "the app of site 'rogue' is 000000000000, the coordinator's is "),
        ({"protocol": 1}, f"site 'rogue' speaks protocol 1, the coordinator {PROTOCOL}; take"),
        ({"members": [[first, 10]]}, f"answers for itself, not for '{first}'"),
        ({"members": [["rogue", 10], [first, 10]]}, "answers for itself"),
        ({"members": [["rogue", -1]]}, "a member is a name"),
        ({"members": []}, "answers for 1 to"),
    ]
    for changes, sentence in refusals:
        with closing(rogue.connect()):
            answer = rogue.hello(**changes)
            assert answer["kind"] == "refused", answer
            assert sentence in answer["reason"]
    # replayed: the same signed bytes on another connection, and a second time on this one
    with closing(rogue.connect()):
        payload = json.dumps([{"kind": "hello", "protocol": PROTOCOL, "app": "x", "members": []}]).encode()
        recorded = rogue.channel.sign(rogue.channel._signed(False, 0, payload)) + payload
    with closing(rogue.connect()):
        rogue.channel.line.send(CONTROL, recorded)
        answer = heard(rogue.channel)
        assert "unsigned, signed by somebody else, or out of its order" in answer["reason"]
    with closing(rogue.enter()):
        beat = b'[{"kind":"beat"}]'
        signed = rogue.channel.sign(rogue.channel._signed(False, rogue.channel._out, beat)) + beat
        rogue.channel.line.send(CONTROL, signed)
        rogue.channel.line.send(CONTROL, signed)
        with pytest.raises(LineLost):
            hung_up(rogue)
    # an answer in another site's name: it is asked nothing of that, and told so
    with closing(rogue.enter()):
        rogue.answer({"key": "train/1"}, {"reply": "ready", "train": 1, "held_out": 1})
        while (said := heard(rogue.channel))["kind"] != "receipt":
            pass
        assert said["keys"] == ["train/1"]
    # denied while it is connected, whether it says something or not
    for live, why in ((hung_up, "no manners"), (beating, "bad manners")):
        with closing(rogue.enter()):
            there.authority.deny("rogue", why)
            with pytest.raises(LineLost):
                live(rogue)
            there.until_said(COORDINATOR, why)
        there.authority.allow("rogue")
        with closing(rogue.connect()):  # allowed again, it is let in with new keys alone
            assert "it is not on this federation's roll" in rogue.hello()["reason"]
        rogue.credentials, _ = enrolled(there.authority, there.folder / live.__name__, "rogue")
    there.authority.deny("rogue", "bad manners")
    with closing(rogue.connect()):
        assert "bad manners" in rogue.hello()["reason"]
    unharmed(there)


# -- replies of a member of the run, which is in the cohort of every round


def honest(rogue, task, **changes):
    layout = rogue.total(task)
    vector = np.zeros(layout.size, layout.dtype)
    vector[-1] = 0.5
    update = {"vector": vector, "layout": layout.digest, "count": 1, "side": {}}
    return {"reply": "trained", **update, "metrics": {"examples": 3, "loss": 1.0, "correct": 1}} | changes


def changed(rogue, task, at, value):
    tree = honest(rogue, task)
    tree["vector"][at] = value
    return tree


REPLIES = {
    "NaN": (lambda r, t: changed(r, t, 0, np.nan), "NotFinite"),
    "infinite": (lambda r, t: changed(r, t, 1, -np.inf), "NotFinite"),
    "too large": (lambda r, t: changed(r, t, 0, 1e6), "OutOfBound"),
    "off the grid": (lambda r, t: changed(r, t, 0, 1e-30), "UpdateError"),
    "weight 0": (lambda r, t: changed(r, t, -1, 0), "OutOfBound"),
    "weight 2": (lambda r, t: changed(r, t, -1, 2), "OutOfBound"),
    "longer": (lambda r, t: honest(r, t, vector=np.zeros(99, np.float32)), "LayoutMismatch"),
    "two-dimensional": (lambda r, t: honest(r, t, vector=np.zeros((7, 1), np.float32)), "LayoutMismatch"),
    "float64": (lambda r, t: honest(r, t, vector=honest(r, t)["vector"].astype("f8")), "LayoutMismatch"),
    "whole numbers": (lambda r, t: honest(r, t, vector=honest(r, t)["vector"].astype("i4")), "LayoutMismatch"),
    "another layout": (lambda r, t: honest(r, t, layout="0" * 64), "WireError"),
    "two clients": (lambda r, t: honest(r, t, count=2), "UpdateError"),
    "no metrics": (lambda r, t: honest(r, t, metrics={}), "WireError"),
    "metrics that are text": (lambda r, t: honest(r, t, metrics={"examples": 1, "loss": "x"}), "WireError"),
    "metrics beyond floats": (lambda r, t: honest(r, t, metrics={"examples": 10**400}), "WireError"),
    "an evaluation": (lambda r, t: {"reply": "evaluated", "metrics": {"examples": 1}, "estimate": None}, "WireError"),
    "no tree": (lambda r, t: b"x" * 50, "RunError"),
    "a header that lies": (lambda r, t: (30).to_bytes(8, "little") + b'{"$skeleton":{"dtype":"U8","sh', "RunError"),
    "half of it": (lambda r, t: dump(honest(r, t))[:-9], "RunError"),
    "its own fault": (
        lambda r, t: {"reply": "fault", "phase": "x", "error": "Own", "message": "\x1b[2J\ud800", "trace": []},
        "Own",
    ),
}


def lived(rogue, named, seen):
    """Answer all tasks: each training with the next of these replies."""
    waiting = list(named)
    while (task := rogue.task())["kind"] != "end":
        match rogue.skeleton(task)["task"]:
            case "prepare":
                rogue.answer(task, {"reply": "ready", "train": 10, "held_out": 4})
            case "evaluate":  # an update where figures were asked for, under a number that will be somebody's dispatch
                rogue.answer(task, honest(rogue, task))
            case "train" if waiting:
                name = waiting.pop(0)
                seen.append(name)
                rogue.answer(task, REPLIES[name][0](rogue, task))
            case "train":
                rogue.answer(task, honest(rogue, task), size=10**13)


def test_bad_replies_are_faults_with_a_reason_and_the_run_goes_on_by_quorum(tmp_path):
    rounds, seen = len(REPLIES) + 2, []
    changes = "local=Slow(), schedule=fedloom.Sync(quorum=2)"
    app = slow(tmp_path, sites=3, rounds=rounds, **PLAIN, changes=changes)
    names = (*clients(2), "rogue")
    with Federated(tmp_path, app, names) as there:
        rogue = Rogue(enrolled(there.authority, tmp_path / "rogue", "rogue")[0], there.port, app)
        there.start(COORDINATOR, *clients(2)).until_said(COORDINATOR, "2 of 3 sites are here")
        with closing(rogue.enter()):
            lived(rogue, REPLIES, seen)
            rogue.message(kind="bye", leaving=True)
        end = there.ended()
        assert (end["status"], end["rounds"], seen) == ("completed", rounds, list(REPLIES))
        events = there.events()
        for event, name in zip(events, REPLIES, strict=False):
            training = [fault for fault in event["faults"] if "type Trained does not" not in fault["message"]]
            errors = {fault["error"] for fault in training if fault["error"] != "Deadline"}
            assert errors == {REPLIES[name][1]}, (name, training)
            assert all(fault["site"] == "rogue" and fault["message"] for fault in training), name
        for event in events:
            assert event["counted"] == 2
            assert [
                f["message"]
                for f in event["faults"]
                if "type Evaluate" in f["message"] and "type Train." not in f["message"]
            ] == ["a reply of type Trained does not answer a task of type Evaluate."]
        assert "a reply of 10,000,000,000,000 bytes is larger than" in str(events[-1]["faults"])
        counted = {n for n, yes in there.log().verdicts(range(1, 3 * rounds + 1)).items() if yes}
        rows = there.log().accepted(counted)
        assert {row.parties for row in rows} == {(name,) for name in clients(2)}
        assert "\x1b" not in there.said(COORDINATOR)
        assert "Traceback" not in there.said(COORDINATOR)


# -- fuzzing

JUNK = [
    None,
    True,
    0,
    -1,
    2**63,
    10**400,
    0.5,
    float("nan"),
    "",
    "x" * 5000,
    "\ud800",
    [],
    [[]],
    {},
    {"a": [1]},
    "0" * 64,
]


def mutated(drawn, message):
    """Return a valid message with something in it changed, as bytes."""
    message = dict(message)
    for _ in range(drawn.randint(0, 2)):
        key = drawn.choice([*message, "more"])
        match drawn.randrange(4):
            case 0:
                message.pop(key, None)
            case 1:
                message[key] = [drawn.choice(JUNK) for _ in range(drawn.randint(0, 9))]
            case _:
                message[key] = drawn.choice(JUNK)
    several = [message, *({"kind": "beat"} for _ in range(drawn.choice([0, 0, 0, 1, 63, 64, 9999])))]
    content = bytearray(json.dumps(drawn.choice([several, several, several, message, []])).encode())
    match drawn.randrange(8):
        case 0:
            del content[drawn.randrange(len(content)) :]
        case 1:
            content[drawn.randrange(len(content))] = drawn.randrange(256)
        case 2:
            content[1:1] = drawn.choice([b"[" * 9999, b'"a":' * 99, b"\xff", b"9" * 5000])
    return bytes(content) or b"0"


def valid(rogue, key):
    """Return one of each message that a party may send."""
    run, digest = rogue.run, "ab" * 32
    return [
        {"kind": "beat"},
        {"kind": "get", "run": run, "digest": digest, "offset": 0},
        {"kind": "offer", "run": run, "keys": [key], "digest": digest, "size": 100, "seconds": 0.1},
        {"kind": "offer", "run": run, "keys": ["train/1"], "digest": digest, "size": 100, "seconds": 0.1},
        {"kind": "pending", "run": run, "numbers": [1, 2]},
        {"kind": "renew", "request": prepare(rogue)},
        {"kind": "bye"},
        {"kind": "hello", "protocol": PROTOCOL, "app": "x", "members": [["rogue", 1]], "process": "other"},
    ]


def prepare(rogue):
    return {"version": 1, "csr": "x", "secret": "", "key": "A" * 43, "signature": "A" * 86}


def known(rogue, drawn):
    """Send mutated messages on one connection until it is closed, or some have gone; return how many did."""
    sent = 0
    with suppress(*LOST), closing(rogue.connect()):
        if drawn.random() < 0.1:
            hello = {
                "kind": "hello",
                "protocol": PROTOCOL,
                "app": rogue.loaded.identity,
                "members": [["rogue", 10]],
            } | {"process": "x"}
            rogue.payload(mutated(drawn, hello))
            return 1
        rogue.hello()
        pending = {"kind": "pending", "run": rogue.run, "numbers": []}
        rogue.payload(mutated(drawn, pending) if drawn.random() < 0.1 else json.dumps([pending]).encode())
        task = rogue.task()
        assert task["kind"] == "task", "the run has ended before the messages have"
        for _ in range(60):
            sent += 1
            match drawn.randrange(12):
                case 0:
                    rogue.channel.line.send(CHUNK, drawn.randbytes(drawn.randint(0, 200)))
                case 1:
                    rogue.channel.line.send(CONTROL, drawn.randbytes(drawn.randint(0, 200)))
                case 2:
                    content = drawn.randbytes(drawn.randint(1, 100))
                    rogue.answer(task, content)
                case 3:
                    rogue.channel.line._write(memoryview(drawn.randbytes(drawn.randint(1, 40))))
                case _:
                    rogue.payload(mutated(drawn, drawn.choice(valid(rogue, task["key"]))))
            while rogue.channel.receive(0.0) is not None:
                pass
    return sent


def strange(there, drawn):
    """Come as a stranger: garbage before the handshake, half of it, or a mutated request to enrol."""
    with suppress(*LOST):
        if drawn.random() < 0.5:
            with closing(socket.create_connection((HOST, there.port), WAIT_S)) as sock:
                start = drawn.choice([b"", b"\x16\x03\x01\x02\x00\x01\x00", b"GET / HTTP/1.1\r\n\r\n"])
                sock.sendall(start + drawn.randbytes(drawn.randint(0, 600)))
            return 1
        request = {"version": 1, "csr": "x", "secret": "A" * 43, "key": "A" * 43, "signature": "A" * 86}
        enrolling(there, mutated(drawn, request))
    return 1


HELD = """\
enough = pathlib.Path("enough")
time.sleep(0 if enough.exists() else 0.02)
while len(trained) >= {} and not enough.exists():
    time.sleep(0.02)
"""


def test_mutated_messages_neither_crash_it_nor_fill_its_memory(tmp_path):
    rounds = max(60, MESSAGES // 50)
    plain = {name: value for name, value in PLAIN.items() if name != "seconds"}
    app = slow(tmp_path, sites=2, rounds=rounds, **plain, changes="local=Slow()", does=HELD.format(rounds))
    drawn, sent = random.Random(9), 0
    with Federated(tmp_path, app, clients(2), ("--capacity", "3", "--away", "10")) as there:
        rogue = invited(there)
        there.start().until(lambda: there.rounds() > 0)
        coordinator = psutil.Process(there.processes[COORDINATOR].pid)
        while sent < MESSAGES // 10:  # what it allocates once, it has by then
            sent += known(rogue, drawn) + strange(there, drawn)
        before = coordinator.memory_info().rss
        while sent < MESSAGES:
            sent += known(rogue, drawn) + strange(there, drawn)
            assert there.processes[COORDINATOR].poll() is None
        grown = coordinator.memory_info().rss - before
        assert grown < 48 << 20, f"{grown:,} bytes more"
        assert coordinator.num_threads() < 40
        with suppress(*LOST), closing(rogue.enter()):
            rogue.message(kind="bye", leaving=True)
        (tmp_path / "enough").touch()  # the last round has waited for it, so that the run outlasts the messages
        end = there.ended(60 + 0.2 * rounds)
        assert (end["status"], end["rounds"]) == ("completed", rounds)
        assert end["sha256"] == simulated(app, tmp_path)["sha256"]
        assert "Traceback" not in there.said(COORDINATOR)


def test_a_party_that_asks_and_never_reads_does_not_fill_the_memory(there):
    """What it is owed must not pile up: it is heard no more until it has taken it in."""
    rogue = invited(there)
    coordinator = psutil.Process(there.processes[COORDINATOR].pid)
    with closing(rogue.enter()):
        rogue.channel.line.stall_s = 1.0
        before = coordinator.memory_info().rss
        keys = ["x" * 100_000] * 1
        until = time.monotonic() + 6.0
        with suppress(*LOST):
            while time.monotonic() < until:
                rogue.message(kind="offer", run=rogue.run, keys=keys, digest="a" * 64, size=1, seconds=0.0)
        assert coordinator.memory_info().rss - before < 64 << 20
    unharmed(there)


def test_strangers_that_drip_do_not_keep_sites_out(there):
    """More of them than there are places, one byte now and then: places are free again when their time is over."""
    socks = []
    try:
        for _ in range(64):
            with suppress(OSError):  # those beyond what one address may hold are turned away at once
                socks.append(tls(there))
                socks[-1].sendall(b"FLM1\x01")
        rogue = invited(there)
        for _ in range(80):
            for sock in socks:
                with suppress(OSError):
                    sock.sendall(b"\0")
            try:
                with closing(rogue.enter()):
                    break
            except LOST:
                time.sleep(0.5)
        else:
            raise AssertionError("nobody comes in any more")
    finally:
        for sock in socks:
            sock.close()
    there.authority.deny("rogue", "over")
    assert there.ended()["status"] == "completed"


def test_a_denied_party_s_token_is_no_good(there):
    with pytest.raises(AccessDenied):
        there.authority.enrol({"version": 1})
