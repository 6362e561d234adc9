"""How well a model does on people whose every side is known.

For each person the model sees view 0 alone (one that was trained with four also gets the latents of the rig's true
other views, an upper bound for what a view model can give, or what its view model makes); its splats are rendered from
the novel views (of scans: the ring around the whole body) and compared with the true pictures, before white.
``front``, ``side`` and ``back`` are the novel views less than 45, between 45 and 135, and more than 135 degrees from
view 0. With fitted bodies the pose and shape come from view 0 as they would from a photograph; how far away the person
stands, which one picture cannot tell, and the camera are taken from the truth, so that the novel views can be compared
at all. Perturbed bodies are true ones with noise on every parameter. Scans whose body is flagged are left out: there
is no truth to go by.
"""

import hashlib
import json
import logging
import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor
from tqdm import tqdm

from humansplat.body.parts import part_vertices
from humansplat.body.perturbation import noised_body
from humansplat.capture.capture import Capture, capture_person
from humansplat.data.format import read_cameras, read_manifest
from humansplat.data.person_files import load_person
from humansplat.data.rig import COMPARED, NUM_RIG_VIEWS
from humansplat.errors import UserError
from humansplat.geometry.projection import project, to_camera, unproject
from humansplat.geometry.rotations import axis_angle_to_matrix
from humansplat.io.atomic import replacing
from humansplat.io.images import to_bytes, write_png
from humansplat.metrics.parts import projected_box
from humansplat.metrics.scores import METRICS
from humansplat.metrics.scores import score_views as score_pictures
from humansplat.metrics.views import SIDES, bearings, sides
from humansplat.models.autoencoder import on_white
from humansplat.pipelines.preview import labelled, side_by_side, stacked
from humansplat.pipelines.reconstructor import Reconstructor, batched
from humansplat.render import render_gaussians
from humansplat.structures import Cameras, PosedBody

logger = logging.getLogger(__name__)

Bodies = Literal["fitted", "true", "perturbed"]
GivenViews = Literal["auto", "none", "diffusion", "true"]
PERTURBATION = 0.05
"""Standard deviation of the noise on perturbed bodies' parameters; see ``body.perturbation.noised_body``."""
CLOSEUP = "closeup"
"""Beside the sides: views of the upper body, where people have some. They are in no other mean."""
DIGITS = 4
SHEET_PEOPLE = 4
"""Best and worst people on the contact sheet, each."""


@dataclass(frozen=True, kw_only=True)
class Subject:
    """One person as the evaluation sees it."""

    name: str
    rig: Float[Tensor, "v 4 s s"]
    """The four views of the rig; the model sees the first."""
    cameras: Cameras
    """Theirs."""
    targets: Float[Tensor, "t 4 s s"]
    """Novel views and close-ups, straight alpha."""
    target_cameras: Cameras
    sides: tuple[str, ...]
    """Front, side or back, or close-up, of each target."""
    head_boxes: Int[Tensor, "t 4"]
    """Around the true body's head in each target."""
    body: PosedBody
    """Unbatched; true, fitted or perturbed."""

    @property
    def image(self) -> Float[Tensor, "4 s s"]:
        """What the model sees."""
        return self.rig[0]


def evaluate(
    reconstructor: Reconstructor,
    data: Path,
    out: Path,
    *,
    bodies: Bodies = "fitted",
    views: GivenViews = "auto",
    limit: int | None = None,
    progress: bool = True,
) -> dict[str, object]:
    """Score a model on a folder of people; write ``metrics.json`` and ``contact_sheet.png``.

    Args:
        reconstructor: The model.
        data: A folder that ``humansplat synthesize`` or ``prepare`` wrote.
        out: Folder for the two files; the same inputs give the same bytes.
        bodies: ``fitted`` from view 0, ``true``, or ``perturbed`` from the true ones, alike in every run.
        views: What the model is given of the unseen sides: nothing, its view model's latents, or the true ones;
            ``auto``: the true ones for weights of four views, otherwise nothing.
        limit: Only the first so many people.
        progress: Show a bar on stderr.

    Returns:
        The content of ``metrics.json``.

    Raises:
        UserError: If the folder holds no people with novel views, all are flagged, no body could be fitted, or the
            weights do not allow these ``views``.
    """
    views = _given_views(reconstructor, views)
    names, flagged = _people(data)
    names = names[:limit]
    scores: dict[str, list[dict[str, float]]] = {}
    sides: dict[str, tuple[str, ...]] = {}
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
        elif bodies == "perturbed":
            subject = replace(subject, body=perturbed_body(reconstructor, subject))
            fitted[name] = subject.body
        scores[name] = score_views(subject, render_views(reconstructor, subject, views))
        sides[name] = subject.sides
    if not scores:
        raise UserError(f"no body could be fitted to any of the {len(names)} people of {data}; try --bodies true")
    metrics = summary(scores, sides) | {
        "bodies": bodies,
        "views": views,
        "model": {"name": Path(reconstructor.weights.name).name, "sha256": reconstructor.weights.sha256},
        "failed": failed,
        "flagged": flagged,
    }
    whole = {name: _of_whole(scores[name], sides[name]) for name in scores}
    ranked = sorted(whole, key=lambda name: (-_mean(whole[name], "psnr"), name))
    best, worst = ranked[:SHEET_PEOPLE], ranked[SHEET_PEOPLE:][-SHEET_PEOPLE:]
    rows = []
    for name in [*best, *worst]:
        subject = read_subject(reconstructor, data / name)
        subject = replace(subject, body=fitted.get(name, subject.body))
        rows.append(sheet_row(reconstructor, subject, views, f"{name}  {_mean(whole[name], 'psnr'):.2f} dB"))
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
    compared = [index for index, role in enumerate(roles) if role in COMPARED]
    if not compared:
        raise UserError(f"{folder} has no novel views to compare with; synthesize people with some")
    closeups = [index for index, role in enumerate(roles) if role == CLOSEUP]
    places = torch.tensor([*compared, *closeups])
    images, cameras = person.images.float() / 255, person.cameras[places]
    seen_from = sides(bearings(person.cameras[0], cameras, person.body.joints[0]))[: len(compared)]
    return Subject(
        name=folder.name,
        rig=images[:NUM_RIG_VIEWS],
        cameras=person.cameras[:NUM_RIG_VIEWS],
        targets=images[places],
        target_cameras=cameras,
        sides=(*[SIDES[side] for side in seen_from.tolist()], *[CLOSEUP] * len(closeups)),
        head_boxes=projected_box(part_vertices(person.body, "head"), cameras),
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


def perturbed_body(reconstructor: Reconstructor, subject: Subject) -> PosedBody:
    """The true body with noise that depends on the person's name only."""
    seed = int.from_bytes(hashlib.sha256(subject.name.encode()).digest()[:8], "big") >> 1  # seeds are signed
    generator = torch.Generator().manual_seed(seed)
    return noised_body(reconstructor.body_model, subject.body, PERTURBATION, generator)


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


def _given_views(reconstructor: Reconstructor, views: GivenViews) -> GivenViews:
    four = reconstructor.weights.num_inputs > 1
    if views == "auto":
        return "true" if four else "none"
    if views == "true" and not four:
        raise UserError(f"the weights {reconstructor.weights.name!r} take the photo's latent alone; use --views none")
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


def score_views(subject: Subject, renders: Float[Tensor, "t 4 s s"]) -> list[dict[str, float]]:
    """All metrics of each target; views that do not show the head have no ``psnr_head``."""
    targets = subject.targets
    found = score_pictures(renders[:, :3], renders[:, 3], on_white(targets), targets[:, 3], subject.head_boxes)
    columns = {name: values.tolist() for name, values in found.items()}
    rows = [{name: values[view] for name, values in columns.items()} for view in range(len(targets))]
    return [{name: value for name, value in row.items() if not math.isnan(value)} for row in rows]


def summary(scores: dict[str, list[dict[str, float]]], sides: dict[str, tuple[str, ...]]) -> dict[str, object]:
    """Means over all novel views, over those of each side, close-ups and of each person; rounded."""
    views = [(side, score) for name in scores for side, score in zip(sides[name], scores[name], strict=True)]
    groups = {"mean": [score for side, score in views if side != CLOSEUP]}
    groups |= {side: [score for which, score in views if which == side] for side in (*SIDES, CLOSEUP)}
    if not groups[CLOSEUP]:
        del groups[CLOSEUP]
    means = {group: _means(members) for group, members in groups.items()}
    return {
        **means,
        "num_views": {group: len(members) for group, members in groups.items()},
        "num_people": len(scores),
        "people": {name: _means(_of_whole(members, sides[name])) for name, members in scores.items()},
    }


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


def _of_whole(scores: list[dict[str, float]], sides: tuple[str, ...]) -> list[dict[str, float]]:
    return [score for score, side in zip(scores, sides, strict=True) if side != CLOSEUP]


def _means(scores: list[dict[str, float]]) -> dict[str, float]:
    return {name: round(_mean(scores, name), DIGITS) for name in METRICS if any(name in score for score in scores)}


def _mean(scores: list[dict[str, float]], name: str) -> float:
    values = [score[name] for score in scores if name in score]
    return math.fsum(values) / len(values)
