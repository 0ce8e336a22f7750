"""Gradient matching for torch modules: an input whose gradient points where an update points."""

import torch
from torch import Tensor
from torch.func import functional_call

from ..core.layout import Array, Vector
from ..core.rng import Streams
from .torch import TorchModel
from .torch_objective import inputs_like


def match(
    model: TorchModel,
    start: Vector,
    gradient: Vector,
    label: int,
    *,
    shape: tuple[int, ...],
    streams: Streams,
    steps: int = 200,
) -> Array:
    """Return one input in [0, 1], of that shape, whose gradient at `start` has the direction of `gradient`.

    Geiping et al., NeurIPS 2020 (arXiv 2003.14053): minimise 1 - cosine + 10^-4·total variation, by Adam on the signs
    of the gradient, with the rate cut by ten after 3/8, 5/8 and 7/8 of the steps. The label is taken to be known.

    Args:
        model: under attack; start: where the gradient was taken; gradient: shape `(parameters,)`.
        label: class of the example; steps: of the search.
    """
    names = [leaf.name for leaf in model.layout.leaves if leaf.kind == "parameter"]
    values = model.layout.unpack(start)
    params = {name: torch.tensor(values[name], requires_grad=True) for name in names}
    goal = torch.tensor(gradient[: sum(values[name].size for name in names)])
    guess = torch.tensor(streams("guess").random((1, *shape)), dtype=goal.dtype, requires_grad=True)
    search = torch.optim.Adam([guess], lr=0.1)
    plan = torch.optim.lr_scheduler.MultiStepLR(search, [steps * part // 8 for part in (3, 5, 7)], gamma=0.1)
    target = model.objective.targets(torch.tensor([label]).numpy(), goal)
    module = model.module.eval()
    for _ in range(steps):
        search.zero_grad()
        outputs = functional_call(module, params, (inputs_like(guess, goal),))
        found = torch.autograd.grad(model.objective.mean(outputs, target), list(params.values()), create_graph=True)
        flat = torch.cat([part.reshape(-1) for part in found])
        loss = 1 - torch.nn.functional.cosine_similarity(flat, goal, dim=0) + 1e-4 * _variation(guess)
        loss.backward()  # type: ignore[no-untyped-call]
        assert guess.grad is not None, "the loss depends on the guess"
        guess.grad.sign_()
        search.step()
        plan.step()
        with torch.no_grad():
            guess.clamp_(0, 1)
    module.train()
    return guess.detach()[0].numpy()


def _variation(images: Tensor) -> Tensor:
    down = (images[..., 1:, :] - images[..., :-1, :]).abs().mean()
    return down + (images[..., :, 1:] - images[..., :, :-1]).abs().mean()
