import json

import pytest

from apps import written
from fedloom.commands.curve import parsed
from fedloom.core.errors import ConfigError

TOML = """\
rounds = 2
clients = 3
[data]
source = "csv"
path = "rows.csv"
holdout = 0.25
scaling = "range"
label = { column = "sick", classes = ["no", "yes"] }
[data.columns.age]
range = [0, 100]
[strategy]
name = "dp_sgd_fedavg"
lot = 1.0
delta = 1e-3
sgd = { lr = 0.5, steps = 2 }
"""


@pytest.mark.slow
def test_a_table_a_picture_and_json(command, tmp_path):
    rows = [f"{age},{'yes' if age > 50 else 'no'}" for age in range(5, 95)]
    (tmp_path / "rows.csv").write_text("\n".join(["age,sick", *rows]))
    words = ("curve", written(tmp_path, TOML), "--epsilon", "4,inf", "--seeds", "2", "--engine", "sequential")
    told = command(*words, "--out", tmp_path / "c")
    assert told.code == 0, told.err
    assert "least to most" in told.out
    assert "each line is a run of its own on the same rows" in told.err.lower().replace("\n", " ")
    assert (tmp_path / "c" / "curve.png").read_bytes()[:4] == b"\x89PNG"
    stored = json.loads((tmp_path / "c" / "curve.json").read_text())
    assert [point["budget"] for point in stored["points"]] == [4.0, "infinity"]
    assert stored["unit"] == "example"


@pytest.mark.parametrize(
    ("text", "said"), [("1,two", "takes numbers with commas"), ("0,1", "above 0"), ("", "numbers")]
)
def test_budgets_that_are_none_are_refused(text, said):
    with pytest.raises(ConfigError, match=said):
        parsed(text)
