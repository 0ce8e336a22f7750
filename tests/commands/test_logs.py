"""Logs are lines that a program can read, and nothing in them can be a secret or a row."""

import json
import logging
import re
from pathlib import Path

import pytest
import typer

from fedloom.commands.logs import LONGEST, Lines, Words, clean, logged
from fedloom.core.errors import WireError

TOKEN = "fedloom1:site:north:c2VjcmV0LXNlY3JldA"
log = logging.getLogger("fedloom.runtime.net.door")


def test_a_record_is_one_json_object_with_its_values(capsys):
    with logged(terminal=False):
        log.warning("refused", extra={"from": "10.0.0.1", "who": "site 'north'", "said": "too long"})
    (line,) = capsys.readouterr().err.splitlines()
    told = json.loads(line)
    assert told.pop("at").endswith("Z")
    assert told == {
        "level": "warning",
        "logger": "fedloom.runtime.net.door",
        "from": "10.0.0.1",
        "event": "refused",
        "who": "site 'north'",
        "said": "too long",
    }


def test_on_a_terminal_the_values_stand_behind_the_words(capsys):
    with logged(terminal=True):
        log.warning("refused", extra={"said": "too long", "from": "10.0.0.1"})
        log.info("connected", extra={"site": "north"})
    assert capsys.readouterr().err.splitlines() == [
        "warning: refused: from 10.0.0.1, too long",
        "connected: site north",
    ]


def test_a_file_takes_the_lines_and_keeps_those_before(tmp_path, capsys):
    path = tmp_path / "log.jsonl"
    for site in ("north", "south"):
        with logged(path):
            log.info("connected", extra={"site": site})
    assert [json.loads(line)["site"] for line in path.read_text().splitlines()] == ["north", "south"]
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("form", [Lines(), Words()])
def test_no_secret_and_no_row_comes_through(form):
    record = logging.makeLogRecord(
        {"msg": f"join {TOKEN}", "said": f"with {TOKEN}", "rows": [[63, "male"]], "levelno": 20}
    )
    try:
        raise ValueError("the cell 'Ada Lovelace' is no number")
    except ValueError as error:
        record.exc_info = (type(error), error, error.__traceback__)
    line = form.format(record)
    assert "ValueError" in line
    assert "<list>" in line
    for secret in ("c2VjcmV0", "Lovelace", "male", "Traceback"):
        assert secret not in line
    assert "\n" not in line


def test_what_somebody_else_says_is_cut_and_cannot_steer_a_terminal():
    record = logging.makeLogRecord({"msg": "refused", "said": "\x1b[31m\n" + "x" * 10_000, "levelno": 20})
    line = Words().format(record)
    assert "\x1b" not in line
    assert "\n" not in line
    assert len(line) < LONGEST + 100


def test_a_token_keeps_its_name_and_loses_its_secret():
    assert clean(f"token {TOKEN}") == "token fedloom1:site:north:…"


def refuse():
    raise WireError("the coordinator refuses: app")


@pytest.mark.parametrize("terminal", [True, False])
def test_a_refusal_ends_the_command_in_the_same_form(terminal, capsys):
    with pytest.raises(typer.Exit) as ended, logged(terminal=terminal):
        refuse()
    assert ended.value.exit_code == 2
    (line,) = capsys.readouterr().err.splitlines()
    if terminal:
        assert line == "error FL430: the coordinator refuses: app"
    else:
        told = {name: json.loads(line)[name] for name in ("level", "event", "code", "said")}
        assert told == {"level": "error", "event": "error", "code": "FL430", "said": "the coordinator refuses: app"}


def test_an_exit_is_no_crash_and_anything_else_is(capsys):
    with pytest.raises(typer.Exit) as ended, logged(terminal=False):
        raise typer.Exit(130)
    assert (ended.value.exit_code, capsys.readouterr().err) == (130, "")
    with pytest.raises(KeyError), logged(terminal=False):
        raise KeyError("cell")
    assert json.loads(capsys.readouterr().err)["event"] == "crashed"


def test_afterwards_logging_is_as_it_was(tmp_path):
    root = logging.getLogger("fedloom")
    before = (list(root.handlers), root.level, root.propagate)
    with logged(tmp_path / "log"):
        assert (len(root.handlers), root.propagate) == (len(before[0]) + 1, False)
    assert (list(root.handlers), root.level, root.propagate) == before


def test_who_says_nothing_is_below_what_is_shown(capsys):
    with logged(terminal=False):
        log.debug("said nothing", extra={"from": "10.0.0.1"})
    assert capsys.readouterr().err == ""


def test_an_error_is_called_one_once_on_a_terminal(capsys):
    with logged(terminal=True) as logger:
        logger.error("error", extra={"code": "FL410", "said": "round 2: 1 of 3 clients counted"})
        logger.error("no status", extra={"said": "the disk is full"})
    assert capsys.readouterr().err.splitlines() == [
        "error: code FL410, round 2: 1 of 3 clients counted",
        "error: no status: the disk is full",
    ]


def test_the_page_lists_every_event_and_no_other():
    """An event's name is written where it is logged, never put together: so a program can group by it."""
    root = Path(__file__).parents[2]
    source = "\n".join(path.read_text() for path in sorted((root / "src").rglob("*.py")))
    calls = r"(?:\blog|\blogger|_LOG|getLogger\(.*\))\.(?:info|warning|error|exception)\(|\blog\.log\(level, |\btold\("
    logged_ = set(re.findall(rf"(?:{calls})\"([^\"]+)\"", source))
    page = (root / "docs" / "network.md").read_text().partition("| event | ")[2].partition("\n\n")[0]
    assert set(re.findall(r"`([^`]+)`", "".join(row.split("|")[1] for row in page.splitlines()[2:]))) == logged_
