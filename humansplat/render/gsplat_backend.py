"""Rendering by gsplat's CUDA kernels."""

import logging
from functools import lru_cache

import torch
from jaxtyping import Float
from torch import Tensor

from humansplat.errors import UserError
from humansplat.structures import Cameras, Gaussians

_log = logging.getLogger(__name__)


def rasterize(
    splats: Gaussians, cameras: Cameras, near: float, far: float
) -> tuple[Float[Tensor, "*b c h w 3"], Float[Tensor, "*b c h w"], Float[Tensor, "*b c h w"]]:
    """Render splats from several cameras in one call, in float32.

    Args:
        splats: ``[*b, n]``, on a CUDA device.
        cameras: ``[*b, c]``, on the same device.
        near: Nearest visible depth of a centre, metres.
        far: Farthest visible depth of a centre, metres.

    Returns:
        Premultiplied colours, alphas, and the sum of depth times weight.

    Raises:
        UserError: If gsplat is not installed, or its CUDA kernels can neither be loaded nor built.
    """
    if splats.num_splats == 0:  # gsplat 1.5 divides by their number
        shape = (*cameras.viewmats.shape[:-2], cameras.height, cameras.width)
        empty = splats.means.new_zeros(*shape, 5, dtype=torch.float32)
        return empty[..., :3], empty[..., 3], empty[..., 4]
    _require_kernels()
    from gsplat import rasterization

    channels, alphas, _ = rasterization(
        splats.means.float(),
        splats.quats.float(),
        splats.scales.float(),
        splats.opacities.float(),
        splats.colors.float(),
        cameras.viewmats.float(),
        cameras.Ks.float(),
        cameras.width,
        cameras.height,
        near_plane=near,
        far_plane=far,
        packed=False,
        render_mode="RGB+D",
        rasterize_mode="classic",
    )
    return channels[..., :3], alphas[..., 0], channels[..., 3]


@lru_cache(maxsize=1)
def _require_kernels() -> None:
    """Load gsplat's CUDA kernels, building them if they are not built yet.

    Raises:
        UserError: With the remedy, if that fails.
    """
    if not torch.cuda.is_available():
        raise UserError("backend='gsplat' needs a CUDA device and there is none; use backend='cpu'")
    remedy = (
        "install torch's version of the CUDA toolkit (nvcc) or a wheel of gsplat with kernels, or use backend='cpu'"
    )
    _log.info("loading gsplat; its CUDA kernels are compiled at the first use, which takes minutes")
    try:
        from gsplat.cuda._backend import _C
    except ModuleNotFoundError as error:
        raise UserError(f"{error}: run pip install gsplat, or use backend='cpu'") from error
    except (ImportError, OSError, RuntimeError) as error:
        raise UserError(f"gsplat's CUDA kernels could not be built ({error}); {remedy}") from error
    if _C is None:
        raise UserError(f"gsplat found no CUDA toolkit to build its kernels with; {remedy}")
