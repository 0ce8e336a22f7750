"""What local work of one client at a time has in common."""

from typing import Any, ClassVar, NoReturn

from ..core.errors import ConfigError


class Solo:
    """The half of a `Local` that is about stacks, for work that cannot be stacked."""

    stacks: ClassVar[bool] = False

    def train_many(self, *given: Any, **named: Any) -> NoReturn:
        """Refuse, and say which engines there are."""
        name = type(self).__name__
        raise ConfigError(f"{name} trains one client at a time; take the engine pool or sequential.")
