"""The CPU rasterizer: the same image as gsplat's, with gradients, and no compiler on the machine.

The kernels (``cpu_projection``, ``cpu_tiles``, ``cpu_compositing``) are compiled by numba at the first call,
a matter of seconds, and cached on disk. Splats and tiles are dealt out to as many threads as torch uses; the
result is the same whatever their number.
"""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd.function import once_differentiable

from humansplat.errors import UserError
from humansplat.render import cpu_compositing as compositing
from humansplat.render import cpu_projection as projection
from humansplat.render import cpu_tiles as tiles
from humansplat.structures import Cameras, Gaussians

_SPLATS_PER_JOB = 8192
_JOBS_PER_THREAD = 8  # tiles differ in cost, so that each thread takes several small shares


def rasterize(
    splats: Gaussians, cameras: Cameras, near: float, far: float
) -> tuple[Float[Tensor, "c h w 3"], Float[Tensor, "c h w"], Float[Tensor, "c h w"]]:
    """Render one set of splats from several cameras, in float32.

    Args:
        splats: Unbatched, on the CPU.
        cameras: ``[c]`` cameras, on the CPU.
        near: Nearest visible depth of a centre, metres, > 0.
        far: Farthest visible depth of a centre, metres.

    Returns:
        Premultiplied colours, alphas, and the sum of depth times weight.

    Raises:
        UserError: If a value is not finite, a quaternion is zero, or a camera asks for gradients.
    """
    fields = [splats.means, splats.quats, splats.scales, splats.opacities, splats.colors]
    for name, field in zip(("means", "quats", "scales", "opacities", "colors"), fields, strict=True):
        if not torch.isfinite(field).all():
            raise UserError(f"the splats' {name} hold values that are not finite; remove those splats first")
    if (splats.quats == 0).all(dim=-1).any():
        raise UserError("a quaternion of the splats is zero, which is no rotation; use (1, 0, 0, 0) for none")
    if not (torch.isfinite(cameras.viewmats).all() and torch.isfinite(cameras.Ks).all()):
        raise UserError("the cameras hold values that are not finite; check viewmats and Ks")
    if cameras.viewmats.requires_grad or cameras.Ks.requires_grad:
        raise UserError("the CPU rasterizer gives cameras no gradients; detach them or use backend='reference'")
    fields = [field.float().contiguous() for field in fields]
    views = [
        _View(viewmat, K, cameras.width, cameras.height, near, far)
        for viewmat, K in zip(cameras.viewmats, cameras.Ks, strict=True)
    ]
    if torch.is_grad_enabled() and any(field.requires_grad for field in fields):
        return _Rasterize.apply(*fields, views)
    return _render(_arrays(fields), views, plans=None)


class _View:
    """One camera as the kernels take it."""

    def __init__(self, viewmat: Tensor, K: Tensor, width: int, height: int, near: float, far: float) -> None:
        self.viewmat = viewmat.float().contiguous().numpy()
        self.lens = np.array([K[0, 0], K[1, 1], K[0, 2], K[1, 2]], np.float32)
        self.size = np.array([width, height], np.float32)
        self.limits = np.float32(near), np.float32(far)
        self.tiles_x, self.tiles_y = -(-width // tiles.TILE), -(-height // tiles.TILE)
        self.width, self.height = width, height


class _Plan(NamedTuple):
    """What the compositing of one view needs, and its backward pass again."""

    splats: np.ndarray
    """Projected, ``[n, NUM_COLUMNS]``."""
    offsets: np.ndarray
    members: np.ndarray


class _Rasterize(torch.autograd.Function):
    """Ties the kernels into autograd."""

    @staticmethod
    def forward(
        ctx: Any, means: Tensor, quats: Tensor, scales: Tensor, opacities: Tensor, colors: Tensor, views: list[_View]
    ) -> tuple[Tensor, Tensor, Tensor]:
        inputs = (means, quats, scales, opacities, colors)
        ctx.views, ctx.plans = views, []
        outputs = _render(_arrays(inputs), views, ctx.plans)
        ctx.save_for_backward(*inputs, *outputs)
        return outputs

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *v_outputs: Tensor) -> tuple[Tensor | None, ...]:
        *inputs, images, alphas, depths = ctx.saved_tensors
        v_images, v_alphas, v_depths = v_outputs
        total = (images * v_images).sum(dim=-1) + depths * v_depths - (1 - alphas) * v_alphas
        given = torch.stack([*v_images.unbind(-1), v_depths, total], dim=1)  # [c, 5, h, w]
        gradients = [torch.zeros_like(field) for field in inputs]
        with _Threads() as threads:
            for view, plan, v_image in zip(ctx.views, ctx.plans, given.numpy(), strict=True):
                _render_backward(_arrays(inputs), view, plan, v_image, _arrays(gradients), threads)
        return *gradients, None


class _Threads:
    """Runs ``kernel(first, last, *arguments)`` over a range cut into pieces; the pieces must be independent."""

    def __init__(self) -> None:
        self.count = torch.get_num_threads()

    def __enter__(self) -> "_Threads":
        self._pool = ThreadPoolExecutor(self.count)
        return self

    def __exit__(self, *error: object) -> None:
        self._pool.shutdown()

    def run(self, kernel: Callable[..., None], total: int, piece: int, *arguments: object) -> None:
        starts = range(0, total, piece)
        if len(starts) <= 1 or self.count == 1:
            kernel(0, total, *arguments)
            return
        jobs = [self._pool.submit(kernel, first, min(first + piece, total), *arguments) for first in starts]
        for job in jobs:
            job.result()

    def run_tiles(self, kernel: Callable[..., None], view: _View, *arguments: object) -> None:
        total = view.tiles_x * view.tiles_y
        self.run(kernel, total, max(1, total // (self.count * _JOBS_PER_THREAD)), *arguments)


def _arrays(tensors: list[Tensor] | tuple[Tensor, ...]) -> list[np.ndarray]:
    return [tensor.detach().numpy() for tensor in tensors]


def _render(inputs: list[np.ndarray], views: list[_View], plans: list[_Plan] | None) -> tuple[Tensor, Tensor, Tensor]:
    """Render the views one after the other; append what the backward pass needs to ``plans``."""
    height, width = views[0].height, views[0].width
    images = torch.empty(len(views), height, width, 3)
    alphas = torch.empty(len(views), height, width)
    depths = torch.empty(len(views), height, width)
    with _Threads() as threads:
        for i, view in enumerate(views):
            plan = _plan(inputs, view, threads)
            outputs = _arrays([images[i], alphas[i], depths[i]])
            threads.run_tiles(compositing.composite, view, *plan, view.tiles_x, *outputs)
            if plans is not None:
                plans.append(plan)
    return images, alphas, depths


def _plan(inputs: list[np.ndarray], view: _View, threads: _Threads) -> _Plan:
    """Project the splats and sort them into tiles, near to far; equal depths keep the order of the input."""
    num_splats = len(inputs[0])
    splats = np.empty((num_splats, tiles.NUM_COLUMNS), np.float32)
    camera = (view.viewmat, view.lens, view.size)
    threads.run(projection.project, num_splats, _SPLATS_PER_JOB, *inputs, *camera, *view.limits, splats)
    visible = np.flatnonzero(splats[:, tiles.EXTENT_X])
    # Positive floats sort like their bits; one integer key sorts by depth, then by index.
    depth_bits = splats[visible, tiles.DEPTH].view(np.uint32).astype(np.uint64)
    keys = depth_bits << np.uint64(32) | visible.astype(np.uint64)
    keys.sort()
    order = (keys & np.uint64(0xFFFFFFFF)).astype(np.int64)
    return _Plan(splats, *tiles.sort_into_tiles(splats, order, view.tiles_x, view.tiles_y))


def _render_backward(
    inputs: list[np.ndarray],
    view: _View,
    plan: _Plan,
    v_image: np.ndarray,
    v_inputs: list[np.ndarray],
    threads: _Threads,
) -> None:
    """Add the gradients of one view to ``v_inputs``."""
    shares = np.empty((len(plan.members), compositing.NUM_GRADIENTS), np.float32)
    threads.run_tiles(compositing.composite_backward, view, *plan, view.tiles_x, v_image, shares)
    gradients = np.zeros((len(plan.splats), compositing.NUM_GRADIENTS), np.float32)
    compositing.add_shares(shares, plan.members, gradients)
    means, quats, scales = inputs[:3]
    camera = (view.viewmat, view.lens, view.size)
    threads.run(
        projection.project_backward, len(means), _SPLATS_PER_JOB,
        means, quats, scales, *camera, plan.splats, gradients, *v_inputs,
    )  # fmt: skip
