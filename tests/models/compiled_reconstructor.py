"""The reconstruction transformer compiled, as one graph and by blocks, under autocast, with gradients, against eager.

A script, which imports little: starting is most of its time.
"""

import math

import torch
from torch._dynamo.utils import counters

from humansplat.geometry.projection import intrinsics, look_at, orbit
from humansplat.models.latent_reconstructor import LatentReconstructor
from humansplat.render.body_maps import BodyMaps
from humansplat.structures import Cameras, PosedBody
from humansplat.training.compilation import compile_network

SIZE, TOKENS = 32, 9


def inputs() -> dict:
    """Anything of the right shapes, before cameras that stand as they should."""
    points = torch.rand(1, TOKENS, 3)
    eye, middle = torch.tensor([[0.5, 0.5, 3.5]]), torch.full((1, 3), 0.5)
    K = intrinsics(math.radians(30), SIZE, SIZE)[None]
    photo = Cameras(viewmats=look_at(eye, middle, torch.tensor([0.0, 1.0, 0.0])), Ks=K, width=SIZE, height=SIZE)
    several = torch.rand(3, 1, 4, SIZE // 2, SIZE // 2, 3)
    flat = 3 + several[..., 0]
    maps = BodyMaps(
        hit=flat[0] > 3.5,
        points=several[0],
        normals=several[1],
        canonical=several[2],
        far_depth=flat[1] + 1,
        depth=flat[1],
    )
    no_faces = torch.zeros(0, 3, dtype=torch.long)
    parts = torch.zeros(TOKENS, dtype=torch.long)
    return {
        "latents": torch.randn(1, 1, 4, SIZE // 8, SIZE // 8),
        "image": torch.rand(1, 4, SIZE, SIZE),
        "cameras": orbit(photo, middle, torch.arange(4) * math.pi / 2),
        "body": PosedBody(vertices=points, joints=points, canonical=points[0], faces=no_faces, parts=parts),
        "maps": maps,
        "token_ids": torch.arange(TOKENS),
        "token_normals": torch.randn(1, TOKENS, 3),
    }


def main() -> None:
    """Compare splats and gradients."""
    torch.manual_seed(0)
    model = LatentReconstructor(
        width=16, num_heads=2, num_intra_layers=3, num_inter_layers=1, patch=2, num_body_tokens=TOKENS, kept_cells=3
    )
    given, results = inputs(), []
    weights = [weight for weight in model.parameters() if weight.ndim > 1]
    for function in (model, torch.compile(model, fullgraph=True, backend="eager"), model):
        if len(results) == 2:
            torch._dynamo.reset()
            counters.clear()
            compile_network(model, "blocks", backend="eager")
        with torch.autocast("cpu", torch.bfloat16):
            splats = function(**given)
        loss = splats.means.sum() + splats.colors.square().sum() + splats.opacities.sum()
        gradients = torch.autograd.grad(loss, weights)
        results.append([splats.means.detach(), splats.colors.detach(), *(x / x.abs().max() for x in gradients)])
    graphs = counters["stats"]["unique_graphs"]
    torch.testing.assert_close(*results[:2], rtol=0.0, atol=0.02)
    torch.testing.assert_close(*results[::2], rtol=0.0, atol=0.02)
    assert graphs == 3, f"{graphs} graphs of blocks: of three views' blocks that are alike, a body's and a joint one"


if __name__ == "__main__":
    main()
