"""A run's report: what the journal holds, and the comparison that boards ask for, as one page."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from .app import App
from .compare import Comparison, Tick, compare, main_figure
from .core.parts import Weights
from .core.state import State
from .core.task import Member
from .core.weights import ByExamples
from .core.words import counted
from .data.holds import who_holds_what
from .digest import described
from .exposure import kept
from .models import BuiltIn
from .recording import REPORT_FILE, Recording
from .report.view import Estimate, RunView, SiteRow
from .simulation import Simulation
from .store.files import write_whole
from .store.journal import Journal
from .store.record import FOLDER, newest
from .training import NETWORK
from .trust import spent, trust

COMPARISON_FILE = "comparison.json"
MANY_SITES, LONG_S = 12, 60.0  # beyond these a comparison is only made when it is asked for


@dataclass(frozen=True)
class Published:
    """Where the report lies, and the comparison in it."""

    path: Path
    comparison: Comparison


def publish(
    recording: Recording, state: State, *, wanted: bool | None = None, tick: Tick = lambda _: None
) -> Published:
    """Write DIR/RUN/report.html.

    Args:
        recording: of the run, with a folder.
        state: its last.
        wanted: train alone and pooled for the comparison: yes, no, or (None) if that is cheap.
        tick: is told what is being trained.
    """
    from .report.page import render

    assert recording.folder is not None, "a report needs a run with a folder"
    assert recording.journal is not None, "a report needs a run with a journal"
    rounds = recording.journal.rounds()
    comparison = compared(recording, state, rounds, wanted, tick)
    page = render(view(recording.simulation.app, recording.journal, comparison, recording))
    write_whole(recording.folder / REPORT_FILE, page.encode())
    return Published(recording.folder / REPORT_FILE, comparison)


def compared(
    recording: Recording, state: State, rounds: list[dict[str, Any]], wanted: bool | None, tick: Tick
) -> Comparison:
    """Return the stored comparison of this state, a new one, or the reason why there is none."""
    assert recording.folder is not None, "a comparison is stored in the run's folder"
    here = _here(recording)
    if here is None:
        figure = main_figure(_seen(rounds), recording.simulation.app.stop)
        return Comparison(figure, (), "There is no comparison: the rows are at the sites.")
    stored = _stored(recording.folder, state.round)
    if stored is not None and wanted is not False:
        return stored
    if recording.simulation.app.strategy.examples.private:
        figure = main_figure(_seen(rounds), recording.simulation.app.stop)
        return Comparison(figure, (), "There is no comparison: training alone would spend privacy that is not told.")
    sites, seconds = len(here.held), sum(event["seconds"] for event in rounds)
    if wanted is False or (wanted is None and (sites > MANY_SITES or seconds > LONG_S)):
        figure = main_figure(_seen(rounds), recording.simulation.app.stop)
        note = f"Not made here; `fedloom report {recording.run} --compare` trains {sites} sites alone, and pooled."
        return Comparison(figure, (), note)
    made = compare(here, here.evaluated(state), tick)
    content = {"round": state.round, **asdict(made)}
    write_whole(recording.folder / COMPARISON_FILE, json.dumps(content, indent=1).encode())
    return made


def _here(recording: Recording) -> Simulation | None:
    """Return the simulation that a run was; None of a run between institutions, also where it is reopened here."""
    assert recording.journal is not None, "a report needs a run with a journal"
    simulation = recording.simulation
    return simulation if isinstance(simulation, Simulation) and recording.journal.row().engine != NETWORK else None


def _seen(rounds: list[dict[str, Any]]) -> Mapping[str, Any]:
    return next((event["metrics"] for event in reversed(rounds) if "metrics" in event), {"loss": None})


def _stored(folder: Path, round: int) -> Comparison | None:
    path = folder / COMPARISON_FILE
    if not path.exists():
        return None
    found = json.loads(path.read_text())
    if found["round"] != round:
        return None
    return Comparison(found["figure"], tuple(_site_row(row) for row in found["rows"]), found["note"])


def _site_row(row: Mapping[str, Any]) -> SiteRow:
    kinds = ("alone", "federated", "personal", "pooled")
    estimates = {kind: Estimate(**row[kind]) if row[kind] else None for kind in kinds}
    return SiteRow(row["site"], row["examples"], **estimates)


def view(app: App, journal: Journal, comparison: Comparison, recording: Recording) -> RunView:
    """Return everything that the report shows."""
    row = journal.row()
    cost = recording.simulation.guarantee(recording.state.round)
    digest = {"model digest": row.summary["sha256"]} if row.summary.get("sha256") else {}
    return RunView(
        run=row.run,
        app=row.name,
        digest=row.digest,
        status=row.status,
        reason=row.reason,
        started=row.started,
        engine=row.engine,
        seed=row.seed,
        figure=comparison.figure,
        settings=settings(app)
        | {"parameters shared": f"{recording.simulation.terms.payload.size:,}"}
        | cut_off(app.strategy.weights, recording.simulation.federation.members())
        | digest
        | recorded(recording.folder),
        trust=trust(app.strategy, cost),
        epsilon=spent(cost),
        rounds=journal.rounds(),
        held=() if (here := _here(recording)) is None else who_holds_what(here.held),
        comparison=comparison.rows,
        comparison_note=comparison.note,
        exposure=None if recording.folder is None else kept(recording.folder),
    )


def cut_off(weights: Weights, members: Sequence[Member]) -> dict[str, str]:
    """Return for how many clients the weight is less than their rows, in a line; nothing where it is for none.

    >>> cut_off(ByExamples(limit=64), [Member("north", 64), Member("south", 65)])
    {'weights cut off': '1 of 2 clients has more than 64 examples and counts as 64'}
    """
    limit = weights.limit if isinstance(weights, ByExamples) else None
    over = 0 if limit is None else sum(member.examples > limit for member in members)
    if not over:
        return {}
    have, count = ("has", "counts") if over == 1 else ("have", "count")
    of = f"{over:,} of {counted(len(members), 'client')}"
    return {"weights cut off": f"{of} {have} more than {limit:,} examples and {count} as {limit:,}"}


def recorded(folder: Path | None) -> dict[str, str]:
    """Return where the run's signed record stands, in a line; nothing for a run without one."""
    note = None if folder is None else newest(folder / FOLDER)
    if folder is None or note is None:
        return {}
    others = len(note.signatures) - 1
    by = f"the coordinator and {counted(others, 'site')}" if others else "the process that trained alone"
    return {"record": f"{note.size} entries, root {note.root.hex()}, signed by {by}; fedloom verify {folder.name}"}


def settings(app: App) -> dict[str, str]:
    """Return what was trained and how, as text by name."""
    strategy = app.strategy
    parts = {
        "model": app.model,
        "local work": strategy.local,
        "weights": strategy.weights,
        "selection": strategy.select,
        "stages": strategy.stages,
        "aggregation": strategy.aggregate,
        "server": strategy.optimizer,
        "schedule": strategy.schedule,
        "partition": app.data.partition,
        "held out": app.data.holdout,
        "stop": app.stop,
    }
    told = {name: written(described(part)) for name, part in parts.items()} | {"rounds": str(app.rounds)}
    return told | ({"model": _built_in(app.model)} if isinstance(app.model, BuiltIn) else {})


def _built_in(model: BuiltIn) -> str:
    """Return a built-in model with the settings that it has: layers or a penalty are not every model's."""
    apart = "hidden" if model.name != "mlp" else "l2"
    kept = {"hidden": list(model.hidden), "l2": model.l2, "loss": model.loss, "bound": model.bound}
    return written({"BuiltIn": {"name": model.name} | {key: value for key, value in kept.items() if key != apart}})


def written(value: Any) -> str:
    """Return a described value as people read it.

    >>> written({"Step": {"lr": 0.1}})
    'Step(lr 0.1)'
    """
    match value:
        case {"code": _}:
            return "own code"
        case {"model": digest, "figures": figures}:
            return f"own model {digest[:12]}, measured by {', '.join(figures)}"
        case dict() if len(value) == 1 and isinstance(next(iter(value.values())), dict):
            name, inner = next(iter(value.items()))
            said = ", ".join(f"{k} {written(v)}" for k, v in inner.items() if v not in (None, {}, []))
            return f"{name}({said})" if said else str(name)
        case dict():
            return ", ".join(f"{k} {written(v)}" for k, v in value.items()) or "none"
        case list():
            return ", ".join(written(item) for item in value) or "none"
    return str(value)
