"""Two layers of windowed attention, compiled in one graph, against the same run eagerly.

python compiled_layers.py DEVICE COMPILER, where the compiler is ``aot_eager`` or a mode of inductor.
"""

import sys

import torch

from humansplat.models.layers import WindowedAttention
from humansplat.models.windowed_attention import plan_windows


def main(device: str, compiler: str) -> None:
    """Compare outputs and gradients."""
    torch.manual_seed(0)
    grid = 6
    index = torch.arange(grid * grid)
    cells = (torch.stack([index % grid, index // grid], dim=-1) + 0.5).expand(2, 2, -1, 2).to(device)
    tokens, inside = grid * torch.rand(2, 2, 40, 2, device=device), torch.rand(2, 2, 40, device=device) < 0.8
    module = WindowedAttention(width=64, num_heads=4).to(device)
    queries, context = torch.randn(2, 72, 64, device=device), torch.randn(2, 40, 64, device=device)

    def layers(queries: torch.Tensor, context: torch.Tensor) -> torch.Tensor:
        plan = plan_windows(cells, tokens, inside, 2.0)
        return module(module(queries, context, plan).tanh(), context, plan)

    options = {"backend": compiler} if compiler == "aot_eager" else {"mode": compiler}
    results = []
    for function in (layers, torch.compile(layers, fullgraph=True, **options)):
        for _ in range(3 if device == "cuda" else 1):  # a captured CUDA graph is replayed from the third call on
            out = function(queries, context)
            gradients = torch.autograd.grad(out.square().sum(), list(module.parameters()))
        results.append([out.detach().clone(), *(x.clone() for x in gradients)])
    torch.testing.assert_close(*results, rtol=1e-3, atol=1e-4)


if __name__ == "__main__":
    main(*sys.argv[1:])
