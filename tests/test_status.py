"""How a federation stands is told from files alone: while it is served, after it died, and once it has ended."""

import json
from contextlib import closing, nullcontext
from datetime import UTC, datetime, timedelta
from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console

from apps import app
from fedloom.commands.status import awaiting, view, warnings
from fedloom.core.errors import RunError, UnknownRun
from fedloom.running import begin
from fedloom.status import LATE_S, standing
from fedloom.store.files import write_json
from fedloom.store.runs import locked

DOCS = Path(__file__).parents[1] / "docs"
AGAIN = "start it again and it goes on"
NOW = datetime(2026, 3, 1, 12, 0, 0, tzinfo=UTC)
SITE = {
    "name": "client-000",
    "members": ["client-000"],
    "examples": 120,
    "connected": True,
    "left": False,
    "away_since": None,
    "seen": "2026-03-01T11:59:58.000Z",
    "bytes_in": 2000,
    "bytes_out": 3000,
    "answered": 4,
    "seconds": [0.5, 2.0],
    "failed": {"OSError": 1},
    "faults": [
        {
            "at": "2026-03-01T11:58:00.000Z",
            "site": "client-000",
            "phase": "train",
            "error": "OSError",
            "message": "silent",
            "trace": ["a.py:1 f", "b.py:2 g"],
        }
    ],
}
AWAITED = {
    "party": "client-000",
    "site": "client-000",
    "task": "train",
    "number": 9,
    "attempt": 2,
    "asked": "2026-03-01T11:59:30.000Z",
    "away_since": None,
    "lease_until": "2026-03-01T12:10:00.000Z",
}


def shown(seen, width=200):
    """Return how a run stands, as people see it."""
    console = Console(width=width, record=True, file=StringIO())
    console.print(view(seen, NOW))
    return console.export_text()


def saw(folder, **changes):
    """Write what a coordinator wrote last."""
    seen = {"version": 1, "run": folder.name, "written": "2026-03-01T11:59:59.000Z", "doing": "training, round 3"}
    seen |= {"round": 3, "name": "app", "rounds": 20, "listening": "127.0.0.1:1", "sites": [SITE], "awaited": [AWAITED]}
    write_json(folder / "status.json", seen | changes)


@pytest.fixture
def run(tmp_path):
    """Return a run that was stopped after its first round, with a coordinator's last words in its folder."""
    with closing(begin(app(), tmp_path / "runs")) as recording:
        rounds = recording.rounds()
        next(rounds)
        rounds.close()
        saw(recording.folder)
        yield_folder = recording.folder
    return yield_folder


@pytest.fixture
def waiting(tmp_path):
    """Return the folder of a run that waits for its first sites."""
    folder = tmp_path / "runs" / "20260301-115900-app-0000"
    folder.mkdir(parents=True)
    saw(folder, doing="waiting for sites", round=None, awaited=[])
    return folder


def test_while_it_is_served_the_file_holds(run, tmp_path):
    with locked(run):
        seen = standing(tmp_path)
    assert (seen.run, seen.serving, seen.doing, seen.closed, seen.total) == (run.name, True, "training, round 3", 1, 20)
    assert [one["number"] for one in seen.awaited()] == [9]
    (site,) = seen.sites()
    assert site["connected"]
    assert site["metrics"]["client-000"]["round"] == 1
    assert 0 < site["metrics"]["client-000"]["loss"] < 5
    assert warnings(seen, NOW) == []


def test_the_run_that_is_served_comes_before_a_newer_one(run, waiting, tmp_path):
    newer = waiting.rename(waiting.parent / "29990101-000000-app-0000")
    assert standing(tmp_path).run == newer.name
    with locked(run):
        assert standing(tmp_path).run == run.name
        assert standing(tmp_path, "last").run == newer.name
    with locked(newer):
        assert standing(tmp_path).run == newer.name


def test_where_nobody_serves_nobody_is_awaited_or_connected(run, tmp_path):
    seen = standing(tmp_path)
    assert (seen.serving, seen.status, seen.awaited()) == (False, "stopped", [])
    assert not seen.sites()[0]["connected"]
    assert warnings(seen, NOW) == [
        "nobody serves this run; its coordinator wrote 1.0 s ago, and what follows is as it was then"
    ]


def test_who_died_without_a_word_was_interrupted(run, tmp_path):
    from fedloom.store.runs import journal

    with closing(journal(run)) as book:
        book.reopen()
    seen = standing(tmp_path)
    assert (seen.status, seen.reason) == (
        "interrupted",
        "its coordinator ended without a word; serve it again and it goes on",
    )


@pytest.mark.parametrize(
    ("note", "serving", "expected"),
    [
        ({"above": "", "ended": ""}, True, ("waiting", "1 of 2 are here")),
        ({"above": "run 7", "ended": ""}, True, ("running", "")),
        (
            {"above": "run 7", "ended": ""},
            False,
            ("interrupted", "its relay does not run; start it again and it goes on"),
        ),
        ({"above": "run 7", "ended": "completed"}, False, ("completed", "as the run above ended")),
    ],
)
def test_a_relay_says_how_it_stands_too(waiting, tmp_path, note, serving, expected):
    saw(waiting, waits="1 of 2 are here")
    write_json(waiting / "relay.json", {"app": "x", "names": "number", **note})
    with locked(waiting) if serving else nullcontext():
        seen = standing(tmp_path)
    assert (seen.status, seen.reason) == expected
    assert seen.figures(NOW)["above"] == note["above"]
    text = shown(seen)
    assert ("passes on run 7" if note["above"] else "has not heard of a run above") in text
    assert "coordinator wrote" not in text


def test_a_file_that_is_not_written_any_more_is_told_to_be_late(run, tmp_path):
    with locked(run):
        seen = standing(tmp_path)
        assert not seen.late(NOW)
        assert seen.late(NOW + timedelta(seconds=LATE_S))
        assert "may hang" in warnings(seen, NOW + timedelta(seconds=LATE_S))[0]


@pytest.mark.parametrize(
    ("changes", "serving", "expected"),
    [
        ({}, True, ("running", "training, round 3", 2, 3)),
        ({"waits": "1 of 2 sites are here", "doing": "waiting for sites", "round": None, "closed": 0}, True, None),
        ({}, False, ("unknown", "the coordinator is not running", 2, None)),
    ],
)
def test_where_the_database_is_down_there_is_what_was_written_last_and_why_no_more(
    waiting, tmp_path, command, changes, serving, expected
):
    (waiting / "journal.url").write_text("postgresql+pg8000://me:secret@127.0.0.1:1/fedloom")
    saw(waiting, **({"closed": 2} | changes))
    with locked(waiting) if serving else nullcontext():
        seen, told = standing(tmp_path), command("status", "--home", tmp_path)
    expected = expected or ("waiting", "waiting for sites", 0, None)
    assert (seen.status, seen.doing, seen.closed, seen.round) == expected
    assert warnings(seen, NOW)[0] == (
        "the journal's database cannot be read or written: no connection (Connection refused); so this is no more than "
        "what its coordinator wrote 1.0 s ago"
    )
    assert told.code == 0
    assert "client-000" in told.out
    assert "secret" not in told.out
    (event,) = command("status", "--home", tmp_path, "--json").events
    assert "no connection" in event["unread"]


def test_of_runs_whose_database_is_down_commands_say_that_and_not_that_there_are_none(waiting, command):
    (waiting / "journal.url").write_text("postgresql+pg8000://me:secret@127.0.0.1:1/fedloom")
    for words in (("show", "last"), ("runs",), ("verify", "last"), ("report", "last")):
        told = command(*words, "--out", waiting.parent)
        assert (told.code, told.err[:11]) == (2, "error FL450")
        assert "no connection (Connection refused)" in told.err
        assert "none" not in told.err


@pytest.mark.parametrize(
    ("round", "closed", "doing"),
    [(1, 0, "training, round 2"), (3, 2, "training, round 3"), (20, 20, "ending")],
)
def test_what_goes_on_does_not_contradict_what_is_closed(run, tmp_path, round, closed, doing):
    """The journal may have a round that the file was written before, or the other way round."""
    saw(run, round=round, doing=f"training, round {round}", closed=closed)
    with locked(run):
        seen = standing(tmp_path)
    assert (seen.closed, seen.doing) == (max(closed, 1), doing)


def test_it_says_since_when_bytes_are_counted(run, tmp_path):
    saw(run, began="2026-03-01T11:57:00.000Z")
    with locked(run):
        assert "received and sent since the coordinator began, 3 min 0 s ago" in shown(standing(tmp_path))
    assert "received and sent" not in shown(standing(tmp_path))


def test_before_the_first_round_there_is_a_file_and_no_journal(waiting, tmp_path):
    with locked(waiting):
        assert (standing(tmp_path).status, standing(tmp_path).doing) == ("waiting", "waiting for sites")
    gone = standing(tmp_path)
    assert (gone.status, gone.ended, gone.doing) == ("gone", True, "ended")


def test_the_newest_run_is_shown_and_another_one_by_its_name(run, waiting, tmp_path):
    assert standing(tmp_path).run == max(run.name, waiting.name)
    assert standing(tmp_path, waiting.name).run == waiting.name
    with pytest.raises(UnknownRun, match="there is no run 'nothing' in"):
        standing(tmp_path, "nothing")


def test_an_empty_home_is_refused_in_a_sentence(tmp_path):
    with pytest.raises(UnknownRun, match="nothing was ever served from it"):
        standing(tmp_path)


def test_a_file_of_somebody_else_is_refused(run, tmp_path):
    (run / "status.json").write_text("[1, 2]")
    with pytest.raises(RunError, match="not written by a coordinator"):
        standing(tmp_path)


def test_looking_does_not_take_the_folder_nor_leave_anything_in_it(waiting, tmp_path):
    before = sorted(path.name for path in waiting.iterdir())
    standing(tmp_path)
    assert sorted(path.name for path in waiting.iterdir()) == before


def test_the_page_tells_every_key(run, tmp_path):
    page = (DOCS / "network.md").read_text()
    with locked(run):
        told = standing(tmp_path).figures(NOW)
    assert not [key for key in told if f"`{key}`" not in page]


def test_one_object_for_programs(run, tmp_path):
    with locked(run):
        told = standing(tmp_path).figures(NOW)
    assert json.loads(json.dumps(told)) == told
    assert (told["event"], told["age_s"], told["round"], told["closed"]) == ("status", 1.0, 3, 1)
    assert told["sites"][0]["faults"][0]["trace"] == ["a.py:1 f", "b.py:2 g"]
    assert told["metrics"]["accuracy"] > 0.5


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({}, "awaiting client-000: train 9, asked 30.0 s ago, attempt 2; connected, at work; given up in 10 min 0 s"),
        (
            {"attempt": 1, "away_since": "2026-03-01T11:59:50.000Z", "lease_until": "2026-03-01T12:00:40.000Z"},
            "awaiting client-000: train 9, asked 30.0 s ago; away for 10.0 s; given up in 40.0 s",
        ),
        (
            {"lease_until": "2026-03-01T11:00:00.000Z", "attempt": 1},
            "awaiting client-000: train 9, asked 30.0 s ago; connected, at work; given up now",
        ),
    ],
)
def test_who_is_awaited_and_why_is_a_sentence(changes, said):
    assert awaiting({**AWAITED, **changes}, NOW) == said


def test_who_has_not_come_since_the_coordinator_began_is_told_so():
    told = awaiting({**AWAITED, "away_since": "2026-03-01T11:59:50.000Z", "came": False}, NOW)
    assert "; away since the coordinator began 10.0 s ago, or longer; given up" in told


def test_names_of_sites_are_not_cut_where_there_is_little_room(run, tmp_path):
    saw(run, sites=[{**SITE, "name": f"a-hospital-of-a-long-name-{end}"} for end in "ab"])
    told = shown(standing(tmp_path), width=60)
    assert "…" not in told
    assert all(f"-{end} " in told for end in "ab")


def test_the_command_shows_it(run, tmp_path, command):
    told = command("status", "--home", tmp_path)
    assert told.code == 0
    for part in (run.name, "stopped", "1 of 20 rounds closed", "nobody serves this run", "client-000", "2.0 kB"):
        assert part in told.out
    assert "OSError: silent [b.py:2 g < a.py:1 f]" in " ".join(told.out.split())


NOBODY = "nobody has approved this app at this site."
REFUSAL = {
    "at": "2026-03-01T11:59:00.000Z",
    "site": "client-000",
    "phase": "policy",
    "error": "PolicyError",
    "message": NOBODY,
    "trace": [],
}
REFUSES = {**SITE, "refuses": {"client-000": NOBODY}, "faults": [REFUSAL, *SITE["faults"], REFUSAL]}
WAITS = "1 of 2 sites are here: client-001; client-000 does not answer yet: nobody has approved this app at this site"


def test_a_refusal_is_said_once_before_the_run_begins(waiting, tmp_path, command):
    saw(waiting, doing="waiting for sites", round=None, awaited=[], waits=WAITS, sites=[REFUSES])
    with locked(waiting):
        told = " ".join(command("status", "--home", tmp_path).out.split())
    assert told.count("nobody has approved") == 1
    assert WAITS in told
    assert told.count("OSError: silent") == 1


def test_a_refusal_is_said_once_while_the_run_goes_on(run, tmp_path, command):
    saw(run, sites=[REFUSES])
    with locked(run):
        told = " ".join(command("status", "--home", tmp_path).out.split())
    assert told.count("nobody has approved") == 1
    assert f"client-000 takes no part yet: {NOBODY}" in told


def test_who_called_in_vain_is_told_with_the_reason_while_somebody_serves(run, tmp_path):
    why = "the app of site 'west' is 12ab, the coordinator's is 34cd"
    saw(run, refused=[{"name": "west", "at": "2026-03-01T11:59:50.000Z", "why": why}])
    with locked(run):
        assert f"west was refused 10.0 s ago: {why}" in shown(standing(tmp_path))
    assert "west" not in shown(standing(tmp_path))


def test_the_same_fault_is_shown_once_with_how_long_ago_it_was_last_so(run, tmp_path):
    (fault,) = SITE["faults"]
    saw(run, sites=[{**SITE, "faults": [{**fault, "at": "2026-03-01T10:00:00.000Z"}, fault, fault]}])
    told = shown(standing(tmp_path))
    assert told.count("OSError: silent") == 1
    assert "2 min 0 s ago: client-000, train: OSError: silent" in told


def test_the_command_prints_one_object(run, tmp_path, command):
    (event,) = command("status", run.name, "--home", tmp_path, "--json").events
    assert (event["run"], event["serving"], event["awaited"]) == (run.name, False, [])


def test_to_watch_ends_with_the_run(waiting, tmp_path, command):
    (event,) = command("status", "--home", tmp_path, "--watch", "--json").events
    assert event["status"] == "gone"


def test_the_command_refuses_an_empty_home(tmp_path, command):
    told = command("status", "--home", tmp_path / "nothing")
    assert told.code == 2
    assert told.err.startswith("error FL420")


def test_of_a_network_run_that_was_stopped_show_names_the_command_that_goes_on(run, tmp_path, command):
    from sqlalchemy import text

    from fedloom.store.runs import journal

    with closing(journal(run)) as book, book.engine.begin() as connection:
        connection.execute(text("update run set engine = 'network', app = 'app.toml', overrides = '[\"rounds=9\"]'"))
    told = command("show", run.name, "--out", run.parent)
    assert f"fedloom serve app.toml --set rounds=9 --home {tmp_path}` goes on from here" in told.err
    assert "resume" not in told.err
    with closing(journal(run)) as book, book.engine.begin() as connection:
        connection.execute(text("update run set status = 'failed'"))
    assert "goes on" not in command("show", run.name, "--out", run.parent).err  # its sites know that it failed
