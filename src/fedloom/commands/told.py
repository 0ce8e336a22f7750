"""What commands say: sentences, errors, and how a run goes while it does."""

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from ..compare import main_figure
from ..core.errors import FedloomError
from ..core.state import State
from ..core.words import counted
from ..local import Backdoor
from ..recording import Recording
from ..simulation import Simulation

out_console, console = Console(), Console(stderr=True)


def complain(error: FedloomError) -> None:
    """Say an error in one sentence, with its code."""
    console.print(f"[bold red]error[/] {error.code}: ", end="")
    console.print(harmless(str(error)), markup=False, highlight=False, soft_wrap=True)


def say(text: str) -> None:
    """Say a sentence, as it is."""
    console.print(harmless(text), markup=False, soft_wrap=True, highlight=False)


def say_unsigned(recording: Recording) -> None:
    """Say it where a run has no signed record."""
    if recording.record is None:
        say("no signed record is kept of this run: that needs `cryptography`, pip install 'fedloom[privacy]'")


def left_out(dropped: int) -> str:
    """Say that rows were not predicted."""
    return f"{counted(dropped, 'row')} left out: missing cells, which the schema drops"


def tell(event: Any) -> None:
    """Print one JSON object on a line, for programs; letters stay as they are where the output is UTF-8."""
    utf8 = sys.stdout.encoding.lower().replace("-", "") == "utf8"
    print(json.dumps(event, ensure_ascii=not utf8), flush=True)


def harmless(text: str) -> str:
    r"""Return a text that moves no cursor, whoever on the other side of a connection has written it.

    >>> ascii(harmless("refused: \x1b[2J, try\nagain"))
    "'refused: \\ufffd[2J, try\\nagain'"
    """
    return "".join(letter if letter.isprintable() or letter == "\n" else "\ufffd" for letter in text)


def trained(
    recording: Recording, json_: bool, closed: Callable[[State], None] = lambda state: None, *, bar: bool = True
) -> None:
    """Run the rounds, and say on the way how it goes.

    Args:
        recording: of the run.
        json_: print a line for each round, for programs, and show no bar.
        closed: is told each round's state.
        bar: whether to show one.
    """
    from ..events import round_event

    with closing(recording.rounds()) as rounds, _progress(recording, json_ or not bar) as advance:
        for state in rounds:
            if json_:
                tell(round_event(state))
            advance(state)
            closed(state)


def succeeded(recording: Recording) -> str:
    """Return how far a simulated backdoor got, in a sentence; nothing where there is none, or no test part."""
    training = recording.simulation
    attack = training.attackers.attack if isinstance(training, Simulation) and training.attackers else None
    if not isinstance(attack, Backdoor) or training.test is None:
        return ""
    part = attack.success(training.model, training.shared(recording.state.vector), training.test)
    return f"the backdoor works: {part:.0%} of other classes' test rows are called {attack.target} once stamped"


@contextmanager
def _progress(recording: Recording, json_: bool) -> Iterator[Any]:
    if json_:
        yield lambda _: None
        return
    columns = (TextColumn("round"), MofNCompleteColumn(), BarColumn(), TextColumn("{task.fields[said]}"))
    left = TextColumn("left")
    with Progress(*columns, TimeElapsedColumn(), left, TimeRemainingColumn(), console=console) as progress:
        task = progress.add_task("", total=recording.simulation.app.rounds, completed=recording.state.round, said="")

        def advance(state: State) -> None:
            progress.update(
                task, completed=state.round, said=_said(state, recording) or progress.tasks[0].fields["said"]
            )

        yield advance


def _said(state: State, recording: Recording) -> str:
    if state.metrics is None:
        return _epsilon(state)
    seen = state.metrics.view()
    figure = main_figure(seen, recording.simulation.app.stop)
    loss = f"loss {seen['loss']:.4f}" if "loss" in seen else ""
    said = loss if figure == "loss" else f"{loss}  {figure} {seen[figure]:.4f}".strip()
    return f"{said}  {_epsilon(state)}".strip()


def _epsilon(state: State) -> str:
    """Return what was spent, where something is claimed; ε = ∞ was said before round 1."""
    if state.delta is None:
        return ""
    least = min(state.epsilons.values(), default=state.epsilon)
    several = f"{least:.3g} to " if f"{least:.3g}" != f"{state.epsilon:.3g}" else ""
    return f"ε {several}{state.epsilon:.3g} at δ {state.delta:g}"
