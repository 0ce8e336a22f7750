"""`fedloom verify --keys` takes what a site knows of the coordinator's key."""

from contextlib import closing

import pytest

from apps import app
from enrolled import federation
from fedloom.commands.verify import believed
from fedloom.core.errors import AccessDenied
from fedloom.running import begin
from fedloom.runtime.credentials import Credentials
from fedloom.runtime.identity import text_of
from fedloom.store.files import write_json
from fedloom.store.record import keys_of


@pytest.fixture
def run(tmp_path):
    """Return the folder of a run, and a site's file that has the key which signed its record."""
    with closing(begin(app(), tmp_path / "runs")) as recording:
        for _ in recording.rounds():
            pass
    federation(tmp_path, "north")
    site = tmp_path / "north" / "pki" / "log.json"
    key, _ = keys_of(recording.folder / "record" / "keys.json")
    write_json(site, {"name": "simulation", "key": text_of(key.public)})
    return recording.folder, site


def test_a_sites_own_file_has_the_keys_of_the_record_and_of_the_site(run, tmp_path, command):
    folder, site = run
    with believed(site, folder) as known:
        log, witnesses = keys_of(known)
    assert log == keys_of(folder / "record" / "keys.json")[0]
    assert witnesses == {"north": Credentials(tmp_path / "north").peer.key}
    told = command("verify", folder, "--keys", site)
    assert (told.code, "given with --keys" in told.out) == (0, True), told.out
    assert command("verify", folder / "record", "--keys", site).code == 0


def test_away_from_its_home_it_has_the_coordinators_key_alone(run, tmp_path, command):
    folder, site = run
    away = site.rename(tmp_path / "log.json")
    with believed(away, folder) as known:
        assert keys_of(known)[1] == {}
    assert command("verify", folder, "--keys", away).code == 0


def test_another_key_does_not_hold_and_half_of_one_is_refused(run, tmp_path, command):
    folder, site = run
    write_json(site, {"name": "simulation", "key": text_of(bytes(32))})
    told = command("verify", folder, "--keys", site, "--json")
    assert (told.code, "is not signed by the key of fedloom/simulation/" in told.out) == (1, True)
    write_json(site, {"name": "simulation", "key": "no!"})
    with pytest.raises(AccessDenied, match="base64url"), believed(site, folder):
        pass


def test_a_file_like_the_records_own_is_taken_as_it_is(run):
    folder, _ = run
    own = folder / "record" / "keys.json"
    with believed(own, folder) as known:
        assert known == own
    with believed(None, folder) as known:
        assert known is None


@pytest.mark.parametrize("name", [".", "none", "rows.csv"])
def test_a_witness_that_is_none_is_a_wrong_command_and_says_nothing_of_the_record(run, tmp_path, command, name):
    folder, _ = run
    (tmp_path / "rows.csv").write_text("age,sick\n1,0\n")
    told = command("verify", folder, "--witness", tmp_path / name)
    assert (told.code, told.out) == (2, "")
    assert "site.db" in told.err
    assert "--witness is a site's HOME/runs/RUN" in told.err
