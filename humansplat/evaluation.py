"""How well a model does on people whose every side is known.

For each person the model sees view 0 alone; its splats are rendered from the novel views (of scans: the ring around
the whole body) and compared with the true pictures, before white. ``front``, ``side`` and ``back`` are the novel
views less than 45, between 45 and 135, and more than 135 degrees from view 0. With fitted bodies the pose and shape
come from view 0 as they would from a photograph; how far away the person stands, which one picture cannot tell, and
the camera are taken from the truth, so that the novel views can be compared at all. Scans whose body is flagged are
left out: there is no truth to take these from.
"""

import json
import logging
import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor
from tqdm import tqdm

from humansplat.capture.capture import Capture, capture_person
from humansplat.data.format import read_cameras, read_manifest
from humansplat.data.person_files import load_person
from humansplat.data.rig import NUM_RIG_VIEWS
from humansplat.errors import UserError
from humansplat.geometry.projection import project, to_camera, unproject
from humansplat.geometry.rotations import axis_angle_to_matrix
from humansplat.io.atomic import replacing
from humansplat.io.images import to_bytes, write_png
from humansplat.metrics.image import crop, psnr, silhouette_iou, ssim
from humansplat.metrics.views import MAX_PSNR, SIDES, bearings, person_box, sides
from humansplat.models.autoencoder import on_white
from humansplat.pipelines.preview import labelled, side_by_side, stacked
from humansplat.pipelines.reconstructor import Reconstructor, batched
from humansplat.render import render_gaussians
from humansplat.structures import Cameras, PosedBody

logger = logging.getLogger(__name__)

Bodies = Literal["fitted", "true"]
METRICS = ("psnr", "ssim", "silhouette_iou", "psnr_box", "ssim_box")
DIGITS = 4
SHEET_PEOPLE = 4
"""Best and worst people on the contact sheet, each."""


@dataclass(frozen=True, kw_only=True)
class Subject:
    """One person as the evaluation sees it."""

    name: str
    image: Float[Tensor, "4 s s"]
    """What the model sees."""
    cameras: Cameras
    """The four views of the rig."""
    targets: Float[Tensor, "t 4 s s"]
    """Novel views, straight alpha."""
    target_cameras: Cameras
    body: PosedBody
    """Unbatched; true or fitted."""

    def sides(self) -> list[str]:
        """Front, side or back, of each novel view."""
        bearing = bearings(self.cameras[0], self.target_cameras, self.body.joints[0])
        return [SIDES[side] for side in sides(bearing).tolist()]


def evaluate(
    reconstructor: Reconstructor,
    data: Path,
    out: Path,
    *,
    bodies: Bodies = "fitted",
    limit: int | None = None,
    progress: bool = True,
) -> dict[str, object]:
    """Score a model on a folder of people; write ``metrics.json`` and ``contact_sheet.png``.

    Args:
        reconstructor: The model.
        data: A folder that ``humansplat synthesize`` or ``prepare`` wrote.
        out: Folder for the two files; the same inputs give the same bytes.
        bodies: ``fitted`` from view 0, or ``true``.
        limit: Only the first so many people.
        progress: Show a bar on stderr.

    Returns:
        The content of ``metrics.json``.

    Raises:
        UserError: If the folder holds no people with novel views, all are flagged, or no body could be fitted.
    """
    names, flagged = _people(data)
    names = names[:limit]
    scores: dict[str, list[dict[str, float]]] = {}
    sides: dict[str, list[str]] = {}
    failed: dict[str, str] = {}
    fitted: dict[str, PosedBody] = {}
    for name in tqdm(names, "evaluate", unit="person", disable=not progress):
        subject = read_subject(reconstructor, data / name)
        if bodies == "fitted":
            try:
                subject = replace(subject, body=fit_subject(reconstructor, subject))
            except UserError as error:
                failed[name] = str(error)
                logger.warning("%s: %s", name, error)
                continue
            fitted[name] = subject.body
        scores[name] = score_views(subject, render_views(reconstructor, subject))
        sides[name] = subject.sides()
    if not scores:
        raise UserError(f"no body could be fitted to any of the {len(names)} people of {data}; try --bodies true")
    metrics = summary(scores, sides) | {
        "bodies": bodies,
        "model": {"name": Path(reconstructor.weights.name).name, "sha256": reconstructor.weights.sha256},
        "failed": failed,
        "flagged": flagged,
    }
    ranked = sorted(scores, key=lambda name: (-_mean(scores[name], "psnr"), name))
    best, worst = ranked[:SHEET_PEOPLE], ranked[SHEET_PEOPLE:][-SHEET_PEOPLE:]
    rows = []
    for name in [*best, *worst]:
        subject = read_subject(reconstructor, data / name)
        subject = replace(subject, body=fitted.get(name, subject.body))
        rows.append(sheet_row(reconstructor, subject, f"{name}  {_mean(scores[name], 'psnr'):.2f} dB"))
    write_png(to_bytes(stacked(rows)), out / "contact_sheet.png")
    with replacing(out / "metrics.json") as temporary:
        temporary.write_text(json.dumps(metrics, indent=1, sort_keys=True) + "\n", encoding="utf-8", newline="\n")
    return metrics


def _people(data: Path) -> tuple[list[str], list[str]]:
    """Names of those who are scored, and of those whose body is flagged."""
    lines = read_manifest(data)
    flagged = [str(line["name"]) for line in lines if line.get("flags")]
    names = [str(line["name"]) for line in lines if not line.get("flags")]
    if not lines:
        raise UserError(f"{data} lists no people; synthesize or prepare some, or give another folder")
    if not names:
        raise UserError(f"all {len(flagged)} people of {data} have flagged bodies; meta.json of each says why")
    if flagged:
        logger.warning("left out %d of %d people, whose bodies are flagged", len(flagged), len(lines))
    return names, flagged


def read_subject(reconstructor: Reconstructor, folder: Path) -> Subject:
    """Read one person at the model's image size, with the true body.

    Raises:
        UserError: If a file is missing or broken, or the person has no novel views.
    """
    person = load_person(folder, reconstructor.body_model.pose({}), reconstructor.weights.image_size)
    _, roles = read_cameras(folder / "cameras.json")
    compared = [index for index, role in enumerate(roles) if role in ("novel", "whole")]
    novel = torch.tensor(compared, dtype=torch.int64)
    if not len(novel):
        raise UserError(f"{folder} has no novel views to compare with; synthesize people with some")
    images = person.images.float() / 255
    return Subject(
        name=folder.name,
        image=images[0],
        cameras=person.cameras[:NUM_RIG_VIEWS],
        targets=images[novel],
        target_cameras=person.cameras[novel],
        body=person.body,
    )


def fit_subject(reconstructor: Reconstructor, subject: Subject) -> PosedBody:
    """The body fitted to view 0, at the true distance from the true camera.

    Raises:
        UserError: If nobody is found in the picture.
    """
    capture = capture_person(subject.image, size=reconstructor.weights.image_size)
    fit = reconstructor.fit(capture)
    return moved(fit.body, fit.camera, capture, subject.body, subject.cameras[0])


def moved(body: PosedBody, camera: Cameras, capture: Capture, truth: PosedBody, true_camera: Cameras) -> PosedBody:
    """Carry a fitted body from its own world into the true one, so that it stays where it is in the picture.

    Its root goes along the true camera's ray to the true root's depth, its size follows, and the whole turns
    as that ray is turned against the one it was fitted on.

    Args:
        body: Fitted, unbatched.
        camera: The camera that it was fitted with, of the crop.
        capture: The crop.
        truth: For the depth of its root.
        true_camera: Of the picture that was cropped.
    """
    root = to_camera(body.joints[:1], camera.viewmats)[0]
    crop_pixel, _ = project(body.joints[:1], camera.viewmats, camera.Ks)
    pixel = crop_pixel @ capture.crop_to_photo[:, :2].mT + capture.crop_to_photo[:, 2]
    depth = to_camera(truth.joints[:1], true_camera.viewmats)[:, 2]
    place = unproject(pixel, depth, true_camera.viewmats, true_camera.Ks)
    true_root = to_camera(place, true_camera.viewmats)[0]
    focal = camera.Ks[0, 0] * capture.crop_to_photo[0, 0]
    scale = (depth[0] / true_camera.Ks[0, 0]) / (root[2] / focal)
    turn = rotation_between(root, true_root)
    to_world = true_camera.viewmats[:3, :3].mT @ turn @ camera.viewmats[:3, :3]

    def carry(points: Float[Tensor, "n 3"]) -> Float[Tensor, "n 3"]:
        return place + scale * (points - body.joints[0]) @ to_world.mT

    return replace(body, vertices=carry(body.vertices), joints=carry(body.joints), parameters=None)


def rotation_between(a: Float[Tensor, "3"], b: Float[Tensor, "3"]) -> Float[Tensor, "3 3"]:
    """The smallest rotation that takes the direction of ``a`` to that of ``b``; they must not be opposite."""
    axis = torch.linalg.cross(a, b)
    angle = torch.atan2(axis.norm(), a @ b)
    return axis_angle_to_matrix(axis / axis.norm().clamp(min=1e-12) * angle)


def render_views(reconstructor: Reconstructor, subject: Subject) -> Float[Tensor, "t 4 s s"]:
    """The model's novel views before white, and their coverage."""
    cameras = subject.cameras.map(lambda tensor: tensor[None])
    splats = reconstructor.splats(subject.image[None], cameras, batched(subject.body))[0]
    rendered = render_gaussians(splats, subject.target_cameras.to(splats.means.device))
    return torch.cat([rendered.colors.movedim(-1, 1).clamp(0, 1), rendered.alphas[:, None]], dim=1).cpu()


def score_views(subject: Subject, renders: Float[Tensor, "t 4 s s"]) -> list[dict[str, float]]:
    """All metrics of each novel view."""
    scores = []
    for render, target in zip(renders, subject.targets, strict=True):
        image, truth, alpha = render[:3], on_white(target), target[3]
        box = person_box(alpha).tolist()
        scores.append(
            {
                "psnr": min(psnr(image, truth).item(), MAX_PSNR),
                "ssim": ssim(image, truth).item(),
                "silhouette_iou": silhouette_iou(render[3], alpha).item(),
                "psnr_box": min(psnr(crop(image, box), crop(truth, box)).item(), MAX_PSNR),
                "ssim_box": ssim(crop(image, box), crop(truth, box)).item(),
            }
        )
    return scores


def summary(scores: dict[str, list[dict[str, float]]], sides: dict[str, list[str]]) -> dict[str, object]:
    """Means over all novel views, over those of each side, and of each person; rounded."""
    views = [(side, score) for name in scores for side, score in zip(sides[name], scores[name], strict=True)]
    groups = {"mean": [score for _, score in views]}
    groups |= {side: [score for which, score in views if which == side] for side in SIDES}
    means = {group: _means(members) for group, members in groups.items()}
    return {
        **means,
        "num_views": {group: len(members) for group, members in groups.items()},
        "num_people": len(scores),
        "people": {name: _means(members) for name, members in scores.items()},
    }


def sheet_row(reconstructor: Reconstructor, subject: Subject, label: str) -> Float[Tensor, "3 h w"]:
    """The input, then truth and render of one novel view of each side."""
    renders, sides = render_views(reconstructor, subject), subject.sides()
    tiles = [on_white(subject.image)]
    for side in SIDES:
        index = sides.index(side) if side in sides else None
        pair = [torch.ones_like(tiles[0])] * 2  # no such view: two blank tiles keep the columns
        if index is not None:
            pair = [on_white(subject.targets[index]), renders[index, :3]]
        tiles.extend(pair)
    return labelled(side_by_side(tiles), f"{label}   input | truth, render: {', '.join(SIDES)}")


def _means(scores: list[dict[str, float]]) -> dict[str, float]:
    return {name: round(_mean(scores, name), DIGITS) for name in METRICS} if scores else {}


def _mean(scores: list[dict[str, float]], name: str) -> float:
    return math.fsum(score[name] for score in scores) / len(scores)
