"""Everything that an attacker gets, of one app, and in its report."""

import json

import numpy as np
import pytest
from sklearn.datasets import load_digits

import fedloom
from apps import needs_data
from fedloom.exposure import expose, pictures, stripped
from fedloom.report.exposed import lines, section

SETTINGS = {"clip": 0.5, "noise_multiplier": 2.0, "delta": 1e-3}
DP = fedloom.dp_fedavg(fedloom.sgd(0.5), **SETTINGS)
SEEDED = fedloom.dp_fedavg(fedloom.sgd(0.5), **SETTINGS, seeded=True)  # a picture looks a little like any other


def app(strategy=DP, model="logistic", **changes):
    found = load_digits()
    images = (found.images / 16).astype(np.float32)
    source = fedloom.Arrays(images[:900], found.target[:900], classes=10, test_part=(images[900:], found.target[900:]))
    data = fedloom.Data(source=source, partition=fedloom.Iid(30), holdout=0.0)
    return fedloom.App(model=fedloom.BuiltIn(name=model, **changes), data=data, strategy=strategy, rounds=2)


def test_an_image_is_recognised_without_protection_and_not_under_noise():
    truth, mean, plain, hidden, noised = pictures(app(SEEDED))
    assert truth.ssim == 1
    assert plain.ssim > 0.999 > hidden.ssim
    assert noised.ssim < 0.35 > 0
    assert plain.psnr > 60 > 30 > noised.psnr
    assert mean.ssim < plain.ssim


def test_a_sum_may_still_show_an_image_where_a_unit_is_one_clients_alone():
    """What a hidden sum does not promise: ReLU units that only one row reaches."""
    *_, hidden, noised = pictures(app(SEEDED, model="mlp", hidden=(100,)))
    assert hidden.ssim > 0.8 > noised.ssim


def test_rows_without_shape_have_no_pictures():
    data = fedloom.Data(source=fedloom.SklearnSet("breast_cancer"), partition=fedloom.Iid(3))
    assert pictures(fedloom.App(model=fedloom.BuiltIn(name="logistic"), data=data, rounds=1)) == ()


@pytest.mark.slow
@needs_data
def test_a_convolution_is_inverted_by_matching_gradients():
    data = fedloom.Data(source=fedloom.mnist(), partition=fedloom.Iid(100), holdout=0.0)
    cnn = fedloom.App(model=fedloom.BuiltIn(name="mlp", hidden=(32,)), data=data, strategy=SEEDED, rounds=1)
    _, mean, plain, _, noised = pictures(cnn)
    assert plain.ssim > 0.9 > mean.ssim > noised.ssim


def test_stripping_takes_the_noise_and_what_needs_it():
    bare = stripped(app())
    assert not bare.strategy.private
    assert (bare.strategy.stages, bare.strategy.aggregate) == ((), fedloom.Mean())
    assert bare.strategy.local == DP.local


@pytest.mark.slow
def test_all_of_it_is_told_and_drawn(tmp_path, command):
    found = expose(app(), canaries=200, shadows=2)
    told = json.loads(json.dumps(found.figures()))
    drawn = section(told)
    assert next(line.name for line in drawn.lines) == "ε that canaries prove"
    assert len(drawn.images) == 5
    assert drawn.images[0].source.startswith("data:image/png;base64,")
    assert drawn.roc.startswith("<svg")
    assert "likeness of a recovered image" in lines(told)[-1]
    bare = section(json.loads(json.dumps(expose(app(fedloom.fedavg()), canaries=40, shadows=0).figures())))
    assert bare.lines[0].private == "–"
    assert "claims no differential privacy of clients" in bare.says


TOML = """
clients = 20
rounds = 1
strategy = { name = "dp_fedavg", clip = 0.5, noise_multiplier = 2.0, delta = 1e-3 }
[data]
source = "npz"
path = "rows.npz"
arrays = { shape = [8, 8], classes = 10, scale = 0.0625 }
"""


@pytest.mark.slow
def test_the_command_writes_it_into_the_report_of_a_run(command, tmp_path):
    found = load_digits()
    names = ("train_images", "train_labels", "test_images", "test_labels")
    np.savez("rows.npz", **dict(zip(names, (found.images[:400], found.target[:400]) * 2, strict=True)))
    (tmp_path / "app.toml").write_text(TOML)
    assert command("run", "app.toml", "--no-compare").code == 0
    told = command("audit", "last", "--report", "--canaries", 60, "--shadows", 2)
    assert told.code == 0, told.err
    assert "likeness of a recovered image (SSIM): 1.00 without protection" in told.out
    (page,) = tmp_path.glob("runs/*/report.html")
    assert "What an attacker gets" in page.read_text()
    (event,) = command("audit", "last", "--report", "--canaries", 60, "--shadows", 2, "--json").events
    assert event["event"] == "exposure"
    assert command("audit", "app.toml", "--report").code == 2
