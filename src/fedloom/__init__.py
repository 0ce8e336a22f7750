"""Federated learning for people who hold data that they may not share."""

from typing import TYPE_CHECKING, Any

from .adapters.numpy import linear, logistic
from .aggregate import GeometricMedian, Krum, Mean, Median, TrimmedMean
from .app import App, Data
from .attackers import Attackers
from .core.errors import ConfigError, DataError, FedloomError, RunError, StrategyError, UpdateError
from .core.examples import Examples
from .core.layout import Layout, Leaf
from .core.metrics import Metrics
from .core.needs import Needs
from .core.state import State
from .core.strategy import Strategy
from .core.update import Update
from .core.weights import ByExamples, Equal, Given
from .data.arrays import Arrays, Npz
from .data.idx import Idx
from .data.known import heart_disease, mnist, pneumonia_mnist, telco_churn
from .data.partition import ByColumn, Dirichlet, Drawn, Iid, Quantity, Shards, Whole
from .data.schema import Column, Schema
from .data.shift import Shifted
from .data.sources import Csv, Parquet, SklearnSet
from .gather import Encrypted, Plain, SecAgg
from .local import AtHome, Custom, DpSgd, Prox, Scaffold, Sgd
from .models import BuiltIn
from .optimize import Adagrad, Adam, Constant, Cosine, Exponential, Momentum, PerBlock, Staircase, Step, Yogi
from .recipes import (
    dp_fedavg,
    dp_ftrl,
    dp_secagg_fedavg,
    dp_sgd_fedavg,
    fedadagrad,
    fedadam,
    fedasync,
    fedavg,
    fedavgm,
    fedbn,
    fedbuff,
    fedprox,
    fedsgd,
    fedyogi,
    geometric_median,
    krum,
    local_dp_fedavg,
    median,
    multi_krum,
    scaffold,
    sgd,
    trimmed_mean,
)
from .running import run
from .runtime.traces import Traces
from .schedule import Buffered, Sync
from .select import Cyclic, Everyone, Poisson, Steady, Uniform
from .stages import (
    AdaptiveNoise,
    BandNoise,
    Clip,
    FixedPoint,
    GaussianNoise,
    LaplaceNoise,
    LocalGaussianNoise,
    LocalLaplaceNoise,
    NormBound,
    Quantize,
    Rotate,
    SkellamNoise,
    TreeNoise,
)
from .stop import Stop
from .version import __version__

if TYPE_CHECKING:
    from .adapters.torch import torch_model

__all__ = [
    "Adagrad",
    "Adam",
    "AdaptiveNoise",
    "App",
    "Arrays",
    "AtHome",
    "Attackers",
    "BandNoise",
    "Buffered",
    "BuiltIn",
    "ByColumn",
    "ByExamples",
    "Clip",
    "Column",
    "ConfigError",
    "Constant",
    "Cosine",
    "Csv",
    "Custom",
    "Cyclic",
    "Data",
    "DataError",
    "Dirichlet",
    "DpSgd",
    "Drawn",
    "Encrypted",
    "Equal",
    "Everyone",
    "Examples",
    "Exponential",
    "FedloomError",
    "FixedPoint",
    "GaussianNoise",
    "GeometricMedian",
    "Given",
    "Idx",
    "Iid",
    "Krum",
    "LaplaceNoise",
    "Layout",
    "Leaf",
    "LocalGaussianNoise",
    "LocalLaplaceNoise",
    "Mean",
    "Median",
    "Metrics",
    "Momentum",
    "Needs",
    "NormBound",
    "Npz",
    "Parquet",
    "PerBlock",
    "Plain",
    "Poisson",
    "Prox",
    "Quantity",
    "Quantize",
    "Rotate",
    "RunError",
    "Scaffold",
    "Schema",
    "SecAgg",
    "Sgd",
    "Shards",
    "Shifted",
    "SkellamNoise",
    "SklearnSet",
    "Staircase",
    "State",
    "Steady",
    "Step",
    "Stop",
    "Strategy",
    "StrategyError",
    "Sync",
    "Traces",
    "TreeNoise",
    "TrimmedMean",
    "Uniform",
    "Update",
    "UpdateError",
    "Whole",
    "Yogi",
    "__version__",
    "dp_fedavg",
    "dp_ftrl",
    "dp_secagg_fedavg",
    "dp_sgd_fedavg",
    "fedadagrad",
    "fedadam",
    "fedasync",
    "fedavg",
    "fedavgm",
    "fedbn",
    "fedbuff",
    "fedprox",
    "fedsgd",
    "fedyogi",
    "geometric_median",
    "heart_disease",
    "krum",
    "linear",
    "local_dp_fedavg",
    "logistic",
    "median",
    "mnist",
    "multi_krum",
    "pneumonia_mnist",
    "run",
    "scaffold",
    "sgd",
    "telco_churn",
    "torch_model",
    "trimmed_mean",
]


def __getattr__(name: str) -> Any:
    if name != "torch_model":
        raise AttributeError(f"module 'fedloom' has no attribute {name!r}")
    from .adapters.torch import torch_model  # torch is loaded when it is first asked for

    return torch_model
