from dataclasses import fields

import pytest

from apps import TOML, written
from fedloom import policyfile
from fedloom.core.budget import Budget
from fedloom.core.errors import ConfigError
from fedloom.runtime.policy import DAYS, Policy

FULL = """\
approval = "any"
code = "none"
smallest_cohort = 4
protections = ["clip", "quantize"]
largest_rounds = 40
largest_queries = 100
largest_runs = 3
hours = "22:00-06:00"
days = ["mon", "tue"]
fault_text = true
tensors = ["head.*"]
witnesses = 1
ledger = "/srv/ledger.jsonl"

[budget]
epsilon = 3
delta = 1e-5
unit = "example"
"""


def read(home, text):
    (home / "policy.toml").write_text(text, encoding="utf-8")
    return policyfile.read(home)


def test_a_missing_file_is_the_safe_default_and_says_so(tmp_path):
    policy = policyfile.read(tmp_path)
    assert policy == Policy()
    assert (policy.approval, policy.smallest_cohort, policy.fault_text) == ("required", 2, False)
    told = policyfile.told(tmp_path, policy)
    assert told.startswith(f"policy (there is no {tmp_path / 'policy.toml'}, so the default): approval = required, ")
    kept = f"budget = none: the ledger is kept, and nothing enforced, ledger = {tmp_path / 'ledger.jsonl'}"
    assert f"fault_text = false, tensors = *, {kept}" in told


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("smallest_cohort = true", "smallest_cohort"),
        ("witnesses = true", "witnesses"),
        ("largest_runs = false", "largest_runs"),
        ("budget = { epsilon = true, delta = 1e-5 }", "budget.epsilon"),
    ],
)
def test_true_is_no_number(tmp_path, text, key):
    with pytest.raises(ConfigError, match=rf"policy.toml: '{key}' is a number, and true and false are none"):
        read(tmp_path, text)


def test_an_empty_file_is_the_default_too(tmp_path):
    assert read(tmp_path, "") == Policy()


def test_every_setting_can_be_written_and_is_told(tmp_path):
    policy = read(tmp_path, FULL)
    assert policy == Policy(
        approval="any",
        code="none",
        smallest_cohort=4,
        protections=("clip", "quantize"),
        largest_rounds=40,
        largest_queries=100,
        largest_runs=3,
        hours="22:00-06:00",
        days=("mon", "tue"),
        fault_text=True,
        tensors=("head.*",),
        budget=Budget(epsilon=3.0, delta=1e-5, unit="example"),
        ledger="/srv/ledger.jsonl",
        witnesses=1,
    )
    assert all(getattr(policy, each.name) != each.default for each in fields(Policy))
    told = policyfile.told(tmp_path, policy)
    assert told.startswith(f"policy ({tmp_path / 'policy.toml'}): ")
    assert "budget = ε = 3 at δ = 1e-05 for one example, ledger = /srv/ledger.jsonl" in told
    assert "protections = clip quantize, largest_rounds = 40," in told


WRONG = {
    'approvel = "any"': "policy.toml: unknown key 'approvel'; did you mean 'approval'?",
    "zzz = 1": f"policy.toml: unknown key 'zzz'; known are {', '.join(sorted(each.name for each in fields(Policy)))}.",
    'code = "some"': "policy.toml: 'code': input should be 'any' or 'none', got 'some'.",
    'approval = "no"': "policy.toml: 'approval': input should be 'required' or 'any', got 'no'.",
    'largest_rounds = "many"': "policy.toml: 'largest_rounds': input should be a valid integer",
    "smallest_cohort = 0": "policy.toml: Policy.smallest_cohort must be at least 1, got 0.",
    'hours = "late"': "policy.toml: Policy.hours must be two times such as \"22:00-06:00\", got 'late'.",
    'days = ["Friday"]': f"policy.toml: Policy.days must be some of {', '.join(DAYS)}, got Friday.",
    'protections = "clip"': "policy.toml: 'protections' is a list, such as ['clip'], got 'clip'.",
    "[budget]\nepsilon = 3\ndelta = 2": "policy.toml: Budget.delta must be in (0, 1), got 2.0;",
    "[budget]\nepsilon = 3\ndelta = 1e-5\nunits = 1": "policy.toml: 'budget.units': unexpected keyword argument",
    "[budget]\nepsilon = 3": "policy.toml: 'budget.delta' is missing.",
    'protections = ["norm_bound", "clpi"]': "policy.toml: 'protections': clpi is unknown; there are AdaptiveNoise, ",
    "approval =": "policy.toml is not TOML:",
}


@pytest.mark.parametrize("text", WRONG)
def test_what_cannot_be_meant_is_refused_in_a_sentence(tmp_path, text):
    with pytest.raises(ConfigError) as caught:
        read(tmp_path, text)
    assert str(caught.value).startswith(str(tmp_path))
    assert WRONG[text] in str(caught.value)


def test_a_file_that_cannot_be_read_is_not_a_missing_one(tmp_path):
    (tmp_path / "policy.toml").mkdir()
    with pytest.raises(ConfigError, match=r"cannot be read: .*; nothing is answered without a policy\."):
        policyfile.read(tmp_path)


@pytest.mark.parametrize("words", [("approve",), ("join", "--server", "127.0.0.1:1", "--as", "north")])
def test_where_no_app_may_have_code_a_program_is_not_even_run(command, tmp_path, words):
    home = tmp_path / "home"
    home.mkdir()
    (home / "policy.toml").write_text('code = "none"\n')
    program = tmp_path / "app.py"
    program.write_text(f"open({str(tmp_path / 'ran')!r}, 'w').close()\nraise SystemExit\n")
    name, *options = words
    told = command(name, program, "--home", home, *options)
    assert told.code == 2
    assert 'policy.toml has code = "none": an app here is a .toml file' in " ".join(told.err.replace("\\", "").split())
    assert not (tmp_path / "ran").exists()


def test_where_no_app_may_have_code_settings_are_taken(command, tmp_path):
    home = tmp_path / "home"
    home.mkdir()
    (home / "policy.toml").write_text('code = "none"\n')
    told = command("approve", written(tmp_path, TOML), "--home", home, "--yes")
    assert told.code == 0, told
    policyfile.admit(home, "demo")
