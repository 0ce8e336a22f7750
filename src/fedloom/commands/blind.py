"""`fedloom blind`: predictions on rows that the model's holder does not see."""

import sys
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from ..core.errors import ConfigError, DataError
from ..core.layout import Vector
from ..core.model import Model
from ..load import load
from ..predict import Predictions, prepared, preview, statistics_of
from ..report.tables import predictions_table
from ..running import resume
from ..store.folders import writable
from ..store.runs import opened
from .told import left_out, out_console, say

if TYPE_CHECKING:  # it imports tenseal
    from ..blind import Form

Given = TypeVar("Given")
STEPS = "--describe RUN, --encrypt ROWS, --answer QUERY, --decrypt ANSWER"


def command(
    describe: Annotated[str | None, typer.Option(help="The model's holder: write the form of this run.")] = None,
    encrypt: Annotated[Path | None, typer.Option(help="The rows' holder: encrypt this CSV (or .npz) file.")] = None,
    answer: Annotated[Path | None, typer.Option(help="The model's holder: answer these encrypted rows.")] = None,
    decrypt: Annotated[Path | None, typer.Option(help="The rows' holder: decrypt this answer.")] = None,
    form: Annotated[Path | None, typer.Option(help="The form; with --encrypt and --decrypt.")] = None,
    key: Annotated[Path | None, typer.Option(help="The secret key that --encrypt makes and --decrypt needs.")] = None,
    run: Annotated[str | None, typer.Option(help="The run whose model answers, or `last`.")] = None,
    data: Annotated[Path | None, typer.Option(help="With --decrypt: the rows, to stand beside.")] = None,
    output: Annotated[Path | None, typer.Option(help="The file to write.")] = None,
    out: Annotated[Path, typer.Option("--out", help="The folder where runs live.")] = Path("runs"),
) -> None:
    """Predict with somebody's linear or logistic model on rows that they cannot read, in four small steps."""
    if sum(step is not None for step in (describe, encrypt, answer, decrypt)) != 1:
        raise ConfigError(f"give one of {STEPS}.")
    if output is not None:
        writable(output, encrypt, answer, decrypt, form, data, key if encrypt is None else None)
    if encrypt is not None and key is not None:
        writable(key, option="--key")
    if describe is not None:
        _describe(describe, out, _given("output", output))
    if encrypt is not None:
        _encrypt(encrypt, _given("form", form), _given("key", key), _given("output", output))
    if answer is not None:
        _answer(answer, _given("run", run), out, _given("output", output))
    if decrypt is not None:
        _decrypt(decrypt, form=_given("form", form), key=_given("key", key), data=data, output=output)


def _given(name: str, value: Given | None) -> Given:
    if value is None:
        raise ConfigError(f"this step needs --{name} too.")
    return value


def _describe(run: str, out: Path, output: Path) -> None:
    form, model, _ = _of(run, out)
    form.write(output)
    say(
        f"{output} is for whoever has rows: {form.inputs:,} inputs, {model.layout.size:,} weights that it does not hold"
    )
    say("It tells the columns, the classes, and each column's mean and scale over the sites that trained.")


def _encrypt(rows: Path, form_path: Path, key_path: Path, output: Path) -> None:
    from ..blind import Form, ask

    if key_path.exists():
        raise ConfigError(f"{key_path} is there already, and a key is for one query; name another file.")
    if key_path.resolve() == output.resolve():
        raise ConfigError(
            f"{output} is named for both the key, which stays, and the query, which leaves; name two files."
        )
    form = Form.read(form_path)
    _, inputs, dropped = prepared(form.source, form.statistics, rows)
    if dropped:
        say(left_out(dropped))
    query, key = ask(form, inputs)
    query.write(output)
    key.write(key_path)
    say(f"{output} is for the model's holder, who learns that it is {query.rows:,} rows of {query.columns:,} inputs")
    say(f"{key_path} stays here: whoever has it reads the rows")


def _answer(query_path: Path, run: str, out: Path, output: Path) -> None:
    from ..blind import Query
    from ..blind import answer as answered

    query = Query.read(query_path)
    form, model, vector = _of(run, out)
    answered(query, form, model, vector).write(output)
    say(f"{output} is for whoever sent the rows: {query.rows * form.outputs:,} outputs, before sigmoid or softmax")
    more = "this many tell" if query.rows > form.inputs else f"{form.inputs + 1:,} such rows tell"
    say(f"Nothing hides the model from them: outputs of {more} all its weights. Count what you answer.")


def _decrypt(found: Path, *, form: Path, key: Path, data: Path | None, output: Path | None) -> None:
    from ..blind import Answer, Form, Key
    from ..blind import decrypt as decrypted

    asked, secret = Form.read(form), Key.read(key)
    outputs = decrypted(Answer.read(found), secret, asked)
    columns: dict[str, Any] = {}
    dropped = 0
    if data is not None:
        columns, inputs, dropped = prepared(asked.source, asked.statistics, data)
        if len(inputs) != len(outputs):
            raise DataError(f"{data} has {len(inputs):,} rows, and the answer is for {len(outputs):,}; give those.")
    told = Predictions(columns, asked.source.class_names, outputs, dropped)
    if output is not None:
        told.save(output)
        say(f"{len(outputs)} predictions in {output}")
    elif out_console.is_terminal:
        out_console.print(predictions_table(preview(told), len(outputs)))
    else:
        told.write(sys.stdout)
    say("Keep them from whoever answered: decrypted numbers, sent back as they are, tell the key.")


def _of(run: str, out: Path) -> tuple["Form", Model, Vector]:
    """Return the form of a run, its model, and the weights that are used."""
    from ..blind import Form, linear

    folder, journal = opened(out, run)
    with closing(journal):
        row = journal.row()
    loaded = load(row.app, row.overrides)
    model = linear(loaded.app.built)
    with closing(resume(loaded.app, folder, identity=loaded.identity, ended=True)) as recording:
        vector = recording.deployed()
    return Form.of(loaded.app, statistics_of(folder), model.loss), model, vector
