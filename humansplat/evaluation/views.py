"""What a model is given of the unseen sides, and what it renders."""

from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from humansplat.errors import UserError
from humansplat.evaluation.subjects import Subject
from humansplat.metrics.views import SIDES
from humansplat.models.autoencoder import on_white
from humansplat.pipelines.preview import labelled, side_by_side
from humansplat.pipelines.reconstructor import Reconstructor, batched
from humansplat.render import render_gaussians

GivenViews = Literal["auto", "none", "diffusion", "true"]


def given_views(reconstructor: Reconstructor, views: GivenViews) -> GivenViews:
    """What ``auto`` means for these weights: a photo's reconstruction, or with neither way to make one its limit.

    Raises:
        UserError: If the weights do not allow these views.
    """
    weights = reconstructor.weights
    if views == "auto":
        if weights.photo_alone:
            return "none"
        return "diffusion" if weights.has_view_model else "true"
    if views == "true" and weights.num_inputs == 1:
        raise UserError(f"the weights {weights.name!r} take the photo's latent alone; use --views none")
    if views != "true":
        reconstructor.check_views(views)
    return views


def render_views(
    reconstructor: Reconstructor, subject: Subject, views: GivenViews = "none"
) -> Float[Tensor, "t 4 s s"]:
    """The model's novel views before white, and their coverage."""
    cameras = subject.cameras.map(lambda tensor: tensor[None])
    latents = None
    if views == "true":
        latents = reconstructor.encode(subject.rig[None])
    elif views == "diffusion":
        latents = reconstructor.view_latents(on_white(subject.image), subject.cameras[0])
    splats = reconstructor.splats(subject.image[None], cameras, batched(subject.body), latents)[0]
    rendered = render_gaussians(splats, subject.target_cameras.to(splats.means.device))
    return torch.cat([rendered.colors.movedim(-1, 1).clamp(0, 1), rendered.alphas[:, None]], dim=1).cpu()


def sheet_row(reconstructor: Reconstructor, subject: Subject, views: GivenViews, label: str) -> Float[Tensor, "3 h w"]:
    """The input, then truth and render of one novel view of each side."""
    renders, sides = render_views(reconstructor, subject, views), subject.sides
    tiles = [on_white(subject.image)]
    for side in SIDES:
        index = sides.index(side) if side in sides else None
        pair = [torch.ones_like(tiles[0])] * 2  # no such view: two blank tiles keep the columns
        if index is not None:
            pair = [on_white(subject.targets[index]), renders[index, :3]]
        tiles.extend(pair)
    return labelled(side_by_side(tiles), f"{label}   input | truth, render: {', '.join(SIDES)}")
