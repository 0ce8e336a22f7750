import sys

import pytest

import fedloom
from apps import TOML, app, written
from fedloom.core.errors import ConfigError, StrategyError
from fedloom.load import DEMO, changed, load

PYTHON = """\
import fedloom

app = fedloom.App(
    model=fedloom.BuiltIn(name="logistic"),
    data=fedloom.Data(source=fedloom.SklearnSet("wine"), partition=fedloom.Iid(3)),
    rounds=2,
)
"""


def python(folder, text=PYTHON, name="app.py"):
    return written(folder, text, name)


def refused(name, *overrides):
    with pytest.raises(ConfigError) as caught:
        load(name, overrides)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_the_demo_needs_no_file():
    loaded = load(DEMO)
    assert (loaded.source, loaded.app.name) == ("demo", "demo")


def test_a_python_app(tmp_path):
    loaded = load(python(tmp_path))
    assert (loaded.app.rounds, loaded.source) == (2, str(tmp_path / "app.py"))


def test_an_app_without_a_name_is_called_as_its_file(tmp_path):
    assert load(python(tmp_path, name="mine.py")).app.name == "mine"
    named = PYTHON.replace("rounds=2", 'rounds=2, name="yours"')
    assert load(python(tmp_path, named, name="mine.py")).app.name == "yours"


def test_toml_and_python_mean_the_same_app(tmp_path):
    one, other = load(python(tmp_path)).app, load(written(tmp_path, 'data = "wine"\nclients = 3\nrounds = 2')).app
    assert one.digest == other.digest


NOT_APPS = {
    "x = 3": "app.py has no app; write `app = fedloom.App(…)` at its top level.",
    "app = 3": "app.py has no app; write",
    "import fedloom\n\ndef f(:\n": "app.py cannot be run: line 3: SyntaxError:",
    "  x = 3": "app.py cannot be run: line 1: IndentationError:",
    "def f():\n    return 1 / 0\n\nf()": "app.py cannot be run: line 2: ZeroDivisionError: division by zero.",
    "raise ValueError('two\\nlines')": "app.py cannot be run: line 1: ValueError: two lines.",
    "import nothing_of_that_name": "app.py cannot be run: line 1: ModuleNotFoundError: No module named",
    "import fedloom\nfedloom.Data(source=1, holdout=2)": "Data.holdout must be in [0, 1), got 2.",
    PYTHON.replace("fedloom.Data(source=", "(").replace(", partition=fedloom.Iid(3))", ")"): (
        "App.data must be a Data, got SklearnSet; write data=fedloom.Data(source=…)."
    ),
    PYTHON.replace("rounds=2", 'strategy="fedavg"'): (
        "App.strategy must be a Strategy, got str; write strategy=fedloom.fedavg()."
    ),
    PYTHON.replace("rounds=2", "stop={'accuracy': 0.9}"): "App.stop must be a Stop, got dict;",
}


@pytest.mark.parametrize("text", NOT_APPS)
def test_what_is_not_an_app_is_refused_in_a_sentence(tmp_path, text):
    assert NOT_APPS[text] in refused(python(tmp_path, text))


def test_a_file_that_is_not_there(tmp_path):
    assert refused(tmp_path / "nowhere.toml").endswith("`fedloom new FILE.csv` writes one for your own rows.")
    python(tmp_path, name="hospitals.py")
    assert refused(tmp_path / "hospital.py").endswith("did you mean 'hospitals.py'?")
    (tmp_path / "clinics.py").mkdir()
    assert refused(tmp_path / "clinic.py").endswith("`fedloom new FILE.csv` writes one for your own rows.")
    assert "an app is a .py or a .toml file, got '.json'." in refused(written(tmp_path, "{}", "app.json"))
    assert "got 'no suffix'" in refused(written(tmp_path, "", "app"))


def test_set_in_a_python_app(tmp_path):
    overrides = (
        "rounds=5",
        "strategy.local.epochs=3",
        "data.holdout=0.5",
        "model.name=mlp",
        "stop.target.accuracy=0.5",
    )
    app = load(python(tmp_path), overrides).app
    assert (app.rounds, app.strategy.local.epochs, app.data.holdout, app.model.name) == (5, 3, 0.5, "mlp")
    assert app.stop.target == {"accuracy": 0.5}


SET = {
    "roundz=3": "App has no 'roundz'; did you mean 'rounds'?",
    "strategy.local.epoch=3": "Sgd has no 'epoch'; did you mean 'epochs'?",
    "rounds=many": "'many' cannot take the place of 2; edit the app.",
    "rounds=2.5": "2.5 cannot take the place of 2; edit the app.",
    "name=5": "5 cannot take the place of 'app'; edit the app.",
    "strategy=3": "3 cannot take the place of Strategy(",
    "strategy.local=3": "3 cannot take the place of Sgd(",
    "rounds.x=3": "'x' cannot be set on a int.",
    "stop.target.a.b=3": "there is no 'a' in it",
    "rounds": "--set takes key=value",
    "rounds=0": "App.rounds must be at least 1",
    f"seed={2**63}": "App.seed must be at least -2^63",
}


@pytest.mark.parametrize("override", SET)
def test_set_of_what_does_not_fit_a_python_app(tmp_path, override):
    assert SET[override] in refused(python(tmp_path), override)


def test_set_is_checked_by_the_parts(tmp_path):
    with pytest.raises(StrategyError, match="quorum"):
        load(python(tmp_path), ["strategy.schedule.quorum=-1"])


def identity(path, *overrides):
    return load(path, overrides).identity


def test_the_identity_follows_the_settings(tmp_path):
    for path in (python(tmp_path), written(tmp_path)):
        assert identity(path) == identity(path)
        assert identity(path) != identity(path, "rounds=3")
        assert identity(path, "seed=1") != identity(path, "seed=2")


def test_the_identity_follows_the_loss_of_a_torch_model(tmp_path):
    model = "fedloom.torch_model(lambda: nn.Linear(13, 3))"
    path = python(tmp_path, "from torch import nn\n" + PYTHON.replace('fedloom.BuiltIn(name="logistic")', model))
    assert identity(path) == identity(path, "model.objective.loss=cross_entropy")
    assert identity(path) != identity(path, "model.objective.loss=mse")


def test_the_identity_is_not_about_where_rows_lie_and_who_holds_them(tmp_path):
    text = (
        '[data]\nsource = "csv"\npath = "a.csv"\nlabel = { column = "y", classes = ["0", "1"] }\ncolumns = { x = {} }\n'
    )
    path = written(tmp_path, text)
    assert identity(path) == identity(path, "data.path=b.csv")
    assert identity(path) == identity(path, "clients=7")
    assert identity(path) == identity(written(tmp_path, text, "again.toml"))
    (tmp_path / "elsewhere").mkdir()
    assert identity(path) == identity(written(tmp_path / "elsewhere", text))


def test_the_identity_of_a_python_app_follows_its_file_and_local_imports(tmp_path):
    (tmp_path / "local_parts.py").write_text("rounds = 2")
    (tmp_path / "unused_parts.py").write_text("x = 1")
    text = "from local_parts import rounds\n" + PYTHON
    before = identity(python(tmp_path, text))
    assert identity(python(tmp_path, text)) == before
    (tmp_path / "unused_parts.py").write_text("x = 2")
    assert identity(python(tmp_path, text)) == before
    (tmp_path / "local_parts.py").write_text("rounds = 2  # still")
    assert identity(python(tmp_path, text)) != before
    assert identity(python(tmp_path, text + "# more\n")) != before


def test_a_changed_local_import_is_read_again(tmp_path):
    text = "from local_rounds import rounds\n" + PYTHON.replace("rounds=2", "rounds=rounds")
    for rounds in (3, 4):
        (tmp_path / "local_rounds.py").write_text(f"rounds = {rounds}  # {'x' * rounds}")
        assert load(python(tmp_path, text)).app.rounds == rounds


def test_loading_leaves_the_path_as_it_was(tmp_path):
    before = list(sys.path)
    load(python(tmp_path))
    assert sys.path == before


def test_an_own_class_in_an_app_file_is_known_by_its_source(tmp_path):
    text = PYTHON + (
        "\n\ndef train(params, data, config):\n    return params\n\n\n"
        "import dataclasses\n"
        "strategy = dataclasses.replace(fedloom.fedavg(), local=fedloom.Custom(function=train))\n"
        "app = dataclasses.replace(app, strategy=strategy)\n"
    )
    one = load(python(tmp_path, text)).app.digest
    other = load(python(tmp_path, text.replace("return params", "return dict(params)"))).app.digest
    assert one != other


def test_the_toml_of_these_tests_is_an_app(tmp_path):
    assert isinstance(load(written(tmp_path, TOML)).app, fedloom.App)


def test_true_is_no_number_in_an_app_in_python_either():
    with pytest.raises(ConfigError, match=r"--set rounds: True cannot take the place of 2: a number is due\."):
        changed(app(), "rounds=true")
