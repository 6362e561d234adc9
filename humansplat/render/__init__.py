"""Pictures of Gaussians and of meshes.

``render_gaussians`` and ``RenderedImages`` are loaded when first asked for, numba and gsplat when first used.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from humansplat.render.gaussians import RenderedImages, render_gaussians

__all__ = ["RenderedImages", "render_gaussians"]


def __getattr__(name: str) -> object:
    if name in __all__:
        from humansplat.render import gaussians

        return getattr(gaussians, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
