"""The loop is the user's own, also in a notebook."""

import nbformat
import pytest
from nbclient import NotebookClient

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
]

CELLS = (
    """
import fedloom

app = fedloom.App(
    model=fedloom.BuiltIn(name="logistic"),
    data=fedloom.Data(source=fedloom.SklearnSet("breast_cancer"), partition=fedloom.Dirichlet(4, alpha=1.0)),
    rounds=5,
)
""",
    """
seen = []
for state in app.run():
    seen.append(state.metrics.view())
    print(state.round, round(seen[-1]["auc"], 3))
""",
    """
%matplotlib inline
import matplotlib.pyplot as plt

figure, axes = plt.subplots()
axes.plot([figures["loss"] for figures in seen])
figure
""",
    """
from rich.table import Table

table = Table("site", "AUC")
for site, metrics in state.sites.items():
    table.add_row(site, f"{metrics.view()['auc']:.3f}")
from rich.console import Console

Console().print(table)
state.reason
""",
)


def test_a_notebook_runs_an_app_and_shows_what_it_found(tmp_path):
    book = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(text.strip()) for text in CELLS])
    client = NotebookClient(book, timeout=120, resources={"metadata": {"path": str(tmp_path)}})
    client.execute()
    printed = "".join(output["text"] for output in book.cells[1].outputs)
    assert [line.split()[0] for line in printed.splitlines()] == ["1", "2", "3", "4", "5"]
    assert any("image/png" in output.get("data", {}) for output in book.cells[2].outputs)
    told = str(book.cells[3].outputs)
    assert "client-003" in told
    assert "best loss" in told
