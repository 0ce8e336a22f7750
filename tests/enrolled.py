"""A federation whose sites have enrolled, without a network between them."""

from fedloom.runtime.authority import Authority
from fedloom.runtime.enrolment import finish_enrolment, prepare_enrolment
from fedloom.runtime.keys import PKI, ROOT, write_private
from fedloom.runtime.provisioning import provision


def federation(folder, *names):
    """Make a federation whose sites have enrolled; return the coordinator's folder."""
    home = folder / "coordinator"
    provision(home, ["fl.example"])
    authority = Authority(home)
    for name in names:
        token, site = authority.invite(name), folder / name
        write_private(site / PKI / ROOT, (home / PKI / ROOT).read_bytes())
        finish_enrolment(site, token, authority.enrol(prepare_enrolment(site, token)))
    return home
