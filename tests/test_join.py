"""What a site keeps of a run is its own: nobody else on its machine reads updates, or secrets of hidden sums."""

import fedloom
from fedloom.core.rng import stream
from fedloom.data.holds import holdings
from fedloom.join import Joining, booked, desk
from fedloom.load import Loaded
from wired import identities


def test_nobody_else_may_look_into_the_folder_of_a_run(tmp_path):
    (tmp_path / "pki").symlink_to(identities(("north",))[1]["north"].home / "pki")
    data = fedloom.Data(source=fedloom.SklearnSet("breast_cancer"), partition=fedloom.Iid(2))
    app = fedloom.App(model=fedloom.BuiltIn(name="logistic"), data=data, rounds=1)
    own = next(iter(holdings(data.source.read(), data.partition, data.holdout, stream(0, "partition")).values()))
    joining = Joining(name="north", home=tmp_path, server=("localhost", 1))
    made = desk(Loaded(app, "app", app.digest), joining, own, booked(joining, own), "run-1")
    made.notes.close()
    assert (tmp_path / "runs" / "run-1" / "site.db").exists()
    assert (tmp_path / "runs" / "run-1").stat().st_mode & 0o777 == 0o700
