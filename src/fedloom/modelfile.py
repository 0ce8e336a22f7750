"""A model file as the start of another run."""

from pathlib import Path

from .core.errors import ConfigError
from .core.layout import MODEL
from .core.state import State
from .simulation import Simulation


def started_from(simulation: Simulation, state: State, path: Path) -> State:
    """Return the state with the values of a model file; raises `ConfigError` for a file of another model."""
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    if not Path(path).is_file():
        raise ConfigError(
            f"{path} cannot be read as a model file: there is no such file; it is one like runs/RUN/model.safetensors."
        )
    try:
        arrays = load_file(path)
    except (OSError, SafetensorError) as error:
        raise ConfigError(f"{path} cannot be read as a model file: {error}.") from error
    vector = state.vector.copy()
    places = state.layout.unpack(vector)
    for leaf in state.layout.leaves:
        if leaf.block != MODEL:
            continue
        if leaf.name not in arrays or arrays[leaf.name].shape != leaf.shape:
            there = f"shape {arrays[leaf.name].shape}" if leaf.name in arrays else "nothing"
            raise ConfigError(f"{path}: expected {leaf.name!r} of shape {leaf.shape}, got {there}; is it this model?")
        places[leaf.name][...] = arrays[leaf.name]
    return state.but(vector=vector, optimizer=simulation.app.strategy.optimizer.init(vector, state.layout))
