"""`fedloom provision --directory` draws a list up; `fedloom approve --directory` takes it, or says why not."""

import re

import pytest
import typer
from typer.testing import CliRunner

from enrolled import federation
from fedloom.commands import approve, provision
from fedloom.core.errors import ConfigError
from fedloom.runtime.directory import DIRECTORY

cli = typer.Typer()
cli.command("provision")(provision.command)
cli.command("approve")(approve.command)


def run(*words, said=""):
    told = CliRunner().invoke(cli, [str(word) for word in words], input=said, catch_exceptions=False)
    return told.output


@pytest.fixture
def there(tmp_path):
    home = federation(tmp_path, "north", "south")
    told = run("provision", home, "--directory", tmp_path / "list.json")
    (number,) = re.findall(r"check number: (.*)", told)
    assert "lists 2 sites: north, south" in told
    assert "It is not signed" in told
    return tmp_path, home, number


def test_it_is_taken_by_the_number_that_another_site_has(there):
    folder, _, number = there
    told = run("approve", "--directory", folder / "list.json", "--home", folder / "north", said=f"{number}\ny\n")
    assert "2 sites: north, south; this site's own key is right" in told
    assert "taken:" in told
    assert (folder / "north" / DIRECTORY).exists()
    told = run(
        *("approve", "--directory", folder / "list.json", "--home", folder / "south", "--number", number, "--yes")
    )
    assert "taken:" in told


def test_another_number_is_not(there):
    folder, _, number = there
    other = number[::-1]
    with pytest.raises(ConfigError, match="do not take it"):
        run("approve", "--directory", folder / "list.json", "--home", folder / "north", said=f"{other}\ny\n")
    with pytest.raises(ConfigError, match="do not take it"):
        run("approve", "--directory", folder / "list.json", "--home", folder / "north", "--number", other, "--yes")
    with pytest.raises(ConfigError, match="nobody vouches for this list"):
        run("approve", "--directory", folder / "list.json", "--home", folder / "north", "--yes")
    run("approve", "--directory", folder / "list.json", "--home", folder / "north", said=f"{number}\nn\n")
    assert not (folder / "north" / DIRECTORY).exists()


def test_a_signed_one_needs_no_call(there):
    folder, home, _ = there
    path = folder / "signed.json"
    told = run("provision", home, "--directory", path, "--root-key", home / "pki" / "root" / "key.pem")
    assert "It is signed with the root key. Take that away again." in told
    assert "taken:" in run("approve", "--directory", path, "--home", folder / "north", "--yes")
