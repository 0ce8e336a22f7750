"""`fedloom approve`: what an app lets leave this site, and the word of whoever is asked that it may."""

from pathlib import Path
from typing import Annotated

import typer
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from .. import policyfile
from ..approval import Leaving, approval_of, difference, last, leaving, listed, revoke, store
from ..core.errors import ConfigError
from ..core.words import counted
from ..load import Loaded, load
from ..privacy.account import never
from ..privacy.ledger import run_of
from ..report.words import megabytes, plain
from ..runtime.policy import Policy
from .directory import take

Set = Annotated[list[str], typer.Option("--set", help="Change a setting: key=value, such as rounds=5; repeatable.")]


def command(
    app: Annotated[str | None, typer.Argument(help="An app: this site's own copy, a .toml or a .py file.")] = None,
    home: Annotated[Path, typer.Option("--home", help="The folder of this site: its policy and approvals.")] = Path(),
    set_: Set = [],  # noqa: B006 (typer copies it)
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    list_: Annotated[bool, typer.Option("--list", help="List what has been approved here.")] = False,
    revoke_: Annotated[str | None, typer.Option("--revoke", help="End the approval with this digest.")] = None,
    directory: Annotated[
        Path | None, typer.Option(help="Take this list of the sites' keys, for hidden sums: see docs/secagg.md.")
    ] = None,
    number: Annotated[
        str | None, typer.Option(help="The check number of the list, as another site has read it to you.")
    ] = None,
) -> None:
    """Show what an app lets leave this site, and what changed since the last approved version; approve it."""
    if (app is not None) + list_ + (revoke_ is not None) + (directory is not None) != 1:
        raise ConfigError(
            "give one of APP, --list, --revoke DIGEST and --directory FILE, such as `fedloom approve app.toml --home "
            "DIR`."
        )
    if directory is not None:
        take(home, directory, number, yes)
    elif list_:
        _list(home)
    elif revoke_ is not None:
        ended = revoke(home, revoke_)
        _say(f"revoked: {ended.name} {ended.digest}; this site answers no more tasks of it")
    elif app is not None:
        policyfile.admit(home, app)
        _approve(load(app, set_), home, yes)


def _approve(loaded: Loaded, home: Path, yes: bool) -> None:
    policy, shown = policyfile.read(home), leaving(loaded.app)
    show(loaded, shown)
    _say(_enforced(policy, shown))
    _say(policyfile.told(home, policy))
    if warned := _unwitnessed(home, policy):
        _say(warned)
    objections = policy.objections(loaded.app.strategy, loaded.app.strategy.payload(loaded.app.built.layout))
    if objections := [*objections, *_unaffordable(loaded, policy)]:
        raise ConfigError(f"{loaded.app.name} cannot be approved: {' '.join(objections)}")
    before = last(home, loaded.app.name)
    changes = difference(before.lines, shown.lines()) if before is not None else []
    if before is not None and before.digest == loaded.identity and not changes:
        _say(f"approved already, by {before.who}, {before.when}")
        return
    if before is not None:
        _changed(changes, f"{before.digest[:12]}, by {before.who}, {before.when}")
    if not yes:
        typer.confirm(f"May all of this leave {home.resolve()}?", abort=True)
    path = store(home, approval_of(loaded, shown))
    _say(f"approved: {path}")


def _enforced(policy: Policy, shown: Leaving) -> str:
    """Say which of the numbers above a coordinator cannot exceed: an app says what is meant, and a policy binds."""
    bounds = {"trainings": "largest_rounds", "evaluations and statistics": "largest_queries"}
    answered = [f"{what} {_bound(policy, name)}" for what, name in bounds.items()]
    return (
        f"how often it is asked is up to the coordinator: this site refuses rounds other than 1 to {shown.rounds}, and "
        f"its policy bounds what it answers in a run: {', '.join(answered)}; runs {_bound(policy, 'largest_runs')}"
    )


def _bound(policy: Policy, name: str) -> str:
    most = getattr(policy, name)
    return f"{'without a limit' if most is None else f'{most:,} at most'} ({name})"


def _unwitnessed(home: Path, policy: Policy) -> str:
    """Return what is missing of the witnesses that the policy asks for; `fedloom join` refuses without them."""
    if not policy.witnesses:
        return ""
    from ..runtime.directory import DIRECTORY, directory

    path, others, there = home / DIRECTORY, 0, "is missing"
    if path.exists():
        others = len(directory(home)) - 1
        there = f"has keys of {counted(others, 'other site')}"
    if others >= policy.witnesses:
        return ""
    return (
        f"Warning: the policy asks for {counted(policy.witnesses, 'other witness', 'other witnesses')}, and {path} "
        f"{there}: until `fedloom approve --directory FILE --home {home}` has brought the keys, `fedloom join` enrols "
        "and then refuses."
    )


def _unaffordable(loaded: Loaded, policy: Policy) -> list[str]:
    """Return why the site's budget lets no answer of the app leave; none if it may."""
    if policy.budget is None:
        return []
    run = run_of(loaded.app.strategy, run="", app=loaded.identity, name=loaded.app.name, rounds=loaded.app.rounds)
    why = never(policy.budget, run.mechanism)
    return [why] if why else []


def show(loaded: Loaded, shown: Leaving) -> None:
    """Print what leaves: every tensor in a table, the rest below it."""
    console = Console()
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    for name in ("leaves the site", "shape", "dtype", "kind", "bits a value"):
        table.add_column(name, overflow="fold")
    for tensor in shown.tensors:
        cells = (tensor.name, "×".join(map(str, tensor.shape)) or "1", tensor.dtype, tensor.kind, f"{tensor.bits:g}")
        table.add_row(*(Text(plain(cell)) for cell in cells))
    _say(f"{loaded.app.name}, digest {loaded.identity}")
    console.print(table)
    for line in shown.lines():
        if not line.startswith(("tensor: ", "statistic: ")):
            _say(line)
    if shown.statistics:
        names = ", ".join(each.rpartition(": ")[0] for each in shown.statistics)
        _say(f"before round 1, count, sum and squares of {counted(len(shown.statistics), 'column')}: {names}")
    whole = shown.bytes_up * shown.rounds + shown.bytes_measured * shown.evaluations
    _say(f"all of a run's updates and evaluations together: {megabytes(whole)}, if each is asked for once")


def _changed(changes: list[str], of: str) -> None:
    if not changes:
        _say(f"what leaves is as in the last approved version ({of}); its settings or its code are not")
        return
    _say(f"changed since the last approved version ({of}):")
    for line in changes:
        style = {"+": "green", "-": "red"}.get(line[0], "dim")
        Console().print(Text(line[0] + plain(line[1:]), style=style), soft_wrap=True)


def _list(home: Path) -> None:
    if not home.is_dir():
        raise ConfigError(f"there is no folder {home}; --home is the one of this site, with its policy and approvals.")
    found = listed(home)
    for each in found:
        state = f"revoked {each.revoked}" if each.revoked else "holds"
        _say(f"{each.digest}  {each.name}  {each.when}  by {each.who}  {state}")
    if not found:
        _say(f"nothing has been approved in {home}; `fedloom approve APP` does")


def _say(text: str) -> None:
    Console().print(plain(text), markup=False, soft_wrap=True, highlight=False)
