from dataclasses import replace

import pytest

import fedloom
from fedloom import spec
from fedloom.core.errors import ConfigError, StrategyError
from fedloom.spec import put

CSV = """\
[data]
source = "csv"
path = "rows.csv"
delimiter = ";"
holdout = 0.3
partition = { kind = "dirichlet", clients = 4, alpha = 0.5 }
[data.label]
column = "sick"
classes = ["no", "yes"]
missing = "drop"
[data.columns]
"age in years" = { range = [0, 120], missing = "mean", indicator = true }
cp = { kind = "categorical", categories = [1, 2, "x"], missing = "other", unseen = "ignore" }
"""


def loaded(tmp_path, text, *overrides):
    path = tmp_path / "app.toml"
    path.write_text(text, encoding="utf-8")
    return spec.load(path, overrides)


def refused(tmp_path, text, *overrides, kind=ConfigError):
    with pytest.raises(kind) as caught:
        loaded(tmp_path, text, *overrides)
    sentence = str(caught.value)
    assert "\n" not in sentence
    return sentence


def test_a_name_for_each_part_is_enough(tmp_path):
    app = loaded(tmp_path, 'data = "wine"')
    assert app == fedloom.App(
        name="app", model=fedloom.BuiltIn(name="logistic"), data=fedloom.Data(source=fedloom.SklearnSet("wine"))
    )


@pytest.mark.parametrize(
    ("override", "key"),
    [
        ("rounds=true", "rounds"),
        ("seed=true", "seed"),
        ("target={ accuracy = true }", "target.accuracy"),
        ("strategy.quorum=true", "quorum"),
        ("strategy.sgd={ lr = true }", "lr"),
        ('strategy.stages=[{ name = "clip", norm = true }]', "norm"),
    ],
)
def test_true_is_no_number(tmp_path, override, key):
    assert f"{key!r} is a number, and true and false are none." in refused(tmp_path, 'data = "wine"', override)


@pytest.mark.parametrize("value", ['[{name="clip", norm=1.0]', "{ name = 1", '"clip'])
def test_broken_toml_on_the_command_line_is_called_that(tmp_path, value):
    sentence = refused(tmp_path, 'data = "wine"', f"strategy.stages={value}")
    assert sentence.startswith(f"--set: {value} is not TOML: ")


def test_everything_at_the_top_is_a_field_of_the_app(tmp_path):
    text = 'name = "n"\nseed = 3\nrounds = 7\nevaluate_every = 2\ndata = "wine"\nclients = 5\nmodel = "mlp"\n'
    text += 'loss = "cross_entropy"\nstrategy = "median"\ntarget = { accuracy = 0.9 }\nstop = { patience = 4 }\n'
    assert loaded(tmp_path, text) == fedloom.App(
        name="n",
        seed=3,
        rounds=7,
        evaluate_every=2,
        data=fedloom.Data(source=fedloom.SklearnSet("wine"), partition=fedloom.Iid(5)),
        model=fedloom.BuiltIn(name="mlp", loss="cross_entropy"),
        strategy=fedloom.median(),
        stop=fedloom.Stop(target={"accuracy": 0.9}, patience=4),
    )


@pytest.mark.parametrize(
    ("table", "strategy"),
    [
        ('{ name = "trimmed_mean", beta = 0.1 }', fedloom.trimmed_mean(beta=0.1)),
        ('{ name = "krum", byzantine = 2, cohort = 9 }', fedloom.krum(byzantine=2, cohort=9)),
        ('{ name = "multi_krum", keep = 3 }', fedloom.multi_krum(keep=3)),
        ('{ name = "geometric_median", iterations = 3 }', fedloom.geometric_median(iterations=3)),
    ],
)
def test_robust_recipes_and_their_settings(tmp_path, table, strategy):
    assert loaded(tmp_path, f'data = "wine"\nstrategy = {table}').strategy == strategy


def test_a_csv_becomes_source_and_schema(tmp_path):
    data = loaded(tmp_path, CSV).data
    columns = (
        fedloom.Column("age in years", range=(0, 120), missing="mean", indicator=True),
        fedloom.Column("cp", "categorical", ("1", "2", "x"), missing="other", unseen="ignore"),
    )
    schema = fedloom.Schema(columns, "sick", classes=("no", "yes"), missing="drop")
    source = fedloom.Csv(str(tmp_path / "rows.csv"), schema, ";")
    assert data == fedloom.Data(source=source, partition=fedloom.Dirichlet(4, alpha=0.5), holdout=0.3)


def test_arrays(tmp_path):
    text = '[data]\nsource = "npz"\npath = "/x/a.npz"\narrays = { inputs = "x", targets = "y", test_inputs = "x2", '
    data = loaded(tmp_path, text + 'test_targets = "y2", shape = [3, 2], classes = 4, scale = 0.5 }').data
    assert data.source == fedloom.Npz("/x/a.npz", "x", "y", "x2", "y2", shape=(3, 2), classes=4, scale=0.5)
    assert data.holdout == 0


def test_a_parquet_file_becomes_source_and_schema(tmp_path):
    text = CSV.replace('source = "csv"', 'source = "parquet"').replace('delimiter = ";"', 'test_path = "$X/test"')
    source = loaded(tmp_path, text).data.source
    schema = loaded(tmp_path, CSV).data.source.schema
    assert source == fedloom.Parquet(str(tmp_path / "rows.csv"), schema, "$X/test")
    assert loaded(tmp_path, text.replace("holdout = 0.3", "")).data.holdout == 0


def test_idx_files(tmp_path):
    text = '[data]\nsource = "idx"\npath = "digits"\narrays = { shape = [784], classes = 2 }'
    data = loaded(tmp_path, text).data
    assert data.source == fedloom.Idx(str(tmp_path / "digits"), shape=(784,), classes=2)
    assert data.holdout == 0


PARTITIONS = {
    '{ kind = "iid", clients = 3 }': fedloom.Iid(3),
    '{ kind = "shards", clients = 3, per_client = 2 }': fedloom.Shards(3, per_client=2),
    '{ kind = "quantity", clients = 3, alpha = 2.0 }': fedloom.Quantity(3, alpha=2.0),
    '{ kind = "by_column", column = "age" }': fedloom.ByColumn("age"),
    '"whole"': fedloom.Whole(),
    '{ kind = "iid", clients = 3, shift = { noise = 0.1 } }': fedloom.Shifted(fedloom.Iid(3), noise=0.1),
    '{ kind = "whole", shift = { brightness = 0.2, contrast = 0.3 } }': fedloom.Shifted(
        fedloom.Whole(), brightness=0.2, contrast=0.3
    ),
}


@pytest.mark.parametrize("text", PARTITIONS)
def test_partitions(tmp_path, text):
    assert loaded(tmp_path, f'data = {{ source = "wine", partition = {text} }}').data.partition == PARTITIONS[text]


SGD = fedloom.sgd(lr=0.5, epochs=2, batch_size=None, steps=3)
STRATEGIES = {
    'name = "fedavg"\ncohort = 0.5': fedloom.fedavg(cohort=0.5),
    'name = "fedavg"\ncohort = 2': fedloom.fedavg(cohort=2),
    'name = "fedsgd"\nlr = 0.5': fedloom.fedsgd(0.5),
    'name = "fedprox"\nmu = 0.3\nsgd = { lr = 0.5, epochs = 2, steps = 3, momentum = 0.9 }': fedloom.fedprox(
        fedloom.sgd(lr=0.5, epochs=2, steps=3, momentum=0.9), mu=0.3
    ),
    'name = "scaffold"\nserver_lr = 0.5': fedloom.scaffold(server_lr=0.5),
    'name = "fedadam"\ntau = 0.01': fedloom.fedadam(tau=0.01),
    'name = "fedbn"\nleaves = ["bias"]': fedloom.fedbn(leaves=("bias",)),
    'poisson = 0.4\nweights = "equal"': replace(fedloom.fedavg(), select=fedloom.Poisson(0.4), weights=fedloom.Equal()),
    "weights = { a = 1.0, b = 2.0 }": replace(fedloom.fedavg(), weights=fedloom.Given({"a": 1.0, "b": 2.0})),
    'name = "fedbuff"\nsize = 3\nconcurrency = 5\ndeadline_s = 9.0\nstaleness = "hinge"\nfaults = 2': replace(
        fedloom.fedbuff(),
        schedule=fedloom.Buffered(size=3, concurrency=5, deadline_s=9.0, staleness="hinge", faults=2),
    ),
    'name = "fedasync"\nalpha = 0.9': fedloom.fedasync(alpha=0.9),
    "quorum = 10\nearly = true": replace(fedloom.fedavg(), schedule=fedloom.Sync(quorum=10, early=True)),
    "quorum = 0.5\ndeadline_s = 9.0": replace(fedloom.fedavg(), schedule=fedloom.Sync(quorum=0.5, deadline_s=9.0)),
    'stages = [{ name = "clip", norm = 2.0 }, { name = "quantize", bits = 4 }]': replace(
        fedloom.fedavg(), stages=(fedloom.Clip(2.0), fedloom.Quantize(bits=4))
    ),
}


@pytest.mark.parametrize("text", STRATEGIES)
def test_strategies(tmp_path, text):
    assert loaded(tmp_path, f'data = "wine"\n[strategy]\n{text}').strategy == STRATEGIES[text]


SHIFTS = {
    "{ nois = 1 }": "data.partition.shift: unknown key 'nois'; did you mean 'noise'?",
    "0.1": "data.partition.shift: it is a table, such as shift = { noise = 0.1 }; got 0.1.",
    "{ contrast = 1 }": "contrast must be in [0, 1), got 1.0.",
}


@pytest.mark.parametrize("shift", SHIFTS)
def test_a_wrong_shift_is_refused(tmp_path, shift):
    text = f'data = {{ source = "wine", partition = {{ kind = "iid", clients = 3, shift = {shift} }} }}'
    assert SHIFTS[shift] in refused(tmp_path, text)


def test_a_shift_can_be_set_from_outside(tmp_path):
    app = loaded(tmp_path, 'data = { source = "wine", partition = "whole" }', "data.partition.shift.noise=0.5")
    assert app.data.partition == fedloom.Shifted(fedloom.Whole(), noise=0.5)


UNKNOWN = {
    'data = "wine"\nroundz = 3': "unknown key 'roundz'; did you mean 'rounds'?",
    'data = "wine"\nmodle = "mlp"': "unknown key 'modle'; did you mean 'model'?",
    'data = { source = "wine", holdou = 0.1 }': "data: unknown key 'holdou'; did you mean 'holdout'?",
    'data = { source = "wine", partition = { kind = "iid", clientz = 3 } }': "did you mean 'clients'?",
    'data = { source = "wine", partition = { kind = "iidd" } }': "no partition 'iidd'; did you mean 'iid'?",
    'data = { source = "wine", partition = { clients = 3 } }': "there is no partition 'None'",
    'data = "wein"': "data: there is no source 'wein'; did you mean 'wine'?",
    'data = "wine"\nmodel = { name = "mlp", hiden = [3] }': "model: unknown key 'hiden'; did you mean 'hidden'?",
    'data = "wine"\nmodel = "mpl"': "there is no built-in model 'mpl'; did you mean 'mlp'?",
    'data = "wine"\nmodel = { l2 = 0.1 }': "model: 'name' is missing",
    'data = "wine"\nstrategy = "fedaverage"': "there is no recipe 'fedaverage'; did you mean 'fedavg'?",
    'data = "wine"\nstrategy = { name = "fedprox", muu = 1 }': "strategy: unknown key 'muu'; did you mean 'mu'?",
    'data = "wine"\nstrategy = { sgd = { lrr = 1 } }': "strategy.sgd: unknown key 'lrr'; did you mean 'lr'?",
    'data = "wine"\nstrategy = { stages = [{ name = "clop" }] }': "there is no stage 'clop'; did you mean 'clip'?",
    'data = "wine"\nstrategy = { stages = [{ name = "clip", nrm = 1 }] }': "unknown key 'nrm'; did you mean 'norm'?",
    'data = "wine"\nstop = { patienze = 3 }': "stop: unknown key 'patienze'; did you mean 'patience'?",
    CSV.replace("range", "rage"): "data.columns.age in years: unknown key 'rage'; did you mean 'range'?",
    CSV.replace("column =", "colum ="): "data.label: unknown key 'colum'; did you mean 'column'?",
    "rounds = 3": "'data' is missing",
}


@pytest.mark.parametrize("text", UNKNOWN)
def test_what_is_not_known_names_the_nearest(tmp_path, text):
    sentence = refused(tmp_path, text)
    assert sentence.startswith("app.toml: ") or "built-in model" in sentence
    assert UNKNOWN[text] in sentence


WRONG = {
    'data = "wine"\nrounds = "many"': "'rounds'",
    'data = "wine"\nrounds = 0': "'rounds': input should be greater than or equal to 1, got 0",
    'data = "wine"\nclients = 2.5': "'clients'",
    'data = "wine"\nseed = [1]': "'seed'",
    "data = 3": "'data",
    'data = "wine"\ntarget = 0.9': "'target'",
    'data = "wine"\ntarget = { accuracy = "high" }': "'target.accuracy'",
    'data = { source = "wine", holdout = 1.0 }': "'holdout': input should be less than 1",
    'data = "wine"\nstrategy = { sgd = { lr = "fast" } }': "strategy.sgd: 'lr'",
    'data = "wine"\nstrategy = { sgd = 3 }': "'sgd'",
    'data = "wine"\nstrategy = { stages = "clip" }': "'stages'",
    'data = "wine"\nstrategy = { weights = "some" }': "'weights",
    'data = "wine"\nstrategy = { poisson = 2.0 }': "'poisson'",
    'data = "wine"\nstrategy = { quorum = "half" }': "'quorum",
    'data = "wine"\nmodel = { name = "mlp", hidden = "wide" }': "model: 'hidden'",
    CSV.replace('"drop"', '"guess"'): "data.label: 'missing'",
    CSV.replace("[0, 120]", "[0]"): "data.columns.age in years: 'range",
    'data = "csv"': "a csv needs 'path', 'label' and 'columns'; `fedloom new FILE.csv` writes them",
    'data = { source = "wine", partition = "whole" }\nclients = 3': "has its own clients; leave the key 'clients' out",
}


@pytest.mark.parametrize("text", WRONG)
def test_wrong_values_are_refused_with_the_key(tmp_path, text):
    sentence = refused(tmp_path, text)
    assert sentence.startswith("app.toml: ")
    assert WRONG[text] in sentence


def test_what_the_typed_objects_refuse_is_refused_here_too(tmp_path):
    assert "patience must be at least 1" in refused(tmp_path, 'data = "wine"\nstop = { patience = 0 }')
    assert "quorum" in refused(tmp_path, 'data = "wine"\nstrategy = { quorum = -1 }', kind=StrategyError)
    assert "epochs" in refused(tmp_path, 'data = "wine"\nstrategy = { sgd = { epochs = 0 } }')


def test_a_target_that_the_loss_does_not_lead_to_is_refused(tmp_path):
    sentence = refused(tmp_path, 'data = "diabetes"\nmodel = "linear"\nloss = "mse"\ntarget = { accuracy = 0.9 }')
    assert "'accuracy' cannot be a target with this loss, which leads to " in sentence
    assert "rmse" in sentence


def test_files_that_cannot_be_read(tmp_path):
    with pytest.raises(ConfigError, match=r"none\.toml cannot be read: No such file or directory; check the name"):
        spec.load(tmp_path / "none.toml")
    assert refused(tmp_path, "rounds = = 3").startswith(
        f"{tmp_path / 'app.toml'} is not TOML: Invalid value (at line 1"
    )
    (tmp_path / "latin.toml").write_bytes('name = "Zürich"'.encode("latin-1"))
    with pytest.raises(ConfigError, match=r"latin\.toml is not TOML"):
        spec.load(tmp_path / "latin.toml")


def test_set_changes_any_key(tmp_path):
    overrides = ("rounds=3", "strategy.sgd.lr=0.5", "data.holdout=0.5", "model=mlp", "target.accuracy=0.9", "clients=4")
    app = loaded(tmp_path, 'data = "wine"\nmodel = "logistic"', *overrides)
    assert (app.rounds, app.data.holdout, app.data.partition) == (3, 0.5, fedloom.Iid(4))
    assert (app.strategy, app.model) == (fedloom.fedavg(fedloom.sgd(0.5)), fedloom.BuiltIn(name="mlp"))
    assert app.stop == fedloom.Stop(target={"accuracy": 0.9})


def test_set_keeps_what_stands_beside_a_name():
    put(table := {"model": {"name": "logistic", "l2": 0.1}}, "model=linear")
    assert table == {"model": {"name": "linear", "l2": 0.1}}


@pytest.mark.parametrize("override", ["rounds", "=3", " =3"])
def test_set_needs_a_key_and_a_value(tmp_path, override):
    assert "--set takes key=value, such as rounds=5; got " in refused(tmp_path, 'data = "wine"', override)


def test_set_of_what_is_not_there(tmp_path):
    assert "did you mean 'rounds'?" in refused(tmp_path, 'data = "wine"', "round=3")
    assert "'rounds' is a value and has no parts" in refused(tmp_path, 'data = "wine"\nrounds = 3', "rounds.a=3")


NEEDS = """\
data = "breast_cancer"
[needs]
cpus = 2
memory = "2GB"
[needs.clients.client-003]
gpus = 0.5
"""


def test_needs_are_the_typed_ones(tmp_path):
    expected = fedloom.Needs(cpus=2, memory="2GB", clients={"client-003": fedloom.Needs(gpus=0.5)})
    assert loaded(tmp_path, NEEDS).needs == expected
    assert loaded(tmp_path, 'data = "wine"').needs == fedloom.Needs()
    assert loaded(tmp_path, NEEDS, "needs.cpus=3").needs.cpus == 3


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[needs]\ncpu = 2", "app.toml: needs: unknown key 'cpu'; did you mean 'cpus'?"),
        ("[needs.clients.a]\nmem = 2", "app.toml: needs.clients.a: unknown key 'mem'"),
        ('[needs]\nmemory = "much"', "Needs.memory is an amount such as"),
        ("[needs]\ncpus = 0", "Needs.cpus must be above 0, got 0.0"),
        ("[needs.clients.a.clients.b]\ncpus = 2", "must be a Needs without clients of its own"),
    ],
)
def test_needs_that_cannot_be_are_refused(tmp_path, text, says):
    assert says in refused(tmp_path, f'data = "breast_cancer"\n{text}')


def test_a_setting_of_another_schedule_is_refused(tmp_path):
    text = 'data = "wine"\n[strategy]\nname = "fedbuff"\nquorum = 0.5'
    assert "strategy: 'quorum' is not for Buffered, which knows a, b, concurrency, deadline_s" in refused(
        tmp_path, text
    )
    text = 'data = "wine"\n[strategy]\nfaults = 3'
    assert "strategy: 'faults' is not for Sync, which knows deadline_s, early, quorum." in refused(tmp_path, text)


def test_traces_are_a_file_of_their_own(tmp_path):
    file = tmp_path / "slow.toml"
    file.write_text('[traces]\ncompute = "half-normal"\nmean_s = 20.0\nmbps = 8.0\ndropout = 0.1')
    assert spec.traces(file) == fedloom.Traces(compute="half-normal", mean_s=20.0, mbps=8.0, dropout=0.1)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("mean_s = 1.0", "slow.toml must hold one table, [traces], such as mean_s = 10.0; got ['mean_s']."),
        ("[traces]\nmeans = 1.0", "slow.toml: traces: unknown key 'means'; did you mean 'mean_s'?"),
        ("[traces]\ndropout = 1.0", "Traces.dropout must be in [0, 1), got 1.0."),
    ],
)
def test_traces_that_make_no_sense_are_refused(tmp_path, text, said):
    file = tmp_path / "slow.toml"
    file.write_text(text)
    with pytest.raises(fedloom.ConfigError) as caught:
        spec.traces(file)
    assert str(caught.value) == said
