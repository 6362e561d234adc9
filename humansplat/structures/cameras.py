"""Pinhole cameras that share one image size."""

import torch
from jaxtyping import Float
from torch import Tensor

from humansplat.structures.base import TensorStruct


class Cameras(TensorStruct):
    """OpenCV pinhole cameras (+X right, +Y down, +Z forward).

    Field names match the arguments of ``gsplat.rasterization``.
    """

    viewmats: Float[Tensor, "*batch 4 4"]
    """World -> camera, acting on column vectors; the rotation part is orthonormal."""
    Ks: Float[Tensor, "*batch 3 3"]
    """Intrinsics in pixels; pixel ``(i, j)`` covers ``[j, j + 1) x [i, i + 1)``."""
    width: int
    """Image width, pixels."""
    height: int
    """Image height, pixels."""

    @property
    def centers(self) -> Float[Tensor, "*batch 3"]:
        """Camera centres, world frame, metres."""
        rotation, translation = self.viewmats[..., :3, :3], self.viewmats[..., :3, 3]
        return -(rotation.mT @ translation[..., None])[..., 0]

    def resized(self, width: int, height: int) -> "Cameras":
        """The same cameras looking through an image of another size."""
        x, y, w = self.Ks.split(1, dim=-2)
        Ks = torch.cat([x * (width / self.width), y * (height / self.height), w], dim=-2)
        return Cameras(viewmats=self.viewmats, Ks=Ks, width=width, height=height)
