"""People whose every side is known, as the evaluation sees them."""

import logging
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Float, Int
from torch import Tensor

from humansplat.body.parts import part_vertices
from humansplat.data.format import read_cameras, read_manifest
from humansplat.data.person_files import load_person
from humansplat.data.rig import COMPARED, NUM_RIG_VIEWS
from humansplat.errors import UserError
from humansplat.metrics.parts import projected_box
from humansplat.metrics.views import SIDES, bearings, sides
from humansplat.pipelines.reconstructor import Reconstructor
from humansplat.structures import Cameras, PosedBody

logger = logging.getLogger(__name__)

CLOSEUP = "closeup"
"""Beside the sides: views of the upper body, where people have some. They are in no other mean."""


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


def list_people(data: Path) -> tuple[list[str], list[str]]:
    """Names of those who are scored, and of those whose body is flagged.

    Raises:
        UserError: If nobody can be scored.
    """
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
