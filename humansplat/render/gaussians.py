"""One function that renders Gaussians, whatever the device."""

import logging
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from humansplat.errors import UserError
from humansplat.structures import Cameras, Gaussians, TensorStruct

_log = logging.getLogger(__name__)

Backend = Literal["auto", "gsplat", "cpu", "reference"]


class RenderedImages(TensorStruct):
    """What the cameras see."""

    colors: Float[Tensor, "*batch c h w 3"]
    """Over the background; sRGB, in ``[0, 1]`` where the splats' colours are."""
    alphas: Float[Tensor, "*batch c h w"]
    """Coverage, in ``[0, 1]``."""
    depths: Float[Tensor, "*batch c h w"]
    """Expected depth along the camera's axis, metres: the mean of the centres' depths, weighted as the colours
    are; 0 where nothing is seen. gsplat's mode ``ED``."""


def render_gaussians(
    splats: Gaussians,
    cameras: Cameras,
    background: Float[Tensor, "3"] | Sequence[float] | None = None,
    backend: Backend = "auto",
    near: float = 0.01,
    far: float = 1e10,
) -> RenderedImages:
    """Render splats from every camera, differentiably.

    The rules of the image are gsplat's, spelled out in ``humansplat.render.reference``; every backend
    follows them. Skew in the intrinsics is ignored. All compute in float32, ``reference`` in the splats'
    own precision. Gradients flow to the splats and the background; to the cameras only with ``gsplat``
    (``viewmats``) and ``reference``.

    Args:
        splats: ``[*b, n]``; quaternions need not be normalised.
        cameras: ``[*b, c]``, with the same batch axes and on the same device as the splats.
        background: sRGB behind the splats; ``None`` is white. Black gives premultiplied colours.
        backend: ``auto`` takes gsplat for CUDA tensors and the CPU rasterizer for all others; tensors of a
            device that is neither travel to the CPU and back. ``reference`` is plain PyTorch, very slow.
        near: Splats whose centre is nearer to the camera's plane are not drawn, metres, > 0.
        far: Splats whose centre is farther are not drawn, metres.

    Returns:
        Images ``[*b, c, h, w]`` on the splats' device.

    Raises:
        UserError: If the shapes do not fit together, ``near`` and ``far`` make no interval, the background is
            no colour, the backend does not fit the device, or (on the CPU, where looking is free) a value
            is not finite or a quaternion is zero.

    Example:
        >>> from humansplat.geometry.projection import intrinsics
        >>> dot = Gaussians(means=torch.tensor([[0., 0., 2.]]), quats=torch.tensor([[1., 0., 0., 0.]]),
        ...                 scales=torch.full((1, 3), 0.1), opacities=torch.ones(1), colors=torch.zeros(1, 3))
        >>> camera = Cameras(viewmats=torch.eye(4)[None], Ks=intrinsics(0.5, 33, 33)[None], width=33, height=33)
        >>> image = render_gaussians(dot, camera)
        >>> tuple(image.colors.shape), round(image.depths[0, 16, 16].item(), 3)
        ((1, 33, 33, 3), 2.0)
    """
    _check(splats, cameras, near, far)
    color = None if background is None else torch.as_tensor(background)
    if color is not None and color.shape != (3,):
        raise UserError(f"a background is one sRGB colour, three numbers; got shape {tuple(color.shape)}")
    images, alphas, depths = _rasterize(splats, cameras, backend, near, far)
    behind = (1 - alphas)[..., None]
    images = images + (behind if color is None else behind * color.to(images))
    return RenderedImages(colors=images, alphas=alphas, depths=depths / alphas.clamp(min=1e-10))


def _check(splats: Gaussians, cameras: Cameras, near: float, far: float) -> None:
    """Refuse shapes that do not fit together."""
    *batch, num_splats = splats.opacities.shape
    for name, columns in (("means", 3), ("quats", 4), ("scales", 3), ("colors", 3)):
        shape = tuple(getattr(splats, name).shape)
        if shape != (*batch, num_splats, columns):
            expected = (*batch, num_splats, columns)
            raise UserError(f"the splats' {name} have shape {shape}; their opacities ask for {expected}")
    *camera_batch, rows, columns = cameras.viewmats.shape
    if (rows, columns) != (4, 4) or cameras.Ks.shape != (*camera_batch, 3, 3):
        shapes = f"{tuple(cameras.viewmats.shape)} and {tuple(cameras.Ks.shape)}"
        raise UserError(f"viewmats and Ks have shapes {shapes}; they must be [*b, c, 4, 4] and [*b, c, 3, 3]")
    if not camera_batch:
        raise UserError("viewmats and Ks need an axis of views; pass cameras.map(lambda tensor: tensor[None])")
    if 0 in camera_batch:
        raise UserError(f"cameras of shape {camera_batch} are none; there must be at least one")
    if camera_batch[:-1] != batch:
        raise UserError(f"batch axes {batch} of the splats and {camera_batch[:-1]} of the cameras must be the same")
    if cameras.width < 1 or cameras.height < 1:
        raise UserError(f"an image of {cameras.width} x {cameras.height} pixels is empty; give it a size")
    if not 0 < near < far:
        raise UserError(f"near = {near} and far = {far} make no interval; use 0 < near < far")
    devices = {splats.means.device, cameras.viewmats.device, cameras.Ks.device}
    if len(devices) > 1:
        raise UserError(f"splats and cameras lie on different devices {sorted(map(str, devices))}; move one of them")


def _rasterize(
    splats: Gaussians, cameras: Cameras, backend: Backend, near: float, far: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Pick the backend, and loop over batch elements where it takes none."""
    device = splats.means.device
    if backend == "auto":
        backend = "gsplat" if device.type == "cuda" else "cpu"
        if device.type not in ("cuda", "cpu"):
            _say_once(device.type)
    if backend == "gsplat":
        if device.type != "cuda":
            raise UserError(f"backend='gsplat' needs CUDA tensors, got {device}; move them or use backend='cpu'")
        from humansplat.render import gsplat_backend

        return gsplat_backend.rasterize(splats, cameras, near, far)
    if backend == "cpu":
        from humansplat.render import cpu_rasterizer

        rendered = _each(cpu_rasterizer.rasterize, splats.to("cpu"), cameras.to("cpu"), near, far)
        images, alphas, depths = (image.to(device) for image in rendered)
        return images, alphas, depths
    if backend == "reference":
        from humansplat.render import reference

        return _each(reference.rasterize, splats, cameras, near, far)
    raise UserError(f"there is no backend {backend!r}; choose auto, gsplat, cpu or reference")


@lru_cache
def _say_once(device_type: str) -> None:
    _log.warning("no rasterizer runs on %s devices; their splats are rendered on the CPU", device_type)


def _each(
    rasterize: Callable[[Gaussians, Cameras, float, float], tuple[Tensor, Tensor, Tensor]],
    splats: Gaussians,
    cameras: Cameras,
    near: float,
    far: float,
) -> tuple[Tensor, Tensor, Tensor]:
    """Call a rasterizer of one set of splats for every batch element."""
    batch = splats.opacities.shape[:-1]
    if not batch:
        return rasterize(splats, cameras, near, far)
    flat_splats = splats.map(lambda tensor: tensor.flatten(0, len(batch) - 1))
    flat_cameras = cameras.map(lambda tensor: tensor.flatten(0, len(batch) - 1))
    renders = [rasterize(flat_splats[i], flat_cameras[i], near, far) for i in range(batch.numel())]
    images, alphas, depths = (torch.stack(parts).unflatten(0, batch) for parts in zip(*renders, strict=True))
    return images, alphas, depths
