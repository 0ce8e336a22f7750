"""`fedloom approve` at a site's terminal."""

import pytest
import typer
from typer.testing import CliRunner

from apps import written
from enrolled import federation
from fedloom.approval import approved, listed
from fedloom.commands.approve import command
from fedloom.core.errors import ConfigError
from fedloom.load import load
from fedloom.runtime import introduction
from fedloom.runtime.credentials import Credentials

APP = """\
data = "breast_cancer"
clients = 3
rounds = 2
"""


@pytest.fixture
def site(tmp_path):
    """Return what runs the command at a site, and the site's copy of the app."""
    cli, home, path = typer.Typer(), tmp_path / "home", written(tmp_path, APP)
    cli.command()(command)

    def run(*words, typed=None):
        told = CliRunner().invoke(cli, [*map(str, words), "--home", str(home)], input=typed)
        if told.exception is not None and not isinstance(told.exception, SystemExit):
            raise told.exception
        return told

    home.mkdir()
    return run, home, path


def test_what_leaves_is_shown_and_nothing_holds_before_the_word(site):
    run, home, path = site
    told = run(path, typed="n\n")
    assert told.exit_code == 1
    for part in ("1×30", "float32", "ε = ∞", "epsilon = ∞", "rounds at most: 2", "approval = required", "[y/N]"):
        assert part in told.stdout
    assert listed(home) == []


def test_what_bounds_a_coordinator_is_said_beside_what_the_app_means(site):
    run, home, path = site
    said = "this site refuses rounds other than 1 to 2, and its policy bounds what it answers in a run: trainings "
    none = "without a limit (largest_rounds), evaluations and statistics without a limit (largest_queries); runs "
    assert said + none + "without a limit (largest_runs)" in run(path, typed="n\n").stdout
    (home / "policy.toml").write_text("largest_rounds = 4\nlargest_queries = 1000\nlargest_runs = 1\n")
    some = "4 at most (largest_rounds), evaluations and statistics 1,000 at most (largest_queries); runs 1 at most"
    assert said + some in run(path, typed="n\n").stdout


def test_without_an_answer_nothing_is_approved(site):
    run, home, path = site
    assert run(path, typed="").exit_code == 1
    assert listed(home) == []


def test_a_yes_approves_this_version_and_no_other(site):
    run, home, path = site
    assert run(path, typed="y\n").exit_code == 0
    assert approved(home, load(path).identity)
    assert not approved(home, load(path, ["rounds=3"]).identity)
    again = run(path)
    assert (again.exit_code, "approved already, by" in again.stdout) == (0, True)


def test_the_next_version_is_shown_as_a_difference(site):
    run, home, path = site
    run(path, "--yes")
    told = run(path, "--set", "rounds=3", "--yes").stdout
    assert "changed since the last approved version" in told
    lines = told.splitlines()
    assert "-rounds at most: 2" in lines
    assert "+rounds at most: 3" in lines
    assert len(listed(home)) == 2


def test_a_version_that_lets_the_same_leave_is_said_to(site):
    run, _, path = site
    run(path, "--yes")
    assert "what leaves is as in the last approved version" in run(path, "--set", "seed=5", "--yes").stdout


def test_list_and_revoke(site):
    run, home, path = site
    assert "nothing has been approved" in run("--list").stdout
    run(path, "--yes")
    digest = load(path).identity
    assert f"{digest} app" in run("--list").stdout
    assert f"revoked: app {digest}" in run("--revoke", digest[:10]).stdout
    assert not approved(home, digest)
    assert "revoked 20" in run("--list").stdout


def test_what_the_policy_forbids_cannot_be_approved(site):
    run, home, path = site
    (home / "policy.toml").write_text('protections = ["clip"]\n')
    with pytest.raises(ConfigError, match="app cannot be approved: this site's policy asks for clip"):
        run(path, "--yes")
    assert listed(home) == []
    assert run(path, "--yes", "--set", 'strategy.stages=[{name="clip", norm=1.0}]').exit_code == 0


def test_a_policy_with_a_mistake_stops_it(site):
    run, home, path = site
    (home / "policy.toml").write_text("aproval = 'any'\n")
    with pytest.raises(ConfigError, match="did you mean 'approval'"):
        run(path, "--yes")


@pytest.mark.parametrize("words", [(), ("--list", "--revoke", "a")])
def test_one_thing_at_a_time(site, words):
    run, _, _ = site
    with pytest.raises(ConfigError, match="give one of APP, --list, --revoke DIGEST and --directory"):
        run(*words)


BUDGET = "[budget]\nepsilon = 3.0\ndelta = 1e-5\n"
PRIVATE = """\
import numpy as np

import fedloom

inputs, targets = np.eye(40, dtype=np.float32), np.arange(40) % 2
source = fedloom.Arrays(inputs, targets, classes=2, test_part=(inputs[:6], targets[:6]))
app = fedloom.App(
    model=fedloom.BuiltIn(name="logistic"),
    data=fedloom.Data(source=source, partition=fedloom.Iid(2), holdout=0.0),
    strategy=fedloom.dp_fedavg(noise_multiplier=8.0, delta=1e-5),
)
"""


def test_what_the_budget_never_lets_leave_cannot_be_approved(site, tmp_path):
    run, home, path = site
    private = written(tmp_path, PRIVATE, "private.py")
    (home / "policy.toml").write_text(BUDGET)
    with pytest.raises(ConfigError, match="cannot be approved: this site's policy sets a budget of ε = 3 at"):
        run(path, "--yes")
    (home / "policy.toml").write_text(f'{BUDGET}unit = "example"\n')
    with pytest.raises(ConfigError, match="is for one example, and this app protects one client; change one"):
        run(private, "--yes")
    assert listed(home) == []
    (home / "policy.toml").write_text(BUDGET)
    assert run(private, "--yes").exit_code == 0


def test_witnesses_whose_keys_are_not_there_are_warned_of(site, tmp_path):
    run, _, path = site
    federation(tmp_path, "home", "north", "south")
    home = tmp_path / "home"
    (home / "policy.toml").write_text("witnesses = 2\n")
    for told in (run(path, "--yes"), run(path)):  # approved already, the second time
        assert told.exit_code == 0
        assert (
            f"Warning: the policy asks for 2 other witnesses, and {home / 'directory.json'} is missing" in told.stdout
        )
    keys = {name: Credentials(tmp_path / name).peer.key for name in ("home", "north", "south")}
    introduction.keep(home, {name: keys[name] for name in ("home", "north")})
    assert "directory.json has keys of 1 other site: until `fedloom approve --directory FILE" in run(path).stdout
    introduction.keep(home, keys)
    assert "Warning" not in run(path).stdout
