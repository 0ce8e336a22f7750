"""A site's side of a connection, without one: what it asks for and passes over, and what it says when it cannot."""

import re
import ssl
from dataclasses import dataclass, field
from pathlib import Path
from threading import Event, Thread
from types import SimpleNamespace

import numpy as np
import pytest

from fedloom.core.errors import RecordError, RunError, StorageError, WireError
from fedloom.core.task import Fault, Member
from fedloom.runtime.identity import utc_now
from fedloom.runtime.net.bounds import MODELS, OFFERS, TASKS
from fedloom.runtime.net.codec import reply_of
from fedloom.runtime.net.line import CHUNK_BYTES
from fedloom.runtime.net.site import RENEW_S, Site, _welcomed
from fedloom.runtime.net.spool import Body, Spool
from fedloom.runtime.net.talk import Chunk
from fedloom.runtime.net.telling import UNREAD, why
from posts import Post


@dataclass
class Works:
    """A desk that keeps what it is asked, or fails."""

    folder: Path
    error: Exception | None = None
    asked: list = field(default_factory=list)
    waiting: tuple = ()
    refused: str = ""
    ready: bool = False
    independent: bool = True

    def __post_init__(self):
        self.incoming, self.outgoing = (Spool(self.folder / name, 1 << 24) for name in ("in", "out"))

    def answer(self, key, message, offer):
        if self.error is not None:
            raise self.error
        self.asked.append(key)

    def cancel(self, keys):
        pass

    def received(self, digest):
        self.outgoing.drop(digest)

    def again(self):
        found, self.ready = self.ready, False
        return found


class Called:
    """A site whose connection is a list of what it has said."""

    def __init__(self, folder, error=None):
        self.works, self.post = Works(folder, error), Post()
        self.site = Site("a", "digest", (Member("a", 1),), None, ("", 0), None, None, None, run="run")
        self.site.desk = self.works

    def message(self, key, *bodies):
        arrays = {str(at): [body.digest, body.size] for at, body in enumerate(bodies)}
        return {"kind": "task", "run": "run", "key": key, "attempt": 1, "arrays": arrays, "body": {"task": "train"}}

    def task(self, key, *bodies):
        return self.hear(self.message(key, *bodies))

    def cancel(self, *keys):
        return self.hear({"kind": "cancel", "run": "run", "keys": list(keys)})

    def hear(self, said):
        """Let it hear something; return what it says then."""
        self.site._hear(said)
        for jobs in (self.site.heard, self.site.todo):
            while not jobs.empty():
                jobs.get()()
        self.post.write(self.site._jobs)
        said, self.post.said = self.post.said, []
        return said


def large(folder, value=0):
    """Return a body of three chunks, and its bytes."""
    spool = Spool(folder / "made", 0)
    body = spool.put(np.full(2 * CHUNK_BYTES + 5, value, np.uint8))
    return body, memoryview(spool.path(body.digest).read_bytes())


def small_body(folder, value):
    """Return a body of one chunk, and what brings it."""
    made = Spool(folder / "made", 0)
    body = made.put(np.full(1000, value, np.int16))
    return body, Chunk(body.digest, 0, memoryview(made.path(body.digest).read_bytes()))


def piece(body, content, at):
    return Chunk(body.digest, at, content[at : at + CHUNK_BYTES])


def test_a_large_body_is_asked_for_and_a_small_one_awaited(tmp_path):
    called, small = Called(tmp_path), Spool(tmp_path / "made", 0).put({"a": 1})
    body, _ = large(tmp_path)
    (get,) = called.task("train/1", body, small)
    assert get == {"kind": "get", "run": "run", "digest": body.digest, "offset": 0}
    assert called.task("train/2", body, small) == []


def test_a_small_body_that_has_come_and_gone_is_asked_for(tmp_path):
    called, made = Called(tmp_path), Spool(tmp_path / "made", 0)
    small = made.put({"a": 1})
    called.task("train/1", small)
    called.hear(Chunk(small.digest, 0, memoryview(made.path(small.digest).read_bytes())))
    assert called.works.asked == ["train/1"]
    called.works.incoming.drop(small.digest)
    (get,) = called.task("train/2", small)
    assert (get["kind"], get["digest"]) == ("get", small.digest)


def test_a_body_of_a_cancelled_task_is_asked_for_again_where_it_stopped(tmp_path):
    called = Called(tmp_path)
    body, content = large(tmp_path)
    called.task("train/1", body)
    called.hear(piece(body, content, 0))
    called.cancel("train/1")
    called.hear(piece(body, content, CHUNK_BYTES))  # it was on its way
    (get,) = called.task("train/2", body)
    assert get["offset"] == CHUNK_BYTES
    called.hear(piece(body, content, 2 * CHUNK_BYTES))  # the rest of the first stream
    for at in range(CHUNK_BYTES, body.size, CHUNK_BYTES):
        called.hear(piece(body, content, at))
    assert called.works.asked == ["train/2"]
    assert called.works.incoming.has(body)


def test_a_site_that_is_always_cancelled_keeps_the_beginning_of_one_body(tmp_path):
    called = Called(tmp_path)
    for value in range(20):
        body, content = large(tmp_path, value)
        called.task(f"train/{value}", body)
        called.hear(piece(body, content, 0))
        called.cancel(f"train/{value}")
    assert called.works.incoming.names() == {body.digest}
    assert len(called.works.incoming._arriving) == 1  # and one file is open


@pytest.mark.parametrize("again", [False, True], ids=["the line dropped", "another process"])
def test_bodies_that_were_cut_off_go_on_where_they_were_whatever_is_done_first(tmp_path, again):
    called, small = Called(tmp_path), Spool(tmp_path / "made", 0).put({"a": 1})
    bodies = [large(tmp_path, value) for value in (1, 2)]
    for body, content in bodies:
        called.task(f"train/{body.digest}", body)
        called.hear(piece(body, content, 0))
    called = Called(tmp_path) if again else called
    for _ in range(2):  # a connection on which nothing is asked takes nothing away either
        called.site._inbox.begin_anew()
    called.task("prepare/1", small)
    called.hear(Chunk(small.digest, 0, memoryview((tmp_path / "made" / small.digest).read_bytes())))
    assert called.works.asked == ["prepare/1"]
    for body, _ in bodies:
        (get,) = called.task(f"train/{body.digest}", body)
        assert get["offset"] == CHUNK_BYTES


def test_what_was_cut_off_and_is_not_asked_for_again_goes_with_the_next_body_that_is_whole(tmp_path):
    called, (cut, content), (other, whole) = Called(tmp_path), large(tmp_path, 1), large(tmp_path, 2)
    called.task("train/1", cut)
    called.hear(piece(cut, content, 0))
    called.site._inbox.begin_anew()
    called.task("train/2", other)
    assert cut.digest in called.works.incoming.names()
    for at in range(0, other.size, CHUNK_BYTES):
        called.hear(piece(other, whole, at))
    assert called.works.asked == ["train/2"]
    assert called.works.incoming.names() == {other.digest}


def test_what_is_asked_again_while_another_is_worked_at_waits_once(tmp_path):
    """A line that drops again and again lets nothing pile up behind a long training, and nothing is fetched twice."""
    called, (body, content) = Called(tmp_path), small_body(tmp_path, 1)
    inbox = called.site._inbox
    called.site._hear(called.message("train/1"))
    assert inbox.take(0)["key"] == "train/1"
    for _ in range(300):
        inbox.begin_anew()
        called.site._hear(called.message("train/1"))
        called.site._hear(called.message("evaluate/1", body))
        called.site._hear(content)
    assert inbox.keys == ["train/1", "train/1", "evaluate/1"]
    assert called.works.incoming.names() == {body.digest}
    inbox.done(0)
    called.hear({"kind": "beat"})
    assert called.works.asked == ["train/1", "evaluate/1"]


def test_what_is_called_off_behind_a_long_training_keeps_nothing(tmp_path):
    called = Called(tmp_path)
    called.site._hear(called.message("train/0"))
    called.site._inbox.take(0)
    for value in range(1, 300):
        body, content = small_body(tmp_path, value)
        called.site._hear(called.message(f"train/{value}", body))
        called.site._hear(content)
        called.site._hear({"kind": "cancel", "run": "run", "keys": [f"train/{value}"]})
    assert called.site._inbox.keys == ["train/0"]
    assert called.works.incoming.names() == {body.digest}


def test_more_tasks_than_any_run_asks_are_refused(tmp_path):
    called, missing = Called(tmp_path), Body("ab" * 32, 100)
    for number in range(TASKS):
        called.task(f"train/{number}", missing)
    called.task("train/0", missing)  # asked again, it is the same
    with pytest.raises(WireError, match="more than 100 tasks wait for each member here"):
        called.task("train/more", missing)


def test_larger_bodies_than_any_run_names_are_refused(tmp_path):
    called = Called(tmp_path)
    called.works.incoming.most = 1000
    for number in range(MODELS):
        called.task(f"train/{number}", Body(f"{number:064x}", 1000))
        called.task(f"evaluate/{number}", Body(f"{number:064x}", 1000))  # the same body counts once
    with pytest.raises(WireError, match="tasks that wait here name more than 16,000 bytes"):
        called.task("train/more", Body("ff" * 32, 1))


def test_a_relay_is_asked_for_many_members(tmp_path):
    called = Called(tmp_path)
    called.site.members = tuple(Member(f"m{number}", 1) for number in range(3))
    called.works.independent = False
    called.site.__post_init__()
    missing = Body("ab" * 32, 100)
    for number in range(3 * TASKS):
        called.task(f"train/{number}", missing)
    with pytest.raises(WireError, match="more than 100 tasks wait for each member"):
        called.task("train/more", missing)


def test_answers_whose_arrival_is_never_told_do_not_stay_for_ever(tmp_path):
    called = Called(tmp_path)
    offers = called.site._offers
    bodies = [called.works.outgoing.put({"a": number}) for number in range(OFFERS + 5)]
    for number, body in enumerate(bodies):
        offers.offer([f"measure/{number}"], body, 0.1)
    offers.offer(["measure/10"], bodies[11], 0.1)  # another answer than before
    called.site._forget()
    gone = {body.digest for body in [*bodies[:5], bodies[10]]}
    assert called.works.outgoing.names() == {body.digest for body in bodies} - gone


@pytest.mark.parametrize("independent", [True, False])
def test_what_the_worker_has_not_begun_when_nobody_waits_for_it_any_more_is_left_out(tmp_path, independent):
    """At a relay it is not: others were asked together with it."""
    called = Called(tmp_path)
    called.works.independent = independent
    for key in ("train/1", "train/2"):
        called.site._hear(called.message(key))  # both are in the worker's queue
    called.cancel("train/1")
    assert called.works.asked == (["train/2"] if independent else ["train/1", "train/2"])
    called.task("train/1")  # it is wanted again
    assert called.works.asked[-1] == "train/1"
    assert called.site._inbox.begun == {}


def test_a_site_says_that_it_is_at_a_task_no_more_behind_what_it_was_at(tmp_path):
    called = Called(tmp_path)
    called.site._hear(called.message("train/1"))
    called.site._hear({"kind": "cancel", "run": "run", "keys": ["train/1"]})
    assert called.site._jobs.empty()
    assert called.hear({"kind": "beat"}) == [{"kind": "cancelled", "run": "run", "keys": ["train/1"]}]


def test_when_the_run_has_ended_nothing_more_is_begun(tmp_path):
    called = Called(tmp_path)
    called.site._hear(called.message("train/1"))
    called.hear({"kind": "end", "run": "run", "status": "completed", "reason": "over"})
    assert called.works.asked == []
    assert called.site.ended.status == "completed"


def test_a_coordinator_that_stops_says_why_and_the_run_has_not_ended(tmp_path):
    called, told = Called(tmp_path), []
    called.site.told = lambda event, **values: told.append((event, values.get("said")))
    called.hear({"kind": "pause", "run": "run", "reason": "after round 3"})
    assert told == [("paused", "after round 3; calling until the coordinator is back")]
    assert called.site.ended is None
    called.task("train/1")
    assert called.works.asked == ["train/1"]


def test_a_body_that_another_task_needs_is_awaited_all_the_same(tmp_path):
    called = Called(tmp_path)
    body, content = large(tmp_path)
    called.task("train/1", body), called.task("train/2", body)
    assert [said["kind"] for said in called.cancel("train/1")] == ["cancelled"]
    for at in range(0, body.size, CHUNK_BYTES):
        called.hear(piece(body, content, at))
    assert called.works.asked == ["train/2"]


@pytest.mark.parametrize(
    ("error", "sentence"),
    [(WireError("a task is of no kind."), "a task is of no kind."), (RunError("/home/x is full."), UNREAD)],
)
def test_a_task_that_cannot_be_taken_in_is_answered_with_a_fault(tmp_path, error, sentence):
    """The coordinator would wait for its lease otherwise; and of the site's folders it learns nothing."""
    called, told = Called(tmp_path, error), []
    called.site.told = lambda event, **values: told.append((event, values["said"])) if "said" in values else None
    (offer,) = called.task("train/1")
    fault = reply_of(called.works.outgoing.get(Body(offer["digest"], offer["size"])), {}, "a")
    assert offer["keys"] == ["train/1"]
    assert fault == Fault("a", "train", type(error).__name__, sentence)
    assert ("refused", str(error)) in told


@pytest.mark.parametrize("code", [62, 64])
def test_a_coordinator_that_is_called_by_another_name_than_its_certificates_is_said_in_words(code):
    error = ssl.SSLCertVerificationError(1, "certificate verify failed")
    error.verify_code = code
    assert why(error, "10.0.0.7") == (
        "the coordinator's certificate is not for 10.0.0.7; give --server a name that `fedloom provision --host` got"
    )
    error.verify_code = 18  # self-signed
    assert "certificate verify failed" in why(error, "10.0.0.7")


def test_it_asks_to_be_asked_again_once_it_may_answer(tmp_path):
    called = Called(tmp_path)

    def looked():
        called.site.todo.put(called.site._again)
        return called.hear({"kind": "beat"})

    assert looked() == []
    called.works.ready = True
    assert looked() == [{"kind": "again", "run": "run"}]
    assert looked() == []


def test_what_its_policy_refuses_is_told_here_too(tmp_path):
    called, told = Called(tmp_path), []
    called.site.told = lambda event, **values: told.append((event, values["said"])) if "said" in values else None
    called.works.refused = "nobody has approved this app."
    called.task("measure/1")
    assert told[-1] == ("refused", "nobody has approved this app. This site stays, and takes part as soon as it may.")


def test_a_wrong_clock_is_told_from_other_reasons():
    error = ssl.SSLCertVerificationError(1, "certificate verify failed")
    error.verify_code, error.verify_message = 9, "certificate is not yet valid"
    said = why(error, "hub")
    assert "UTC, the coordinator's certificate is not valid (certificate is not yet valid); set the clock" in said
    assert str(utc_now().year) in said


class Signing:
    """A witness that signs."""

    def hear(self, said, peer):
        return {"size": 1, "line": "signed"}


def working(called, *queues):
    """Start a thread for each queue; return them."""
    site = called.site
    threads = [Thread(target=site._work, args=(queue, lambda: None), daemon=True) for queue in queues]
    for thread in threads:
        thread.start()
    return threads


def test_a_site_that_trains_signs_what_it_is_shown_meanwhile(tmp_path):
    called, begun, done = Called(tmp_path), Event(), Event()
    called.works.witness = Signing()
    called.works.answer = lambda key, message, offer: (begun.set(), done.wait(60))
    called.site._hear(called.message("train/1"))
    work, watch = working(called, called.site.todo, called.site.heard)
    assert begun.wait(60)
    called.site._hear({"kind": "record", "run": "run"})
    called.site._hear({"kind": "end", "run": "run", "status": "completed", "reason": "over"})
    called.site.heard.put(None)
    watch.join(60)
    assert called.site._jobs.get(timeout=60).message["kind"] == "cosign"
    assert called.site.ended is None  # what it works at comes first
    done.set()
    called.site.todo.put(None)
    work.join(60)
    assert called.site.ended.status == "completed"


def test_what_is_to_be_done_waits_until_the_record_before_it_was_checked(tmp_path):
    """What was counted, else: the site would look for it in what was shown before that."""
    called, order = Called(tmp_path), []
    called.works.witness = SimpleNamespace(hear=lambda said, peer: order.append("record") or {"size": 1, "line": "x"})
    called.works.settle = lambda counted, void: order.append("settle")
    called.site._hear({"kind": "record", "run": "run"})
    called.site._hear({"kind": "settle", "run": "run", "counted": [1], "void": []})
    called.site._hear(called.message("train/2"))
    assert called.site.todo.empty()
    called.hear({"kind": "beat"})
    assert (order, called.works.asked) == (["record", "settle"], ["train/2"])


def test_who_distrusts_the_record_begins_nothing_more(tmp_path):
    called, begun, done = Called(tmp_path), Event(), Event()
    called.works.witness = Failing(RecordError("it has shrunk."))
    called.works.answer = lambda key, message, offer: (called.works.asked.append(key), begun.set(), done.wait(60))
    called.site._hear(called.message("train/1"))
    called.site._hear(called.message("train/2"))
    work, watch = working(called, called.site.todo, called.site.heard)
    assert begun.wait(60)
    called.site._hear({"kind": "record", "run": "run"})
    watch.join(60)
    done.set()
    called.site.todo.put(None)
    work.join(60)
    assert called.works.asked == ["train/1"]
    assert called.site.stopping.is_set()
    assert "it has shrunk" in str(called.site.failed)


class Failing:
    """A witness that cannot sign."""

    def __init__(self, error):
        self.error = error

    def hear(self, said, peer):
        raise self.error


@pytest.mark.parametrize(
    ("error", "said"), [(RecordError("it has shrunk."), ["distrust"]), (StorageError("the disk is full."), [])]
)
def test_a_full_disk_at_a_witness_is_no_distrust(tmp_path, error, said):
    called = Called(tmp_path)
    called.works.witness = Failing(error)
    with pytest.raises(type(error)):
        called.hear({"kind": "record", "run": "run"})
    assert [message["kind"] for message in called.hear({"kind": "beat"})] == said


def test_what_has_arrived_is_forgotten_behind_what_is_done_next(tmp_path):
    called = Called(tmp_path)
    body = called.works.outgoing.put({"a": 1})
    called.site._offers.offer(["measure/1"], body, 0.1)
    called.hear({"kind": "receipt", "run": "run", "keys": ["measure/1"]})
    called.site.todo.put(lambda: None)
    assert called.works.outgoing.has(body)
    called.site.todo.put(None)
    called.site._work(called.site.todo, called.site._forget)
    assert not called.works.outgoing.has(body)


@pytest.mark.parametrize(
    "said",
    [
        {"kind": "have", "digest": "ab" * 32, "offset": -1},
        {"kind": "have", "digest": "ab" * 32, "offset": 2**70},
        {"kind": "cancel", "keys": [[]]},
        {"kind": "receipt", "keys": [1]},
        {"kind": "task", "key": "k" * 201, "attempt": 1, "arrays": {}},
        {"kind": "task", "key": "", "attempt": 1, "arrays": {}},
        {"kind": "task", "key": "train/1", "attempt": 1},
        {"kind": "settle", "counted": [2**63], "void": []},
    ],
)
def test_words_that_cannot_be_meant_are_refused(tmp_path, said):
    with pytest.raises(WireError):
        Called(tmp_path).hear({"run": "run", **said})


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"beat_s": 1e300}, "cannot mean 1e+300 s between signs of life"),
        ({"beat_s": 0.0}, "cannot mean 0 s between"),
        ({"beat_s": -1.0}, "cannot mean -1 s between"),
        ({"beat_s": 10}, "beat_s must be of type float"),
        ({"run": "\U00020000" * 100}, "is not the id of a run"),
        ({"run": "../run"}, "is not the id of a run"),
        ({"run": ""}, "is not the id of a run"),
    ],
)
def test_a_welcome_that_cannot_be_meant_ends_the_site(changes, said):
    with pytest.raises(WireError, match=re.escape(said)):
        _welcomed({"kind": "welcome", "run": "run-1", "beat_s": 10.0, **changes})


def test_a_certificate_that_nobody_asked_for_is_passed_over(tmp_path):
    called, told, answers = Called(tmp_path), [], []
    called.site.told = lambda event, **values: told.append(event)
    called.site.renewal, called.site.renewed = (
        lambda: {"csr": "x"},
        lambda answer: answers.append(answer) or answer["good"],
    )
    certificate = {"kind": "certificate", "answer": {"good": True}}
    called.hear(certificate)
    assert (told, answers) == (["passed over"], [])
    called.site._renew()
    called.site._renewing -= RENEW_S  # the answer is late, so it asks again, and both are answered
    called.site._renew()
    assert [said["kind"] for said in called.hear({"kind": "certificate", "answer": {"good": False}})] == ["renew"] * 2
    for _ in range(2):
        called.hear(certificate)
    assert told == ["passed over"] * 3
    assert [answer["good"] for answer in answers] == [False, True]
    called.site._renew()
    assert [said["kind"] for said in called.hear({"kind": "beat"})] == ["renew"]


def test_whoever_is_replaced_by_another_process_ends(tmp_path):
    with pytest.raises(WireError, match="another process has joined as 'a', from another folder"):
        Called(tmp_path).hear({"kind": "replaced"})
