"""The views that a view model learns to make: the rig's, or others at their own azimuths and elevations.

A network that has seen four right angles only takes an angle for the name of a view. So some people's unseen views are
exchanged for novel ones (synthetic people: any azimuth, 10 degrees from below to 30 from above) or others of the ring
of whole bodies (prepared scans: level, in steps of 10 degrees). Their framing is not the photograph's, and a network
that is told angles alone could not know it: each is cut anew as the photograph's camera would have it from there.
"""

import math
from dataclasses import replace

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from humansplat.data.crops import Framing, reframe
from humansplat.data.people import PeopleBatch
from humansplat.geometry.projection import elevations, project
from humansplat.metrics.views import bearings
from humansplat.models.autoencoder import on_white
from humansplat.structures import Cameras, TensorStruct


class TrainingViews(TensorStruct):
    """Pictures before white, and where they were taken from; the photograph is the first."""

    pictures: Float[Tensor, "b v 3 h w"]
    azimuths: Float[Tensor, "b v"]
    """From the photograph's, radians."""
    elevations: Float[Tensor, "b v"]
    """Radians."""


class EncodedViews(TensorStruct):
    """What a training step needs of the same views."""

    latents: Float[Tensor, "b v c g g2"]
    """Clean."""
    photo: Float[Tensor, "b 3 h w"]
    azimuths: Float[Tensor, "b v"]
    elevations: Float[Tensor, "b v"]

    @property
    def told(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """The photo's latent, the photo and where the views are: what a denoiser knows beside the noised ones."""
        return self.latents[:, 0], self.photo, self.azimuths, self.elevations


def rig_views(batch: PeopleBatch) -> TrainingViews:
    """The photograph and the three views orthogonal to it."""
    up = elevations(batch.cameras)
    return TrainingViews(pictures=on_white(batch.images), azimuths=quarters(up), elevations=up)


def quarters(like: Float[Tensor, "b v"]) -> Float[Tensor, "b v"]:
    """Azimuths of the rig's views, radians."""
    return (torch.arange(like.shape[1], device=like.device) * (math.pi / 2)).expand_as(like)


def turned_views(views: TrainingViews, turns: Int[Tensor, " b"]) -> TrainingViews:
    """The same views with another one as the photograph.

    The rig's are quarters apart, so that azimuths, which count from the photograph, stay as they are.

    Args:
        views: Of the rig, where people are turned.
        turns: Which of each person's views becomes the first; 0 leaves them alone.
    """
    pictures, up = (beginning_at(turns, values) for values in (views.pictures, views.elevations))
    return replace(views, pictures=pictures, elevations=up)


def beginning_at(first: Int[Tensor, " b"], values: Float[Tensor, "b v *rest"]) -> Float[Tensor, "b v *rest"]:
    """Each person's views in the same order around, from another one on."""
    count = values.shape[1]
    order = (torch.arange(count, device=first.device) + first[:, None]) % count
    return values[torch.arange(len(order), device=first.device)[:, None], order]


def jittered_views(batch: PeopleBatch, chosen: Bool[Tensor, " b"]) -> TrainingViews:
    """The same, but for the chosen people the batch's three targets in their order around the person.

    Args:
        batch: All four views of the rig, and three targets of the whole person.
        chosen: Whose views are exchanged.
    """
    rig, targets = rig_views(batch), batch.target_cameras
    azimuth = bearings(batch.cameras[:, 0], targets, batch.body.joints[:, 0]).remainder(2 * math.pi)
    order = azimuth.argsort(dim=1)  # as in the rig: the network knows views by their places, too
    row = torch.arange(len(order), device=order.device)[:, None]
    pictures = framed_as_photo(batch)[row, order]
    some = chosen[:, None]
    unseen = {
        "pictures": torch.where(some[..., None, None, None], pictures, rig.pictures[:, 1:]),
        "azimuths": torch.where(some, azimuth[row, order], rig.azimuths[:, 1:]),
        "elevations": torch.where(some, elevations(targets)[row, order], rig.elevations[:, 1:]),
    }
    photo = rig.map(lambda values: values[:, :1])
    return replace(photo, **{name: torch.cat([getattr(photo, name), values], 1) for name, values in unseen.items()})


def framed_as_photo(batch: PeopleBatch) -> Float[Tensor, "b t 3 h w"]:
    """The targets before white, cut so that the person's root lies where, and as large as, in the photograph."""
    count = batch.targets.shape[1]
    photo, scale = _root_in(batch.cameras[:, :1], batch)
    source, size = _root_in(batch.target_cameras, batch)
    ratio = (scale / size).flatten()
    framing = Framing(
        scale=ratio,
        roll=torch.zeros_like(ratio),
        source=source.flatten(0, 1),
        target=photo.repeat_interleave(count, 0)[:, 0],
    )
    pictures = torch.cat([on_white(batch.targets), batch.targets[:, :, 3:]], dim=2)
    return reframe(pictures.flatten(0, 1), framing)[:, :3].unflatten(0, batch.targets.shape[:2])


def _root_in(cameras: Cameras, batch: PeopleBatch) -> tuple[Float[Tensor, "b t 2"], Float[Tensor, "b t"]]:
    """Where the root joint is seen, fractions of the picture, and how large a metre is there."""
    root = batch.body.joints[:, None, :1].expand(-1, cameras.viewmats.shape[1], -1, -1)
    pixel, depth = project(root, cameras.viewmats, cameras.Ks)
    size = torch.stack([pixel[..., 0, 0] / cameras.width, pixel[..., 0, 1] / cameras.height], dim=-1)
    return size, cameras.Ks[..., 0, 0] / cameras.width / depth[..., 0]
