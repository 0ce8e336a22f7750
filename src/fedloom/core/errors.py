"""Every error that fedloom raises, as one tree, drawn here.

FedloomError                 FL000  never raised itself
├── ConfigError              FL100  an app, a command line or a TOML file that cannot mean anything
│   ├── StrategyError        FL110  parts of a strategy that do not fit each other or the members
│   ├── MissingExtra         FL120  an optional library is not installed
│   └── DigestMismatch       FL130  not the app (or the layout) that was agreed on
├── DataError                FL200  a file, a column or a value that the schema does not allow
├── UpdateError              FL300  an update that must not be added
│   ├── LayoutMismatch       FL310  it is packed for another model
│   ├── NotFinite            FL320  it holds NaN or infinity
│   ├── OutOfBound           FL330  it is larger than its leaf's declared bound
│   └── CohortOverflow       FL340  it sums more clients than the layout has room for
├── RunError                 FL400  a run that cannot go on
│   ├── QuorumLost           FL410  too few clients answered
│   ├── UnknownRun           FL420  no such run, or it cannot be continued
│   ├── WireError            FL430  the other side of a connection said something that is refused
│   ├── RecordError          FL440  a ledger or a record that is not what was written, or contradicts what was seen
│   ├── StorageError         FL450  what must be written down cannot be: a full disk, a database that is gone
│   └── OtherFormat          FL460  it was stored by a fedloom that stores otherwise
└── AccessDenied             FL500  a party that is not who it says, or may not do what it asks

An error says what was wrong, where, what was received, and what to do. Its code has a page, docs/errors/CODE.md.
"""

from typing import ClassVar


class FedloomError(Exception):
    """Root of the tree; `code` names the page in docs/errors.

    >>> FedloomError("no such file").code
    'FL000'
    """

    code: ClassVar[str] = "FL000"


class ConfigError(FedloomError):
    """The app, the command line or the TOML file cannot mean anything; nothing was started."""

    code = "FL100"


class StrategyError(ConfigError):
    """Parts of a strategy that do not fit each other, or do not fit the members."""

    code = "FL110"


class MissingExtra(ConfigError):
    """An optional library is needed and not installed; the message names the `pip install` line."""

    code = "FL120"


class DigestMismatch(ConfigError):
    """What is here is not what was agreed on: the app or its layout has changed."""

    code = "FL130"


class DataError(FedloomError):
    """A file, a column or a value that the schema does not allow."""

    code = "FL200"


class UpdateError(FedloomError):
    """An update that must not be added to a sum."""

    code = "FL300"


class LayoutMismatch(UpdateError):
    """A vector or an update packed for another layout."""

    code = "FL310"


class NotFinite(UpdateError):
    """NaN or infinity where a number was due."""

    code = "FL320"


class OutOfBound(UpdateError):
    """A value beyond the bound that its leaf declares, so that sums could stop being exact."""

    code = "FL330"


class CohortOverflow(UpdateError):
    """More clients in one sum than the layout's declared cohort."""

    code = "FL340"


class RunError(FedloomError):
    """A run that cannot go on."""

    code = "FL400"


class QuorumLost(RunError):
    """Fewer clients answered than the schedule's quorum; `final` where the same answers would be refused again."""

    code = "FL410"
    final: bool = False


class UnknownRun(RunError):
    """No run of that name, or one that cannot be continued."""

    code = "FL420"


class WireError(RunError):
    """The other side of a connection said something that is refused: unsigned, too long, damaged, out of its turn."""

    code = "FL430"


class RecordError(RunError):
    """A ledger or a record that is not what was written: changed, shortened, older, or of somebody else."""

    code = "FL440"


class StorageError(RunError):
    """What must be written down before it is acted on cannot be: a full disk, a folder or a database that is gone."""

    code = "FL450"


class OtherFormat(RunError):
    """What is stored is of another format than this fedloom's; the fedloom that wrote it reads it."""

    code = "FL460"


class AccessDenied(FedloomError):
    """A party that is not who it says, or may not do what it asks; nothing was done for it."""

    code = "FL500"
