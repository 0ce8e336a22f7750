"""`fedloom provision`: a federation's keys and certificates, join tokens, and who is denied."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from ..core.errors import ConfigError, MissingExtra
from .directory import draw_up

if TYPE_CHECKING:
    from ..runtime.authority import Authority

Names = Annotated[list[str], typer.Option("--site", help="Invite a site of this name; repeatable.")]
EXAMPLE = """\
First: fedloom provision coordinator --host coordinator.example --site north --site south

Later: fedloom provision coordinator --deny north
"""


def command(
    home: Annotated[Path, typer.Argument(help="The coordinator's folder; keys go to HOME/pki.")],
    host: Annotated[
        list[str], typer.Option("--host", help="A name or address that sites reach it by; repeatable.")
    ] = [],  # noqa: B006 (typer copies it)
    site: Names = [],  # noqa: B006
    relay: Annotated[list[str], typer.Option("--relay", help="Invite a relay, NAME=HOST; repeatable.")] = [],  # noqa: B006
    hours: Annotated[float, typer.Option(help="Hours that a join token is good.")] = 24,
    life: Annotated[
        float | None, typer.Option(help="Hours that a certificate is good, said once; by default 24.")
    ] = None,
    deny: Annotated[str | None, typer.Option(help="Let a party in no more: NAME, or NAME=REASON.")] = None,
    allow: Annotated[
        str | None, typer.Option(help="Deny a party no more; it enrols anew, so give --site NAME too.")
    ] = None,
    root_key: Annotated[
        Path | None, typer.Option(help="Renew the issuing certificate with this root key, or sign the --directory.")
    ] = None,
    directory: Annotated[
        Path | None, typer.Option(help="Write a list of the sites that have enrolled, for hidden sums.")
    ] = None,
) -> None:
    """Make a federation's keys and certificates, and invite sites; later: invite more of them, or deny one."""
    if directory is not None:
        draw_up(home, directory, root_key)
        return
    relays = [_relay(each) for each in relay]
    _check([*site, *(name for name, _ in relays)], hours)
    authority = _authority(home, host, [address for _, address in relays], life, root_key)
    if deny is not None:
        name, _, reason = deny.partition("=")
        authority.deny(name, reason)
        _say(
            f"{name} is let in no more: neither with its certificate nor with a token. If it is to come back: "
            f"fedloom provision {home} --allow {name} --site {name}"
        )
    if allow is not None:
        authority.allow(allow)
        _say(f"{allow} is denied no more, and its old keys and tokens stay shut out.")
    invited = [(name, authority.invite(name, hours=hours)) for name in dict.fromkeys(site)]
    invited += [(name, authority.invite(name, "relay", hours, [address])) for name, address in relays]
    if allow is not None:
        _say(_back(home, allow, allow in dict(invited)))
    if invited:
        _tell(authority, home, invited, hours)
    elif deny is allow is None:
        _say(
            f"{home} is the authority for {', '.join(authority.hosts)}; its issuing certificate is good until "
            f"{authority.until:%Y-%m-%d}."
        )


def _back(home: Path, name: str, invited: bool) -> str:
    """Say how a party that was denied comes back."""
    token = "the token below" if invited else f"a token of: fedloom provision {home} --site {name}"
    other = "" if invited else f" (a relay: --relay {name}=HOST)"
    return f"To come back, {name} deletes pki in its folder (a relay: above/pki), and joins with {token}{other}"


def _relay(text: str) -> tuple[str, str]:
    name, _, address = text.partition("=")
    if not (name and address):
        raise ConfigError(f"--relay is NAME=HOST, such as east=relay.example; got {text!r}.")
    return name, address


def _check(names: list[str], hours: float) -> None:
    """Refuse names and hours that nobody can be invited with, before keys are made."""
    try:
        from ..runtime.authority import check_hours
        from ..runtime.identity import check_name
    except ModuleNotFoundError as error:
        raise MissingExtra("a network of institutions needs cryptography: pip install 'fedloom[network]'") from error
    check_hours(hours)
    for name in names:
        check_name(name)


def _authority(
    home: Path, hosts: list[str], relays: list[str], life: float | None, root_key: Path | None
) -> "Authority":
    from ..runtime import authority, provisioning

    if root_key is not None:
        provisioning.reissue(home, root_key, hosts=hosts, relay_hosts=relays)
        found = authority.Authority(home)
        _say(f"The issuing certificate is new, and good until {found.until:%Y-%m-%d}. Take the root key away again.")
    elif provisioning.provisioned(home):
        found = authority.Authority(home)
        if life is not None:
            raise ConfigError(f"--life was said when {home} was made, and stays; leave it out.")
        if hosts and set(hosts) != set(found.hosts):
            raise ConfigError(f"{home} is for {list(found.hosts)}, not {hosts}; to change hosts, give --root-key.")
    else:
        provisioning.provision(home, hosts, relay_hosts=relays, life_h=24 if life is None else life)
        found = authority.Authority(home)
        _say(f"{provisioning.root_key(home)} is the root key: move it to a place without a network, and keep a copy.")
    return found


def _tell(authority: "Authority", home: Path, invited: list[tuple[str, str]], hours: float) -> None:
    """Print one line for each token, never broken, so that it can be copied."""
    width = max(4, *(len(name) for name, _ in invited))
    out = Console(soft_wrap=True, highlight=False, markup=False)
    out.print(f"{'name':<{width}}  join token: for one use, good for {hours:g} hours")
    for name, token in invited:
        out.print(f"{name:<{width}}  {token}")
    from ..runtime.joining import Token

    where = f"{authority.hosts[0]}:PORT"
    roles = {Token.of(token).role for _, token in invited}
    _say("Hand each token to its owner in private: a call, a letter, an encrypted message.")
    _say(f"Here:       fedloom serve APP --listen 0.0.0.0:PORT --home {home}")
    if "site" in roles:
        _say("At a site:  fedloom approve APP --home DIR")
        _say(f"            fedloom join APP --server {where} --as NAME --data PATH --home DIR --token TOKEN")
    if "relay" in roles:
        _say("At a relay: fedloom provision DIR --host ITS_HOST --site NAME, for the sites behind it")
        _say(f"            fedloom relay APP --server {where} --as NAME --listen 0.0.0.0:PORT --home DIR --token TOKEN")


def _say(line: str) -> None:
    Console(stderr=True, soft_wrap=True, highlight=False, markup=False).print(line)
