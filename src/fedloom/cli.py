"""The command line: every message says what happened and what comes next. Exit codes: 0 done (also when a target was
missed), 1 a run that failed, 2 something that was refused before it began, 130 stopped by Ctrl-C or SIGTERM.
"""

import sys
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from importlib import import_module
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from .attackers import Attackers, called
from .commands.logs import terminable
from .commands.told import complain, console, left_out, out_console, say, say_unsigned, succeeded, tell, trained
from .core.errors import ConfigError, FedloomError, OtherFormat, StorageError, UnknownRun
from .core.words import counted
from .load import DEMO, Loaded, load
from .recording import Recording
from .running import begin
from .running import resume as resumed
from .simulation import Simulation
from .store.folders import writable
from .version import __version__

cli = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

Out = Annotated[Path, typer.Option("--out", help="The folder where runs live.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object per line, for programs.")]
Run = Annotated[str, typer.Argument(help="A run's id, as `fedloom runs` lists it, or `last`.")]
Set = Annotated[list[str], typer.Option("--set", help="Change a setting: key=value, such as rounds=5; repeatable.")]
Compare = Annotated[
    bool | None,
    typer.Option("--compare/--no-compare", help="Also train alone and pooled for the report; by default if cheap."),
]
_ENGINES = (
    "sequential; pool (all cores, the same bits); ray (the same, on a cluster); vectorized (stacks, equal to "
    "rounding); auto: the faster of the first two."
)
Engine = Annotated[str, typer.Option(help=_ENGINES)]
RUNS = Path("runs")
LISTED, FIRST = 20, 5  # more clients than LISTED are too many to read: only the first few are shown


def _version(asked: bool) -> None:
    if asked:
        print(f"fedloom {__version__}")
        raise typer.Exit


@cli.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Federated learning: parties that may not share rows train one model together. Start with `fedloom demo`."""


def main() -> None:
    """Run the command line; users' mistakes end in one sentence, never in a traceback."""
    try:
        cli()
    except FedloomError as error:
        complain(error)
        sys.exit(2)


@cli.command()
def demo(out: Out = RUNS, json_: Json = False, compare: Compare = None) -> None:
    """Train on a medical data set, divided over hospitals; ends with a table and a report. No files needed."""
    run(DEMO, [], out, json_, None, compare, "auto")


@cli.command()
def run(
    app: Annotated[str, typer.Argument(help="An app: a .toml or a .py file.")],
    set_: Set = [],  # noqa: B006 (typer copies it)
    out: Out = RUNS,
    json_: Json = False,
    start_from: Annotated[Path | None, typer.Option(help="A model file to start from.")] = None,
    compare: Compare = None,
    engine: Engine = "auto",
    ray_address: Annotated[
        str | None, typer.Option(help="For --engine ray: a running cluster's HOST:PORT, or auto; else Ray starts here.")
    ] = None,
    attack: Annotated[
        str | None, typer.Option(help="Simulate hostile clients: sign_flip, scaling:scale=10, backdoor:target=3, …")
    ] = None,
    attackers: Annotated[float, typer.Option(help="With --attack: which part of the clients is hostile.")] = 0.2,
) -> None:
    """Train an app on this machine or a cluster, with its parties simulated."""
    engine = _engine(engine, ray_address)
    loaded = load(app, set_)
    recording = begin(
        loaded.app,
        out,
        source=loaded.source,
        overrides=set_,
        start=start_from,
        identity=loaded.identity,
        engine=engine,
        attackers=None if attack is None else Attackers.of(attack, attackers),
    )
    if not json_:
        _introduce(recording, loaded)
    _finish(recording, json_, compare)


def _engine(engine: str, ray_address: str | None) -> str:
    if ray_address is not None and engine != "ray":
        raise ConfigError(f"--ray-address goes with --engine ray, got --engine {engine}.")
    return engine if ray_address is None else f"ray@{ray_address}"


@cli.command()
def resume(run: Run, out: Out = RUNS, json_: Json = False, compare: Compare = None) -> None:
    """Go on with a run that was stopped or killed; it ends with the bits that it would have had."""
    recording = _reopened(run, out)
    if not json_:
        say(f"going on with {recording.run} after round {recording.state.round}")
    _finish(recording, json_, compare)


@cli.command()
def runs(out: Out = RUNS, json_: Json = False) -> None:
    """List the runs in a folder, newest last."""
    from .report.tables import runs_table
    from .store.runs import Unread, listed

    if not out.is_dir() and (out != RUNS or out.exists()):
        raise ConfigError(f"there is no folder {out}; --out is where runs live, which is {RUNS} by default.")
    unread: dict[str, Unread] = {}
    rows = [
        {
            "run": row.run,
            "app": row.name,
            "status": row.status,
            "rounds": row.summary.get("rounds"),
            "started": row.started,
            "reason": row.reason,
        }
        for row in listed(out, unread)
    ]
    if json_:
        for row in rows:
            tell(row)
    elif rows:
        told = ("run", "status", "rounds", "reason")  # an id holds the app's name and when the run began
        out_console.print(runs_table([{name: row[name] for name in told} for row in rows]))
    elif not unread:
        say(f"no runs in {out}; `fedloom demo` makes one")
    _say_unread(out, unread)


def _say_unread(out: Path, unread: Mapping[str, FedloomError]) -> None:
    """Name the runs of another format; raises `StorageError` for those that cannot be reached now."""
    for run, error in unread.items():
        if isinstance(error, OtherFormat):
            say(f"{out / run} is of another format, so it is not listed; the fedloom that wrote it reads it")
    away = {run: error for run, error in unread.items() if not isinstance(error, OtherFormat)}
    for run, error in away.items():
        raise StorageError(f"{counted(len(away), 'run')} in {out} cannot be listed now, such as {run}: {error}")


@cli.command()
def show(run: Run, out: Out = RUNS, json_: Json = False) -> None:
    """Show a run: how it stands, its rounds, its faults; the report shows its sites."""
    from .report.tables import fault_lines, privacy_lines, rounds_table
    from .store.runs import opened, run_in, served_again

    folder, journal = opened(out, run)
    with closing(journal):
        rounds = journal.rounds()
    row = run_in(folder)
    if json_:
        for event in rounds:
            tell(event)
        if row.summary:
            tell(row.summary)
        return
    told = escape(f"{row.name}: {row.status}{', ' if row.reason else ''}{row.reason}")
    out_console.print(f"[bold]{escape(row.run)}[/]  {told}", highlight=False)
    out_console.print(rounds_table(rounds))
    for line in (*privacy_lines(rounds), *fault_lines(rounds)):
        out_console.print(line)
    if (folder / "record").is_dir():
        say(f"`fedloom verify {row.run}{'' if out == RUNS else f' --out {out}'}` checks the signed record")
    if row.status in ("interrupted", "stopped") or (row.status == "failed" and row.engine != "network"):
        elsewhere = "" if out == RUNS else f" --out {out}"
        resumed = f"fedloom resume {row.run}{elsewhere}"
        say(f"`{served_again(row, out.parent) if row.engine == 'network' else resumed}` goes on from here")


@cli.command()
def report(run: Run, out: Out = RUNS, compare: Compare = None) -> None:
    """Write a run's report again: one HTML file with pictures, and the table alone / federated / pooled per site."""
    from .publish import publish

    with _recording(run, out) as recording, console.status("") as status:
        made = publish(recording, recording.state, wanted=compare, tick=lambda what: status.update(_comparing(what)))
    out_console.print(str(made.path), markup=False, soft_wrap=True, highlight=False)


@cli.command()
def predict(
    run: Run,
    data: Annotated[Path, typer.Option("--data", help="New rows: a CSV with the app's columns (or an .npz).")],
    out: Out = RUNS,
    output: Annotated[Path | None, typer.Option(help="Write the predictions to this CSV file.")] = None,
    site: Annotated[str | None, typer.Option(help="Use this site's personal model, where leaves stay home.")] = None,
) -> None:
    """Apply a run's model to new rows."""
    from .predict import predict as predicted
    from .predict import preview, statistics_of
    from .report.tables import predictions_table

    if output is not None:
        writable(output, data)
    with _recording(run, out) as recording:
        vector, app = recording.deployed(site), recording.simulation.app
        found = predicted(app.built, vector, app.data.source, statistics_of(recording.folder or out), data)
    if found.dropped:
        say(left_out(found.dropped))
    if output is not None:
        found.save(output)
        say(f"{len(found.outputs)} predictions in {output}")
    elif out_console.is_terminal:
        out_console.print(predictions_table(preview(found), len(found.outputs)))
    else:
        found.write(sys.stdout)


def _introduce(recording: Recording, loaded: Loaded) -> None:
    from .data.holds import MANY, who_holds_what
    from .report.tables import held_table
    from .trust import trust

    app, simulation = loaded.app, recording.simulation
    assert isinstance(simulation, Simulation), "what runs here has its parties here"
    size, sites = simulation.terms.payload.size, len(simulation.held)
    held = who_holds_what(simulation.held, LISTED + 1)
    console.print(f"[bold]{escape(app.name)}[/]: {size:,} shared parameters, run {recording.run}", soft_wrap=True)
    shown = len(held) if len(held) <= LISTED else FIRST
    console.print(held_table(held[:shown]))
    if sites > shown:
        console.print(f"… and {sites - shown:,} more clients; the report shows {'them all' if sites <= MANY else MANY}")
    told = escape(trust(app.strategy, simulation.guarantee(app.rounds)))
    console.print(f"[dim]{told}[/]", highlight=False)
    say_unsigned(recording)
    if simulation.attackers is not None:
        who = simulation.attackers.chosen(list(simulation.parties), app.seed)
        named = ", ".join(who[:FIRST])
        say(f"SIMULATED ATTACK, {called(simulation.attackers.attack)}, by {len(who)} of {sites}: {named}")
    engine = recording.simulation.engine
    say(f"engine {engine}{f': {engine.why}' if engine.why else ''}")


def _finish(recording: Recording, json_: bool, compare: bool | None) -> None:
    code = 0
    with closing(recording), terminable():
        try:
            trained(recording, json_)
        except KeyboardInterrupt:
            code = 130
        except FedloomError as error:
            complain(error)
            code = 1
        if json_:
            tell(recording.summary)
        else:
            code = _conclude(recording, compare) or code
    if code:
        raise typer.Exit(code)


def _conclude(recording: Recording, compare: bool | None) -> int:
    """Say how the run ended; write and show its report if it came to its end. Return 130 if that was interrupted."""
    status, reason = recording.state.status, recording.state.reason
    if status == "failed":
        say(
            f"{recording.run} failed; when its cause is mended, `{_again('resume', recording)}` goes on from here "
            f"(if the app itself must change: begin a new run)"
        )
        return 0
    say(f"{status}: {reason}")
    if told := succeeded(recording):
        say(told)
    if status == "stopped":
        say(f"`{_again('resume', recording)}` goes on from here")
        return 0
    try:
        _report(recording, compare)
    except KeyboardInterrupt:
        say(f"there is no report yet; `{_again('report', recording)}` writes it")
        return 130
    return 0


def _again(command: str, recording: Recording) -> str:
    assert recording.folder is not None, "a run of the command line has a folder"
    elsewhere = "" if recording.folder.parent == RUNS else f" --out {recording.folder.parent}"
    return f"fedloom {command} {recording.run}{elsewhere}"


def _report(recording: Recording, compare: bool | None) -> None:
    from .publish import publish
    from .report.gains import gained
    from .report.tables import comparison_table

    with console.status("report") as status:
        made = publish(recording, recording.state, wanted=compare, tick=lambda what: status.update(_comparing(what)))
    if made.comparison.rows:
        out_console.print(comparison_table(made.comparison.rows, made.comparison.figure))
        out_console.print(gained(made.comparison.rows, made.comparison.figure), markup=False)
    else:
        out_console.print(made.comparison.note, markup=False, highlight=False)
    for what, path in (("model", recording.summary["model"]), ("report", made.path)):
        out_console.print(f"{what:7} {path}", markup=False, soft_wrap=True, highlight=False)


def _comparing(what: str) -> str:
    return escape(f"training {what} to compare")


@contextmanager
def _recording(run: str, out: Path) -> Iterator[Recording]:
    recording = _reopened(run, out, ended=True)
    try:
        yield recording
    finally:
        recording.close()


def _reopened(run: str, out: Path, *, ended: bool = False) -> Recording:
    from .store.runs import opened

    folder, journal = opened(out, run)
    with closing(journal):
        row = journal.row()
    if not row.app:
        raise UnknownRun(f"the run {run} was begun in Python, which has its app: fedloom.running.resume(app, folder).")
    loaded = load(row.app, row.overrides)
    return resumed(loaded.app, folder, identity=loaded.identity, ended=ended)


_MORE = (
    ("plan", "plan"),
    ("new", "new"),
    ("calibrate", "calibrate"),
    ("curve", "curve"),
    ("blind", "blind"),
    ("audit", "audit"),
    ("provision", "provision"),
    ("approve", "approve"),
    ("key", "key"),
    ("budget", "budget"),
    ("serve", "serve"),
    ("join", "join"),
    ("relay", "relay"),
    ("status", "status"),
    ("try", "try_"),
    ("verify", "verify"),
)
for _name, _module in _MORE:
    _found = import_module(f".commands.{_module}", __package__)
    cli.command(_name, epilog=getattr(_found, "EXAMPLE", None))(_found.command)
