"""`fedloom budget`: what each data set of a site has spent in privacy, over all runs, and what is left."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from ..core.errors import ConfigError
from ..core.words import counted
from ..report.words import plain
from .told import tell

if TYPE_CHECKING:
    from ..privacy.standing import Spent, Standing

WORDS = ("measure", "train", "evaluate")  # of what is answered, in the order of a run


def command(
    home: Annotated[Path, typer.Option("--home", help="The folder of this site: its policy and its ledger.")],
    delta: Annotated[
        float, typer.Option(help="At which epsilon is told where the policy sets no budget, in (0, 1).")
    ] = 1e-5,
    json_: Annotated[bool, typer.Option("--json", help="Print one JSON object, for programs.")] = False,
) -> None:
    """Show what this site's data sets have spent in privacy, run by run and together, and what is left."""
    from .. import policyfile
    from ..join import ledger_file
    from ..privacy.ledger import Ledger, marks
    from ..privacy.standing import standings

    if not 0 < delta < 1:
        raise ConfigError(f"--delta must be in (0, 1), got {delta}.")
    policy = policyfile.read(home)
    path, seen = ledger_file(home, policy), marks(home / "runs")
    if not path.is_file() and not seen:
        raise ConfigError(f"there is no ledger {path}; the first `fedloom join` of this site begins it.")
    ledger = Ledger.looked(path, seen)
    found = standings(ledger, policy.budget, delta)
    if json_:
        tell({"ledger": str(path), "data": [figures(each) for each in found]})
        return
    budget = f"budget of each data set: {policy.budget}" if policy.budget else "no budget: nothing is enforced"
    _say(f"{path}: {counted(len(found), 'data set')}; {budget}")
    for each in found:
        _show(each)


def figures(found: "Standing") -> dict[str, Any]:
    """Return what a data set has spent as JSON can hold it."""
    budget = None if found.budget is None else vars(found.budget)
    return {
        "data": found.digest,
        "rows": found.rows,
        "shares_rows_with": list(found.shares),
        "runs": [_figures(run) for run in found.runs],
        "kinds": [vars(kind) for kind in found.kinds],
        "epsilon": _epsilon(found),
        "delta": found.runs[0].total.delta if found.runs else None,
        "method": None if found.total is None else found.total.method,
        "budget": budget,
        "left": found.left,
        "against": against(found),
    }


def _figures(run: "Spent") -> dict[str, Any]:
    from ..privacy.guarantee import told

    kept = {name: getattr(run, name) for name in ("run", "app", "name", "mechanism", "noise")}
    spent = {"epsilon": told(run.total.epsilon), "delta": run.total.delta, "method": run.total.method}
    return {**kept, "answers": dict(run.answers), **spent}


def against(found: "Standing") -> str:
    """Return against whom the total holds: it is worth what the weakest of its promises is."""
    from ..privacy.ledger import COORDINATOR, TOGETHER

    noises = {run.noise for run in found.runs}
    if not noises or "" in noises:
        return "nobody: some of what was released is not differentially private" if noises else "everybody"
    if COORDINATOR in noises:
        return "whoever sees the shared models, if the coordinator adds the noise that it promises; not the coordinator"
    if TOGETHER in noises:
        return "whoever sees the sums, the coordinator too, if the masks hold and enough of the others add their share"
    return "whoever sees what this site sent, the coordinator among them"


def _epsilon(found: "Standing") -> float | str | None:
    from ..privacy.guarantee import told

    return None if found.total is None else told(found.total.epsilon)


def _show(found: "Standing") -> None:
    also = f", shares rows with {', '.join(digest[:12] for digest in found.shares)}" if found.shares else ""
    _say(f"\ndata set {found.digest[:12]}, {found.rows:,} rows{also}")
    for run in found.runs:
        answers = ", ".join(f"{run.answers[what]} {what}" for what in WORDS if what in run.answers)
        noise = f", noise added by {run.noise}" if run.noise else ""
        _say(f"  {run.run} ({run.name}): {answers}; one: {run.mechanism}{noise}; ε = {shown(run.total.epsilon)} alone")
    if not found.runs:
        _say("  nothing was answered yet")
    for line in _together(found):
        _say(line)


def _together(found: "Standing") -> list[str]:
    kinds = [f"{kind.adjacency}; unit: {kind.unit}" for kind in found.kinds]
    if found.total is None:
        return [f"these are of several kinds, which are not added: {' | '.join(kinds)}"]
    delta = f" at δ = {found.total.delta:g}"
    lines = [f"spent together: ε = {shown(found.total.epsilon)}{delta} ({found.total.method})"]
    if found.budget is not None:
        lines.append(f"left: {found.left:.4g} of {found.budget}")
    return [*lines, *kinds, f"against {against(found)}"]


def shown(epsilon: float) -> str:
    """Return epsilon for people.

    >>> shown(1.23456), shown(float("inf"))
    ('1.235', '∞')
    """
    return "∞" if epsilon == float("inf") else f"{epsilon:.4g}"


def _say(text: str) -> None:
    Console().print("\n".join(plain(line) for line in text.split("\n")), markup=False, soft_wrap=True, highlight=False)
