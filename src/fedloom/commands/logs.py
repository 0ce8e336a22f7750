"""What long-lived commands say while they run: readable lines on a terminal, one JSON object per line elsewhere.

A record is the name of an event, which never changes with what happened, and plain values beside it; the one called
`said` is a sentence for people. No other part of it is written, so that neither an object's text nor an exception's can
carry a row or a key into a log. `docs/network.md` lists the events.
"""

import json
import logging
import re
import signal
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from logging import Formatter, Handler, Logger, LogRecord, StreamHandler, getLogger
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

import typer

from ..core.errors import ConfigError, FedloomError
from ..report.words import plain
from .told import complain, say

if TYPE_CHECKING:
    from ..runtime.net.telling import Told

ROOT = "fedloom"
LONGEST = 2000  # characters of one value
_TOKEN = re.compile(r"(fedloom1:\w+:[^:\s]+:)\S+")
_OWN = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}
STOPPED = 130  # exit code of who was stopped, with Ctrl-C or SIGTERM, and can go on
_HEAD = frozenset({"at", "level", "logger", "event"})
_LEVELS = {"WARNING": "warning", "ERROR": "error", "CRITICAL": "error"}


def values(record: LogRecord) -> dict[str, str | int | float | bool | None]:
    """Return the plain values beside an event; whatever is none is named by its type alone.

    >>> values(logging.makeLogRecord({"msg": "connected", "site": "north", "rows": [1, 2]}))
    {'site': 'north', 'rows': '<list>'}
    """
    return {name: _value(value) for name, value in vars(record).items() if name not in _OWN}


def named(values: Mapping[str, float]) -> dict[str, float]:
    """Return values that others have named, as they may stand beside an event: nothing of the record itself.

    >>> named({"loss": 0.5, "message": 1.0, "event": 2.0})
    {'loss': 0.5}
    """
    return {name: value for name, value in values.items() if name not in _OWN | _HEAD}


def _value(value: object) -> str | int | float | bool | None:
    if value is None or isinstance(value, bool | int | float):
        return value
    return clean(value)[:LONGEST] if isinstance(value, str) else f"<{type(value).__name__}>"


def clean(text: str) -> str:
    """Return a text on one line, without the secrets of join tokens.

    >>> clean("join with fedloom1:site:north:c2VjcmV0 now")
    'join with fedloom1:site:north:… now'
    """
    return _TOKEN.sub(r"\1…", plain(text))


class Lines(Formatter):
    """One JSON object per record: when, how serious, which event, and its values."""

    def format(self, record: LogRecord) -> str:
        """Return the line."""
        at = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created)) + f".{int(record.msecs):03}Z"
        head = {"at": at, "level": _LEVELS.get(record.levelname, record.levelname.lower()), "logger": record.name}
        return json.dumps(head | {"event": clean(record.getMessage()), **_raised(record)} | values(record))


class Words(Formatter):
    """One readable line per record."""

    def format(self, record: LogRecord) -> str:
        """Return the line, in the order of the values, and last what is said.

        >>> Words().format(logging.makeLogRecord({"msg": "connected", "levelno": 20, "site": "north"}))
        'connected: site north'
        """
        shown = dict(values(record)) | _raised(record)
        said = [str(shown.pop("said"))] if "said" in shown else []
        told = ", ".join([*(f"{name} {value}" for name, value in shown.items()), *said])
        event, level = clean(record.getMessage()), _LEVELS.get(record.levelname)
        head = f"{level}: " if level not in (None, event) else ""
        return f"{head}{event}{': ' if told else ''}{told}"


def _raised(record: LogRecord) -> dict[str, str]:
    """Return the class of the exception that a record carries: its text can quote a row."""
    return {"error": record.exc_info[0].__name__} if record.exc_info and record.exc_info[0] is not None else {}


class Spoken(Handler):
    """Says records on the terminal, above whatever moves there."""

    def emit(self, record: LogRecord) -> None:
        """Say one."""
        say(self.format(record))


@contextmanager
def logged(to: Path | None = None, *, terminal: bool | None = None) -> Iterator[Logger]:
    """Say what the package logs while the block runs; a refusal is said in the same form, and ends the command.

    Args:
        to: a file that JSON lines are added to, instead of stderr.
        terminal: is stderr one? By default that is found out.
    """
    readable = to is None and (sys.stderr.isatty() if terminal is None else terminal)
    root, opened = getLogger(ROOT), _opened(to)
    handler: Handler = Spoken() if readable else StreamHandler(opened or sys.stderr)
    handler.setFormatter(Words() if readable else Lines())
    level, propagate = root.level, root.propagate
    root.addHandler(handler)
    root.setLevel(logging.INFO)
    root.propagate = False
    try:
        yield getLogger(f"{ROOT}.commands")
    except FedloomError as error:
        if readable or to is not None:
            complain(error)
        if not readable:
            getLogger(f"{ROOT}.commands").error("error", extra={"code": error.code, "said": str(error)})
        raise typer.Exit(2) from error
    except typer.Exit:
        raise  # its reason has been said
    except Exception:
        getLogger(f"{ROOT}.commands").exception("crashed")  # its class; the rest goes to stderr
        raise
    finally:
        root.removeHandler(handler)
        root.setLevel(level)
        root.propagate = propagate
        if opened is not None:
            opened.close()


@contextmanager
def stoppable(logger: Logger, said: str) -> Iterator[None]:
    """Let Ctrl-C, and SIGTERM, end what the block does without a crash, and say how it goes on.

    SIGTERM is taken for Ctrl-C until the block takes it otherwise.
    """
    signal.signal(signal.SIGTERM, interrupted)
    try:
        yield
    except KeyboardInterrupt:
        logger.info("stopped", extra={"said": said})
        raise typer.Exit(STOPPED) from None


@contextmanager
def terminable() -> Iterator[None]:
    """Take SIGTERM for Ctrl-C while the block runs."""
    before = signal.signal(signal.SIGTERM, interrupted)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before or signal.SIG_DFL)


def interrupted(*_: object) -> None:
    """Take SIGTERM, which is how service managers stop a process, for Ctrl-C: what was reached is saved."""
    raise KeyboardInterrupt


def code_of(status: str) -> int:
    """Return the exit code of a party of a run that ended so, or that was stopped before.

    >>> code_of("completed"), code_of("failed"), code_of("stopped")
    (0, 1, 130)
    """
    return {"failed": 1, "stopped": STOPPED}.get(status, 0)


def telling(logger: Logger, server: str) -> "Told":
    """Return what logs each event that a party tells of; who is away from it is told of with its HOST:PORT."""

    def told(event: str, /, **values: str | int) -> None:
        logger.info(event, extra={"server": server, **values} if event == "away" else values)

    return told


def _opened(to: Path | None) -> TextIO | None:
    if to is None:
        return None
    try:
        return to.open("a", encoding="utf-8", buffering=1)
    except OSError as error:
        raise ConfigError(f"{to} cannot be written: {error.strerror}; choose another --log.") from error
