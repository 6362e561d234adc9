"""Random problems for windowed attention, and the slow, plain statement of what it computes."""

import math
import os
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from humansplat.models.windowed_attention import windowed_attention

WINDOWS = (1, 2, 3, 4, 2.5, math.inf)


class Case(NamedTuple):
    query: Tensor
    key: Tensor
    value: Tensor
    cells: Tensor
    tokens: Tensor
    inside: Tensor


def random_case(
    rng: torch.Generator,
    *,
    batch: int = 2,
    views: int = 2,
    grid: int = 8,
    num_tokens: int = 50,
    heads: int = 2,
    dim: int = 16,
    kept: int | None = None,
    corner: float = 1.0,
) -> Case:
    """Tokens spread over the lower left ``corner`` of the grid; every fifth or so is outside the image."""
    index = torch.arange(grid * grid)
    cells = (torch.stack([index % grid, index // grid], dim=-1) + 0.5).expand(batch, views, -1, 2)
    if kept is not None:
        picks = [torch.randperm(grid * grid, generator=rng)[:kept] for _ in range(batch * views)]
        cells = torch.stack([cells[0, 0, pick] for pick in picks]).unflatten(0, (batch, views))
    tokens = torch.rand(batch, views, num_tokens, 2, generator=rng) * grid * corner
    tokens[..., ::3, :] = (2 * tokens[..., ::3, :]).round() / 2  # on the edges of cells and windows
    inside = torch.rand(batch, views, num_tokens, generator=rng) < 0.8
    tokens[~inside] = torch.tensor([-3.0, math.nan])
    return Case(
        torch.randn(batch, views, cells.shape[2], heads, dim, generator=rng),
        torch.randn(batch, num_tokens, heads, dim, generator=rng),
        torch.randn(batch, num_tokens, heads, dim, generator=rng),
        cells,
        tokens,
        inside,
    )


VARIETY = {
    "a whole grid, two bodies": {},
    "kept cells, an odd number of channels": {"batch": 1, "views": 3, "grid": 9, "heads": 3, "dim": 24, "kept": 20},
    "all tokens in one cell": {"views": 1, "heads": 1, "corner": 0.1},
    "most windows empty": {"batch": 1, "grid": 12, "num_tokens": 6},
    "one view of one cell": {"batch": 1, "views": 1, "grid": 1, "num_tokens": 20},
    "no tokens": {"batch": 1, "grid": 4, "num_tokens": 0},
    "no cells": {"batch": 1, "grid": 4, "kept": 0},
}


def with_gradients(case: Case, window: float, dtype: torch.dtype, backend: str, device: str = "cpu") -> list[Tensor]:
    """Output and gradients of query, key and value for a fixed random cotangent, on the CPU in float64."""
    leaves = [x.detach().to(device, dtype, copy=True).requires_grad_() for x in case[:3]]
    out = windowed_attention(*leaves, *(x.to(device) for x in case[3:]), window, backend=backend)
    cotangent = torch.randn(out.shape, generator=torch.Generator().manual_seed(1))
    out.backward(cotangent.to(device, dtype))
    return [x.detach().cpu().double() for x in (out, *(leaf.grad for leaf in leaves))]


def by_loops(case: Case, window: float) -> Tensor:
    """The definition, pair by pair."""
    query, key, value = (x.double() for x in case[:3])
    out = torch.zeros_like(query)
    batch, views, num_queries, _, dim = query.shape
    for b in range(batch):
        for v in range(views):
            for i in range(num_queries):
                offset = (case.tokens[b, v] - case.cells[b, v, i]).abs()
                seen = [j for j in range(len(offset)) if case.inside[b, v, j] and float(offset[j].max()) <= window / 2]
                if seen:
                    logits = torch.einsum("hd,jhd->hj", query[b, v, i], key[b, seen]) / math.sqrt(dim)
                    out[b, v, i] = torch.einsum("hj,jhd->hd", logits.softmax(dim=-1), value[b, seen])
    return out


def relative_error(got: Tensor, expected: Tensor) -> float:
    """Largest error over the largest value; inputs have unit variance, where all values vanish rounding remains."""
    if not expected.numel():
        return 0.0
    return ((got - expected).abs().max() / expected.abs().max().clamp_min(0.1)).item()


def check_compiled(device: str, compiler: str) -> None:
    """Run ``compiled_layers.py``."""
    script = Path(__file__).with_name("compiled_layers.py")
    paths = [str(script.parents[3]), os.environ.get("PYTHONPATH", "")]
    done = subprocess.run(
        [sys.executable, str(script), device, compiler],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths))},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-3000:]
