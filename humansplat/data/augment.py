"""Random changes of whole people on the training device: pictures, cameras and bodies together.

What is done to the given pictures alone is in ``humansplat.data.photo_noise``.
"""

from collections.abc import Callable
from dataclasses import replace

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from humansplat import draws
from humansplat.body.smpl import ROTATIONS
from humansplat.config import AugmentConfig
from humansplat.data.people import BodyTemplate, PeopleBatch
from humansplat.data.photo_noise import roughen
from humansplat.structures import Cameras, PosedBody

RIG_MIRRORED = (0, 3, 2, 1)
"""Mirroring turns the view from the person's left into the one from the right."""


def augment(
    batch: PeopleBatch, config: AugmentConfig, template: BodyTemplate, generator: torch.Generator
) -> PeopleBatch:
    """Draw and apply all random changes; no synchronisation with the device."""
    b = len(batch.people)
    if config.mirror > 0:
        batch = mirror(batch, draws.uniform(generator, b) < config.mirror, template)
    if config.gain > 0 or config.permute > 0:
        for_gain, for_order, for_keeping = draws.uniform(generator, b, 3, 3).unbind(1)
        gains = ((2 * for_gain - 1) * config.gain).exp()
        keep = for_keeping[:, :1] >= config.permute
        channels = torch.where(keep, torch.arange(3, device=keep.device), for_order.argsort(dim=1))
        batch = recolor(batch, gains, channels)
    if config.saturate > 0:
        batch = saturate(batch, 1 + config.saturate * draws.uniform(generator, b))
    return roughen(batch, config, generator)


def recolor(batch: PeopleBatch, gains: Float[Tensor, "b 3"], channels: Int[Tensor, "b 3"]) -> PeopleBatch:
    """Take the colour channels in another order, times ``gains``; inputs and targets alike.

    Alpha stays, so a background painted afterwards keeps its colour.
    """

    def paint(rgb: Float[Tensor, "b v 3 h w"]) -> Float[Tensor, "b v 3 h w"]:
        return rgb.gather(2, channels[:, None, :, None, None].expand_as(rgb)) * gains[:, None, :, None, None]

    return _repainted(batch, paint)


def saturate(batch: PeopleBatch, factors: Float[Tensor, " b"]) -> PeopleBatch:
    """Multiply what the colours of inputs and targets have beside their shade."""
    return _repainted(
        batch, lambda rgb: torch.lerp(rgb.mean(dim=2, keepdim=True), rgb, factors[:, None, None, None, None])
    )


def _repainted(batch: PeopleBatch, paint: Callable[[Tensor], Tensor]) -> PeopleBatch:
    """Change the colours [b, v, 3, h, w] of inputs and targets alike; alpha stays."""

    def change(pictures: Float[Tensor, "b v 4 h w"]) -> Float[Tensor, "b v 4 h w"]:
        return torch.cat([paint(pictures[:, :, :3]).clamp(0, 1), pictures[:, :, 3:]], dim=2)

    return replace(batch, images=change(batch.images), targets=change(batch.targets))


def mirror(batch: PeopleBatch, chosen: Bool[Tensor, " b"], template: BodyTemplate) -> PeopleBatch:
    """Swap left and right of the chosen people: the world is reflected in the plane ``x = 0``.

    Pictures are flipped and cameras reflected, so every point still projects onto its pixel. Vertices
    and joints also change places with their counterparts, so that vertex ``i`` remains the same point
    of the skin, and a body model given the mirrored parameters makes the mirrored body.
    """
    if batch.images.shape[1] not in (1, len(RIG_MIRRORED)):
        raise ValueError(f"mirroring needs one or all four views of the rig, got {batch.images.shape[1]}")
    rig, targets = _mirror_cameras(batch, chosen)
    return replace(
        batch,
        images=_select(chosen, mirrored_pictures(batch.images), batch.images),
        cameras=rig,
        targets=_select(chosen, batch.targets.flip(-1), batch.targets),
        target_cameras=targets,
        body=_mirror_body(batch.body, chosen, template),
        mirrored=chosen,
    )


def mirrored_pictures(images: Float[Tensor, "b v 4 h w"]) -> Float[Tensor, "b v 4 h w"]:
    """The rig's pictures, or the photograph alone, of the reflected person."""
    flipped = images.flip(-1)
    return _mirror_rig(flipped) if flipped.shape[1] > 1 else flipped


def reflect_cameras(cameras: Cameras) -> Cameras:
    """Cameras that see the reflected world flipped: with ``S = diag(-1, 1, 1)``, ``S R S`` and ``S t``.

    The camera frame is reflected with the world, so the rotation stays proper; the principal point
    and the skew follow the flipped picture.
    """
    viewmats = cameras.viewmats.clone()
    viewmats[..., 0, 1:] *= -1
    viewmats[..., 1:, 0] *= -1
    Ks = cameras.Ks.clone()
    Ks[..., 0, 1] = -cameras.Ks[..., 0, 1]
    Ks[..., 0, 2] = cameras.width - cameras.Ks[..., 0, 2]
    return replace(cameras, viewmats=viewmats, Ks=Ks)


def _mirror_cameras(batch: PeopleBatch, chosen: Bool[Tensor, " b"]) -> tuple[Cameras, Cameras]:
    """The rig's and the targets' cameras, all at once."""
    own, targets = batch.cameras, batch.target_cameras
    order = [*RIG_MIRRORED]
    sides, mats, Ks = [len(order), targets.Ks.shape[1]], [own.viewmats, targets.viewmats], [own.Ks, targets.Ks]
    turned = [torch.cat([*(x[:, v, None] for v in order), y], dim=1) for x, y in (mats, Ks)]
    reflected = reflect_cameras(replace(own, viewmats=turned[0], Ks=turned[1]))
    viewmats = _select(chosen, reflected.viewmats, torch.cat(mats, dim=1)).split(sides, dim=1)
    all_Ks = _select(chosen, reflected.Ks, torch.cat(Ks, dim=1)).split(sides, dim=1)
    return replace(own, viewmats=viewmats[0], Ks=all_Ks[0]), replace(targets, viewmats=viewmats[1], Ks=all_Ks[1])


def _mirror_body(body: PosedBody, chosen: Bool[Tensor, " b"], template: BodyTemplate) -> PosedBody:
    joints = _select(chosen, _reflect(body.joints[:, template.mirrored_joints]), body.joints)
    parameters = dict(body.parameters or {})
    if body.model in ROTATIONS and parameters:
        parameters |= _mirror_smpl(parameters, joints[:, 0] - body.joints[:, 0], chosen, template, body.model)
    if "rotations" in parameters:
        turned = _mirror_turns(parameters["rotations"], template)
        parameters["rotations"] = _select(chosen, turned, parameters["rotations"])
    if "translation" in parameters:
        parameters["translation"] = _select(chosen, _reflect(parameters["translation"]), parameters["translation"])
    return replace(
        body,
        vertices=_select(chosen, _reflect(body.vertices[:, template.mirrored_vertices]), body.vertices),
        joints=joints,
        parameters=parameters,
    )


def _mirror_turns(turns: Float[Tensor, "b j 3"], template: BodyTemplate) -> Float[Tensor, "b j 3"]:
    """Rotations of the mirrored body; axis-angle vectors are axial: a reflection keeps x and negates y and z."""
    return -_reflect(turns[:, template.mirrored_joints])


def _mirror_smpl(
    parameters: dict[str, Tensor],
    pelvis_shift: Float[Tensor, "b 3"],
    chosen: Bool[Tensor, " b"],
    template: BodyTemplate,
    model: str,
) -> dict[str, Tensor]:
    """The SMPL family keeps its rotations in several parameters, and adds ``transl`` to the shape's own pelvis."""
    turns = torch.cat([parameters[name] for name in ROTATIONS[model]], dim=-1).unflatten(-1, (-1, 3))
    turns = _select(chosen, _mirror_turns(turns, template), turns).flatten(-2)
    parts = turns.split([3 * joints for joints in ROTATIONS[model].values()], dim=-1)
    return {**dict(zip(ROTATIONS[model], parts, strict=True)), "transl": parameters["transl"] + pelvis_shift}


# Slices instead of small constant tensors: making those on a GPU waits for all work queued there.


def _reflect(points: Float[Tensor, "*batch 3"]) -> Float[Tensor, "*batch 3"]:
    return torch.cat([-points[..., :1], points[..., 1:]], dim=-1)


def _mirror_rig(views: Tensor) -> Tensor:
    return torch.stack([views[:, view] for view in RIG_MIRRORED], dim=1)


def _select(chosen: Bool[Tensor, " b"], yes: Tensor, no: Tensor) -> Tensor:
    return torch.where(chosen.view(-1, *[1] * (no.ndim - 1)), yes, no)
