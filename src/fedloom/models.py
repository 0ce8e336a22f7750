"""Built-in models, sized from the data: what an app without code can name."""

from collections.abc import Callable
from dataclasses import dataclass
from difflib import get_close_matches

from .adapters.losses import named
from .core.errors import ConfigError, MissingExtra
from .core.model import Model
from .data.sources import Source

ModelFor = Callable[[Source], Model]
KINDS = ("logistic", "linear", "mlp", "cnn")
HIDDEN = (200, 200)


@dataclass(frozen=True, kw_only=True)
class BuiltIn:
    """A model that knows its size once it meets the data.

    Args:
        name: "logistic" (NumPy: binary or softmax regression), "linear" (NumPy: least squares; with a loss for classes
            a softmax regression), "mlp" (torch: the 2NN of McMahan et al. 2017), "cnn" (torch: their CNN).
        loss: "cross_entropy", "binary_cross_entropy" or "mse"; by default what the label asks for.
        hidden: widths of the mlp's hidden layers.
        l2: penalty of the NumPy models, at least 0.
        bound: largest |w·δ| of a parameter; see `Leaf`.

    >>> from fedloom.data import SklearnSet
    >>> BuiltIn(name="logistic")(SklearnSet("breast_cancer")).layout.size
    31
    """

    name: str
    loss: str | None = None
    hidden: tuple[int, ...] = HIDDEN
    l2: float = 0.0
    bound: float = 16.0

    def __post_init__(self) -> None:
        if self.name not in KINDS:
            near = get_close_matches(self.name, KINDS, 1)
            raise ConfigError(f"there is no built-in model {self.name!r}; {_did_you_mean(near)}")
        if self.loss is not None:
            named(self.loss)
        if self.hidden != HIDDEN and self.name != "mlp":
            raise ConfigError(f"the model {self.name!r} has no hidden layers; leave 'hidden' out, or take model 'mlp'.")
        if self.l2 and self.name not in ("logistic", "linear"):
            raise ConfigError(f"the model {self.name!r} has no penalty 'l2'; set sgd's weight_decay instead.")

    def __call__(self, source: Source) -> Model:
        """Return the model for that data; raises `ConfigError` for a loss that its label cannot have."""
        usual = "cross_entropy" if source.classes else "mse"
        loss = self.loss or usual
        if self.loss is not None and (loss == "mse") != (source.classes == 0):
            kind = f"{source.classes} classes" if source.classes else "numbers"
            raise ConfigError(f"the loss {loss!r} does not fit a label of {kind}; take {usual!r}.")
        if loss == "binary_cross_entropy" and source.classes != 2:
            raise ConfigError(f"the loss {loss!r} does not fit a label of {source.classes} classes; take {usual!r}.")
        if self.name in ("logistic", "linear"):
            return self._numpy(source)
        return self._torch(source, loss)

    def _numpy(self, source: Source) -> Model:
        from .adapters.numpy import linear, logistic

        inputs = 1
        for width in source.input_shape:
            inputs *= width
        if self.name == "logistic" and not source.classes:
            raise ConfigError("a logistic model needs classes, and this label is a number; take model 'linear'.")
        if not source.classes and self.l2:
            raise ConfigError("least squares has no penalty 'l2' here; set sgd's weight_decay instead.")
        if not source.classes:
            return linear(inputs, self.bound)
        return logistic(inputs, source.classes, self.l2, bound=self.bound)

    def _torch(self, source: Source, loss: str) -> Model:
        try:
            from .adapters import torch, torch_nets
        except ModuleNotFoundError as error:
            raise MissingExtra(f"the model {self.name!r} needs torch: pip install 'fedloom[torch]'") from error
        outputs = 1 if loss in ("mse", "binary_cross_entropy") else source.classes
        if self.name == "mlp":
            return torch.torch_model(torch_nets.mlp(source.input_shape, outputs, self.hidden), loss, bound=self.bound)
        return torch.torch_model(torch_nets.cnn(source.input_shape, outputs), loss, bound=self.bound)


def _did_you_mean(near: list[str]) -> str:
    return f"did you mean {near[0]!r}?" if near else f"there are {', '.join(KINDS)}."
