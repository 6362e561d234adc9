"""The reconstruction transformer compiled in one graph, under autocast and with gradients, against a plain run."""

import torch
from test_latent_reconstructor import TINY, dummy_inputs

from humansplat.models.latent_reconstructor import LatentReconstructor


def main() -> None:
    """Compare splats and gradients."""
    torch.manual_seed(0)
    model = LatentReconstructor(**TINY | {"num_views": 5, "patch": 2, "kept_cells": 10})
    inputs = dummy_inputs(torch.Generator().manual_seed(0), num_views=5)
    results = []
    for function in (model, torch.compile(model, fullgraph=True, backend="eager")):
        with torch.autocast("cpu", torch.bfloat16):
            splats = function(**inputs)
        loss = splats.means.sum() + splats.colors.square().sum() + splats.opacities.sum()
        weights = [weight for weight in model.parameters() if weight.ndim > 1]
        gradients = torch.autograd.grad(loss, weights)
        results.append([splats.means.detach(), splats.colors.detach(), *(x / x.abs().max() for x in gradients)])
    torch.testing.assert_close(*results, rtol=0.0, atol=0.02)


if __name__ == "__main__":
    main()
