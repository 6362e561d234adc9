"""A folder of rigged characters, and people drawn from it."""

import logging
from collections import OrderedDict
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from scipy.spatial import cKDTree

from humansplat.body.anny import AnnyBody
from humansplat.body.recorded import moved
from humansplat.data.people_source import character_files, expected
from humansplat.data.rigged.bodies import BodyFitter, fit_bound, moved_along
from humansplat.data.rigged.character import Character
from humansplat.data.rigged.poses import draw_frames
from humansplat.data.rigged.transforms import about_up
from humansplat.data.synthetic.figure import Template, load_template
from humansplat.data.synthetic.splits import UNLISTED_SHARE, Split, asset_split
from humansplat.errors import UserError
from humansplat.pipelines.scan_fitting import ScanFitter
from humansplat.render.shaded_mesh import ShadedMesh
from humansplat.structures import PosedBody, ScanFit

logger = logging.getLogger(__name__)

KEPT = 8
"""Characters kept in memory, each some tens of megabytes."""
MAX_POSES = 4
"""Poses tried until a fit is trusted; the last is a plain one."""


@dataclass(frozen=True, kw_only=True, eq=False)
class CharacterPerson:
    """A posed character as ``synthesize`` writes it."""

    meshes: list[ShadedMesh]
    """World frame."""
    body: PosedBody
    """The default body, fitted; lowest vertex at y = 0, root joint at x = z = 0."""
    meta: dict[str, object]
    """What was drawn."""


class CharacterLibrary:
    """Rigged characters; files are read when first needed. One that cannot be used is named once and left out.

    Args:
        root: Folder with ``.glb``, ``.gltf`` and ``.vrm`` files, also in folders below.
        template: The default body; loaded when not given.
        fitter: What fits it to characters; ``ScanFitter`` when not given.
        texture_size: Side to which textures are reduced, pixels.

    Raises:
        UserError: If there is no character.
    """

    def __init__(
        self,
        root: Path,
        *,
        template: Template | None = None,
        fitter: BodyFitter | None = None,
        texture_size: int = 1024,
    ) -> None:
        self.root, self.texture_size = root, texture_size
        self.files = character_files(root)
        if not self.files:
            raise UserError(f"{root} holds no rigged characters; {expected()}")
        self.template = template or load_template(AnnyBody.load())
        self.body = self.template.body
        self.fitter: BodyFitter = fitter or ScanFitter(self.body)
        self._kept: OrderedDict[Path, Character] = OrderedDict()
        self._bound: dict[Path, PosedBody] = {}
        self._troubles: dict[Path, str] = {}

    def name(self, path: Path) -> str:
        """Name of a character: its place in the folder."""
        return path.relative_to(self.root).with_suffix("").as_posix()

    def of_split(self, split: Split) -> list[Path]:
        """Characters of a split; whole characters are held out.

        Raises:
            UserError: If there are none.
        """
        files = [path for path in self.files if asset_split("characters", self.name(path)) == split]
        if not files:
            raise UserError(
                f"{self.root} has {len(self.files)} characters and none for the split {split!r}: one in "
                f"{UNLISTED_SHARE} goes to validation, by its name; add characters, or rename some"
            )
        return files

    def usable(self, path: Path) -> tuple[Character, PosedBody] | None:
        """A character and the default body inside it as bound; ``None`` after telling (once) why it is left out."""
        if path in self._troubles:
            return None
        try:
            character = self._character(path)
            if path not in self._bound:
                fit = fit_bound(character, self.body, self.fitter)
                if fit.flags:
                    raise UserError(f"no body could be fitted to {path}: {'; '.join(fit.flags)}")
                self._bound[path] = fit.body
        except UserError as error:
            self._troubles[path] = str(error)
            logger.warning("left out the character %s: %s", self.name(path), error)
            return None
        return character, self._bound[path]

    def _character(self, path: Path) -> Character:
        if path not in self._kept:
            self._kept[path] = Character(path, self.template, self.texture_size)
            if len(self._kept) > KEPT:
                self._kept.popitem(last=False)
        self._kept.move_to_end(path)
        return self._kept[path]

    def draw(self, rng: np.random.Generator, split: Split) -> tuple[Path, Character, PosedBody]:
        """Draw a character that can be used, of a split.

        Raises:
            UserError: If none can be used.
        """
        files = self.of_split(split)
        order = rng.permutation(len(files))  # the whole order, so that what was found broken before changes nothing
        for index in order:
            found = self.usable(files[index])
            if found is not None:
                return files[index], *found
        raise UserError(f"none of the characters of {self.root} can be used: {self._troubles[files[order[0]]]}")


def generate_character(library: CharacterLibrary, seed: int, split: Split = "train") -> CharacterPerson:
    """Draw a posed character.

    Args:
        library: The characters.
        seed: The same seed gives the same person.
        split: Which characters may be used.

    Raises:
        UserError: If no character of the split can be used.
        ValueError: If the default body fitted none of the poses that were tried.
    """
    rng = np.random.default_rng(seed)
    path, character, bound = library.draw(rng, split)
    gains = _gains(rng, len(character.pieces))
    reasons: list[str] = []
    for attempt in range(MAX_POSES):
        frames, name = draw_frames(character, library.template, rng, plain=attempt == MAX_POSES - 1)
        meshes = character.skinned(frames, gains)
        start = None
        if character.retarget is not None:
            start = moved_along(bound, character.retarget, frames, library.body)
        try:
            fit = library.fitter(meshes, start=start)
        except UserError as error:  # no person is as high as this pose: the pose's fault, not the user's
            reasons.append(f"{name}: {error}")
            continue
        if not fit.flags:
            meshes, body = _stood(meshes, fit, turn=character.retarget is None)
            meta: dict[str, object] = {
                "character": library.name(path),
                "pose": name,
                "poses_left_out": reasons,
                "rig": "known" if character.retarget is not None else "unknown",
                "notes": list(character.notes),
                "assets": [f"characters/{library.name(path)}"],
                "landmark_error": round(float(fit.landmark_error), 5),
                "coverage": round(float(fit.coverage), 5),
                "outside": round(float(fit.outside), 5),
            }
            return CharacterPerson(meshes=meshes, body=body, meta=meta)
        reasons.append(f"{name}: {'; '.join(fit.flags)}")
    raise ValueError(f"the body fits no pose of {library.name(path)} ({' | '.join(reasons)})")


def _gains(rng: np.random.Generator, count: int) -> Float[np.ndarray, "p 3"]:
    """Small changes of brightness and tint; hues are left alone, for skin and cloth often share a texture."""
    whole = rng.uniform(0.85, 1.1) * np.exp(rng.normal(0.0, 0.03, 3))
    return whole * np.exp(rng.normal(0.0, 0.03, (count, 1)))


def _stood(meshes: list[ShadedMesh], fit: ScanFit, *, turn: bool) -> tuple[list[ShadedMesh], PosedBody]:
    """Meshes and body with the pelvis above the origin and the lowest vertex of the body on the ground.

    Args:
        meshes: World frame, any place.
        fit: The body in the same frame.
        turn: Whether to turn them to +Z as well: where the rig does not tell the heading.
    """
    angle = -float(fit.facing) if turn else 0.0
    about = about_up(angle)
    root = about @ fit.body.joints[0].double().numpy()
    shift = -np.array([root[0], float(fit.body.vertices[:, 1].min()), root[2]])
    body = moved(fit.body, torch.from_numpy(about).float(), torch.from_numpy(shift).float())
    stood = []
    for mesh in meshes:
        vertices = (mesh.vertices @ about.T + shift).astype(np.float32)
        normals = None if mesh.normals is None else (mesh.normals @ about.T).astype(np.float32)
        parts = mesh.parts if mesh.parts is not None else _nearest_parts(vertices, body)
        stood.append(replace(mesh, vertices=vertices, normals=normals, parts=parts))
    return stood, body


def _nearest_parts(vertices: Float[np.ndarray, "v 3"], body: PosedBody) -> np.ndarray:
    """Part labels of the nearest vertices of the body: for rigs whose joints are not known."""
    _, nearest = cKDTree(body.vertices.numpy()).query(vertices)
    return body.parts[torch.from_numpy(nearest)].numpy().astype(np.uint8)
