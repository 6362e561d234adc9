"""The 3D Gaussians that every stage of the library passes around."""

from collections.abc import Sequence
from pathlib import Path

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from humansplat.structures.base import TensorStruct


class Gaussians(TensorStruct):
    """Splats in *render* space: activations are already applied.

    Log-scales, opacity logits and SH coefficients exist only inside
    ``humansplat.io.splats``, where a file format asks for them. Field names match the
    arguments of ``gsplat.rasterization``.
    """

    means: Float[Tensor, "*batch n 3"]
    """Centres, world frame, metres."""
    quats: Float[Tensor, "*batch n 4"]
    """Unit quaternions ``(w, x, y, z)``, local -> world."""
    scales: Float[Tensor, "*batch n 3"]
    """Standard deviations along the local axes, metres, > 0."""
    opacities: Float[Tensor, "*batch n"]
    """In ``[0, 1]``."""
    colors: Float[Tensor, "*batch n 3"]
    """sRGB in ``[0, 1]``."""

    @property
    def num_splats(self) -> int:
        """Number of splats of one batch element."""
        return self.means.shape[-2]

    def where(self, keep: Bool[Tensor, " n"]) -> "Gaussians":
        """Keep the splats selected by a boolean mask.

        Raises:
            ValueError: If the record is batched; a mask would leave ragged batches.
        """
        if self.means.ndim != 2:
            raise ValueError(f"where() needs unbatched Gaussians, got batch axes {tuple(self.means.shape[:-2])}")
        return self.map(lambda tensor: tensor[keep])

    def save(self, path: str | Path) -> None:
        """Write a splat file; the suffix picks the format (see ``humansplat.io.splats``).

        Raises:
            ValueError: If the suffix names no supported format, or the record is batched.
        """
        from humansplat.io.splats import write_splats

        write_splats(self, Path(path))

    @staticmethod
    def load(path: str | Path) -> "Gaussians":
        """Read a splat file (see ``humansplat.io.splats``).

        Raises:
            ValueError: If the file is not a splat file that can be read.
            FileNotFoundError: If there is no such file.
        """
        from humansplat.io.splats import read_splats

        return read_splats(Path(path))


def concatenate(parts: Sequence[Gaussians]) -> Gaussians:
    """Join splats along the splat axis, e.g. body and clothing."""
    return Gaussians(
        means=torch.cat([part.means for part in parts], dim=-2),
        quats=torch.cat([part.quats for part in parts], dim=-2),
        scales=torch.cat([part.scales for part in parts], dim=-2),
        opacities=torch.cat([part.opacities for part in parts], dim=-1),
        colors=torch.cat([part.colors for part in parts], dim=-2),
    )
