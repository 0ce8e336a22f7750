"""How a run between real processes begins: one institution that has not approved the app ends it for nobody."""

import json
import subprocess

import pytest

from fedloom.status import standing
from wired import COMMAND, COORDINATOR, Federated, clients, simulated, slow

pytestmark = pytest.mark.slow

PLAIN = {"kind": "Sgd", "recipe": "fedavg", "changes": "local=Slow()"}
NOBODY = "nobody has approved this app at this site"


def unapproved(there, name):
    """Let a site insist on an approval, which nobody has given."""
    (there.folder / name / "policy.toml").write_text('approval = "required"\n')
    return there


def approve(there, name):
    words = ["approve", str(there.app), "--home", str(there.folder / name), "--yes"]
    subprocess.run([*COMMAND, *words], cwd=there.folder, check=True, capture_output=True, timeout=120)


def refusal(there, name):
    """Return why a site takes no part, as the status has it; nothing where it is not there yet."""
    return "".join(site["refuses"].get(name, "") for site in standing(there.home).sites())


def test_who_has_not_approved_is_named_awaited_and_taken_in_once_it_has(tmp_path):
    app, late = slow(tmp_path, sites=2, rounds=5, **PLAIN), clients(2)[1]
    with unapproved(Federated(tmp_path, app, clients(2)), late) as there:
        there.start().until_said(COORDINATOR, f"{late} does not answer yet: {NOBODY}")
        there.until(lambda: NOBODY in refusal(there, late))
        there.until(lambda: f"{late} does not answer yet: {NOBODY}" in standing(there.home).reason)
        assert "takes part as soon as it may" in there.said(late)
        words = [*COMMAND, "status", "--home", str(there.home)]
        shown = subprocess.run(words, capture_output=True, text=True, check=True)
        assert " ".join(shown.stdout.split()).count(NOBODY) == 1
        approve(there, late)
        end = there.ended()
    assert (end["status"], end["rounds"], end["sha256"]) == ("completed", 5, simulated(app, tmp_path)["sha256"])


def test_the_others_begin_without_it_when_the_time_is_over_and_it_joins_later(tmp_path):
    app, late = slow(tmp_path, sites=3, rounds=5000, seconds=0.05, **PLAIN), clients(3)[2]
    with unapproved(Federated(tmp_path, app, clients(3), ("--least", "2", "--start", "3")), late) as there:
        there.start().until(lambda: there.rounds() > 1)
        assert {event["counted"] for event in there.events()} == {2}
        there.until(lambda: NOBODY in refusal(there, late))
        approve(there, late)
        there.until(lambda: any(event["counted"] == 3 for event in there.events()))
        there.until(lambda: not refusal(there, late))
        assert all(process.poll() is None for process in there.processes.values())


def test_with_too_few_it_ends_with_a_reason_everywhere_and_serving_again_begins(tmp_path):
    app, late = slow(tmp_path, sites=2, rounds=3, **PLAIN), clients(2)[1]
    with unapproved(Federated(tmp_path, app, clients(2), ("--start", "3")), late) as there:
        there.start().until(lambda: all(process.poll() is not None for process in there.processes.values()))
        assert {name: process.returncode for name, process in there.processes.items()} == {
            COORDINATOR: 2,
            **dict.fromkeys(clients(2), 1),
        }
        reason = f"the run has not begun in time, and 2 are needed: 1 of 2 sites are here: {clients(2)[0]}; {late}"
        last = json.loads(there.said(COORDINATOR).splitlines()[-1])
        assert (last["code"], reason in last["said"]) == ("FL410", True)
        assert all(reason in there.said(name) for name in clients(2))
        assert standing(there.home).status == "gone"
        assert reason in standing(there.home).reason
        approve(there, late)
        there.options = ()
        there.start()
        assert there.ended()["status"] == "completed"
