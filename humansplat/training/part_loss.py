"""The hierarchical semantic loss: the body's parts, each compared at several resolutions (HumanSplat, Eq. 5).

    L_H = 1/n 1/m  sum over levels i and parts j of  l_i l_j ( MSE(I_ij, I'_ij) + l_p L_p(I_ij, I'_ij) )

averaged over the pictures, with m = 24 parts, n levels, and l_j = 2 for head, hands and arms. Parts are found in part
maps of the true body, so that only what is seen counts. Head and hands get cameras of their own; the other parts are
cropped out of the pictures that are rendered anyway. A step takes a random choice of crops whose sum expects that
over all of them.

Crops are made once, at the finest level, and averaged down for the others: that is what the truth's pixels are, too,
and a render a level would project all splats once more for each.
"""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from humansplat.body.parts import NUM_PARTS
from humansplat.config import HierarchicalConfig
from humansplat.data.people import PeopleBatch
from humansplat.models.autoencoder import on_white
from humansplat.render import render_gaussians
from humansplat.render.body_maps import SurfaceSamples, rasterize_parts, sample_surface
from humansplat.structures import Cameras, Gaussians, PosedBody, TensorStruct
from humansplat.training.part_boxes import (
    NUM_CAMERA_REGIONS,
    RegionBoxes,
    as_enlarged,
    choose,
    find_regions,
    region_weights,
    resample,
    zoomed,
)

NUM_POINTS = 32_768
"""On the body's surface, for the part maps: boxes need fewer than the transformer's body maps."""


class Crops(TensorStruct):
    """Pairs of crops at the finest level."""

    renders: Float[Tensor, "b k 3 r r"]
    truths: Float[Tensor, "b k 3 r r"]
    weights: Float[Tensor, "b k"]
    """The parts' weights times what makes the chosen crops stand for all; 0 for crops that show nothing."""


class PartLoss(nn.Module):
    """Eq. 5 of HumanSplat for a batch of people.

    Args:
        config: Its ``weight`` multiplies all.
        perceptual: Distance of two stacks of pictures, or ``None``.
    """

    members: Tensor

    def __init__(self, config: HierarchicalConfig, perceptual: nn.Module | None) -> None:
        super().__init__()
        self.config, self.perceptual = config, perceptual
        self.register_buffer("members", region_weights(), persistent=False)
        self._samples: dict[tuple[str, int, torch.device], SurfaceSamples] = {}

    def forward(
        self, splats: Gaussians, pictures: Float[Tensor, "b t 3 h w"], batch: PeopleBatch, generator: torch.Generator
    ) -> dict[str, Tensor]:
        """Weighted terms ``parts`` and, with a perceptual distance, ``parts_perceptual``.

        Args:
            splats: ``[b]``.
            pictures: Renders of the splats by the targets' cameras, before white.
            batch: With the true bodies.
            generator: Of the choice of crops.
        """
        config, device = self.config, pictures.device.type
        with torch.autocast(device, enabled=False):
            crops = self.crops(splats.map(Tensor.float), pictures.float(), batch, generator)
            terms = {"parts": self._squared(crops)}
        if self.perceptual is not None and config.perceptual_weight > 0:
            terms["parts_perceptual"] = config.perceptual_weight * self._perceptual(crops, generator)
        num_pictures = pictures.shape[0] * pictures.shape[1]
        scale = config.weight / (len(config.levels) * NUM_PARTS * num_pictures)
        return {name: scale * value for name, value in terms.items()}

    def regions(self, body: PosedBody, cameras: Cameras) -> RegionBoxes:
        """Boxes of the parts of bodies ``[b]`` in pictures ``[b, t]``."""
        config = self.config
        maps = rasterize_parts(body, cameras, self._surface(body), size=config.map_size)
        return find_regions(maps, self.members, cameras.width, margin=config.margin, min_pixels=config.min_pixels)

    def crops(
        self, splats: Gaussians, pictures: Float[Tensor, "b t 3 h w"], batch: PeopleBatch, generator: torch.Generator
    ) -> Crops:
        """The pairs that a step compares: those by their own cameras first."""
        config, resolution = self.config, self.config.levels[-1]
        boxes, truth = self.regions(batch.body, batch.target_cameras), on_white(batch.targets)
        own, other = _split(boxes)
        view, own = _chosen(own, config.camera_crops, generator)
        cameras = _gather_cameras(batch.target_cameras, view)
        seen = render_gaussians(splats, zoomed(cameras, own.corners, own.sides, resolution)).colors.movedim(-1, 2)
        if config.match_sharpness:
            seen = as_enlarged(seen, own.corners, own.sides, pictures.shape[-1])
        own_truth = resample(_gather_pictures(truth, view), own.corners, own.sides, resolution)
        view, other = _chosen(other, config.part_crops, generator)
        cut, other_truth = (
            resample(_gather_pictures(source, view), other.corners, other.sides, resolution)
            for source in (pictures, truth)
        )
        return Crops(
            renders=torch.cat([seen, cut], dim=1),
            truths=torch.cat([own_truth, other_truth], dim=1),
            weights=torch.cat([own.weights, other.weights], dim=1),
        )

    def _levels(self, crops: Crops) -> list[tuple[float, Tensor, Tensor]]:
        """Weight, renders and truths ``[n, 3, r, r]`` of each level."""
        config, renders, truths = self.config, crops.renders.flatten(0, 1), crops.truths.flatten(0, 1)
        weights = config.level_weights or (1.0,) * len(config.levels)
        steps = [config.levels[-1] // resolution for resolution in config.levels]
        return [
            (weight, F.avg_pool2d(renders, step), F.avg_pool2d(truths, step))
            for weight, step in zip(weights, steps, strict=True)
        ]

    def _squared(self, crops: Crops) -> Tensor:
        weights, total = crops.weights.flatten(), crops.weights.new_zeros(())
        for level_weight, renders, truths in self._levels(crops):
            squared = (renders - truths).square().mean(dim=(1, 2, 3))
            total = total + level_weight * (weights * squared).sum()
        return total

    def _perceptual(self, crops: Crops, generator: torch.Generator) -> Tensor:
        assert self.perceptual is not None
        places, weights = choose(crops.weights, self.config.perceptual_crops, generator)
        rows = torch.arange(len(places), device=places.device)[:, None]
        some = Crops(renders=crops.renders[rows, places], truths=crops.truths[rows, places], weights=weights)
        total = weights.new_zeros(())
        for level_weight, renders, truths in self._levels(some):
            total = total + level_weight * (weights.flatten() * self.perceptual(renders, truths)).sum()
        return total

    def _surface(self, body: PosedBody) -> SurfaceSamples:
        key = (body.model, body.vertices.shape[-2], body.vertices.device)
        if key not in self._samples:
            self._samples[key] = sample_surface(body.canonical, body.faces, NUM_POINTS)
        return self._samples[key]


def _split(boxes: RegionBoxes) -> tuple[RegionBoxes, RegionBoxes]:
    """Regions with cameras of their own, and the others."""
    count = NUM_CAMERA_REGIONS
    first = RegionBoxes(
        corners=boxes.corners[..., :count, :], sides=boxes.sides[..., :count], weights=boxes.weights[..., :count]
    )
    return first, RegionBoxes(
        corners=boxes.corners[..., count:, :], sides=boxes.sides[..., count:], weights=boxes.weights[..., count:]
    )


def _chosen(boxes: RegionBoxes, count: int, generator: torch.Generator) -> tuple[Tensor, RegionBoxes]:
    """So many of the boxes ``[b, t, r]`` of each person that show something, ``[b, k]``, and their views."""
    places, weights = choose(boxes.weights.flatten(1), count, generator)
    corners = boxes.corners.flatten(1, 2).gather(1, places[..., None].expand(-1, -1, 2))
    chosen = RegionBoxes(corners=corners, sides=boxes.sides.flatten(1).gather(1, places), weights=weights)
    return places // boxes.weights.shape[-1], chosen


def _gather_cameras(cameras: Cameras, view: Tensor) -> Cameras:
    """Cameras ``[b, k]`` of the views ``[b, k]``."""
    rows = torch.arange(len(view), device=view.device)[:, None]
    return cameras.map(lambda tensor: tensor[rows, view])


def _gather_pictures(pictures: Tensor, view: Tensor) -> Tensor:
    """Pictures ``[b, k, ...]`` of the views ``[b, k]``."""
    rows = torch.arange(len(view), device=view.device)[:, None] * pictures.shape[1]
    return pictures.flatten(0, 1).index_select(0, (rows + view).flatten()).unflatten(0, view.shape)
