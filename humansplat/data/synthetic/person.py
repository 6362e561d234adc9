"""One clothed, posed, textured person from a seed."""

import re
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from scipy.spatial.transform import Rotation

from humansplat.data.synthetic import appearance
from humansplat.data.synthetic.assets import AssetLibrary, Piece, Skin
from humansplat.data.synthetic.bags import Bag, bag_layers, draw_bag
from humansplat.data.synthetic.balance import Balancer, should_stand
from humansplat.data.synthetic.cloth import Cloth, smooth_noise
from humansplat.data.synthetic.expressions import draw_expression
from humansplat.data.synthetic.figure import Figure, Template, joint_transforms, rest_shape, stage_transforms
from humansplat.data.synthetic.hair import draw_long_hair
from humansplat.data.synthetic.headwear import (
    draw_beard,
    draw_hair_shell,
    draw_hat,
    draw_scarf,
    draw_sunglasses,
    paint_hair,
)
from humansplat.data.synthetic.layers import Layer, dressed_meshes, skin_mesh
from humansplat.data.synthetic.limbs import finger_rotations
from humansplat.data.synthetic.poses import WIDE, collides, draw_pose, leg_room
from humansplat.data.synthetic.roles import Role
from humansplat.data.synthetic.shells import Surface
from humansplat.data.synthetic.splits import Split
from humansplat.data.synthetic.wardrobe import EXTRA, Dresser, asset_layer, dress
from humansplat.render.shaded_mesh import ShadedMesh
from humansplat.structures.body import PosedBody

FACE, HAIR, HAT = 90, 100, 110
"""Ranks of what grows and sits on the head."""
CHILD_SHARE = 0.09
"""Of training people."""
CHILDREN = (0.17, 0.41)
"""Ages of children by the body's phenotype: 0.95 m to 1.5 m."""
FACE_ROLES: tuple[Role, ...] = ("brows", "lashes")


@dataclass(frozen=True, kw_only=True, eq=False)
class SyntheticPerson:
    """What the generator makes."""

    meshes: list[ShadedMesh]
    """Skin, garments, hair, eyes: world frame."""
    body: PosedBody
    """The body under the clothes; lowest vertex at y = 0, root joint at x = z = 0. Soles reach a little lower."""
    meta: dict[str, object]
    """What was drawn, with the names of the assets."""


def generate_person(assets: AssetLibrary, seed: int, split: Split = "train") -> SyntheticPerson:
    """Draw a person.

    Args:
        assets: What people are made of.
        seed: The same seed gives the same person, to the bit.
        split: Which assets may be used; validation people wear, on top of what they need, only what training
            people never do.

    Raises:
        UserError: If the assets lack something of this split.
    """
    rng = np.random.default_rng(seed)
    # What validation people do not have is drawn apart, so that their own draws stay as they are.
    extra = np.random.default_rng([seed, 2])
    child = None
    if split == "train" and extra.random() < CHILD_SHARE:
        child = float(extra.uniform(*CHILDREN))
    phenotypes = draw_phenotypes(assets, rng, child)
    feminine = phenotypes["gender"] > 0.5
    photograph = _draw_skin(assets, rng, split, feminine)
    skin, tone = appearance.skin_texture(assets.texture(photograph.texture), photograph.name, rng)
    bag = draw_bag(extra) if split == "train" else None
    figure, posed, names = _pose(assets, phenotypes, rng, split, bag)

    dresser = Dresser(library=assets, split=split, rest=figure.rest, feminine=feminine, rng=rng)
    surface = Surface(assets, figure.rest)
    layers = dress(dresser, surface, room=leg_room(assets.template, figure.transforms))
    if bag is not None:
        layers += bag_layers(bag, surface, layers, figure, posed, extra, EXTRA)
    hair = appearance.hair_color(rng, tone, phenotypes["age"])
    bald = bool(child is None and not feminine and rng.random() < 0.05 + 0.2 * (phenotypes["age"] > 0.85))
    jaw = float(rng.uniform(0.1, 0.9)) if child is None and not feminine and rng.random() < 0.35 else 0.0
    skin = paint_hair(assets, skin, hair, on_scalp=0.0 if bald else 0.7, on_jaw=jaw)
    if jaw > 0.5 and split == "train":
        layers.append(draw_beard(assets, surface, 0.85 * hair, rng, HAIR))
    layers += _head(dresser, surface, hair, feminine=feminine, bald=bald)
    meshes = [skin_mesh(layers, assets.template, figure, skin)]
    meshes += dressed_meshes(layers, assets.template, figure, surface.cloth)
    meta: dict[str, object] = {
        "phenotypes": {name: round(float(value), 4) for name, value in phenotypes.items()},
        "skin": photograph.name,
        "skin_tone": round(tone, 3),
        **names,
        "layers": [layer.name for layer in layers],
        "assets": sorted(
            {f"skins/{photograph.name}"}
            | {layer.asset for layer in layers if layer.asset}
            | {f"poses/{name}" for name in re.split("[~+]", names["pose"]) if name in assets.motions(split)}
        ),
    }
    return SyntheticPerson(meshes=meshes, body=posed, meta=meta)


def draw_phenotypes(assets: AssetLibrary, rng: np.random.Generator, child: float | None = None) -> dict[str, float]:
    """Draw a shape: adults of all builds and ages, and some teenagers (age has its anchors at 1/3, 2/3 and 1).

    Args:
        assets: What people are made of.
        rng: Source of all choices.
        child: Age of a child, in ``CHILDREN``, instead.
    """
    gender = float(np.clip(rng.choice([0.06, 0.94]) + rng.normal(0, 0.1), 0, 1))
    age = float(rng.uniform(0.5, 0.62) if rng.random() < 0.08 else 0.62 + 0.38 * rng.beta(1.0, 1.6))
    drawn = {
        "gender": gender,
        "age": age,
        "muscle": float(rng.beta(2.2, 2.2)),
        "weight": float(rng.beta(2.4, 2.2)),
        "height": float(np.clip(rng.normal(0.4 - 0.06 * gender, 0.09), 0.1, 0.75)),
        "proportions": float(rng.uniform(0.25, 0.95)),
        "cupsize": float(rng.beta(2, 2)),
        "firmness": float(rng.beta(2, 2)),
    }
    if child is not None:
        drawn |= {"age": child, "muscle": 0.35 + 0.3 * drawn["muscle"], "cupsize": 0.0}
        drawn["height"] = float(np.clip(drawn["height"], 0.25, 0.5))
    races = dict(zip(("african", "asian", "caucasian"), rng.dirichlet([0.6, 0.6, 0.6]).tolist(), strict=True))
    both = {**drawn, **races}
    return {name: both.get(name, 0.5) for name in assets.template.body.phenotype_names}


def _draw_skin(assets: AssetLibrary, rng: np.random.Generator, split: Split, feminine: bool) -> Skin:
    skins = assets.skins(split)
    matching = [skin for skin in skins if appearance.is_female_skin(skin.name) == feminine]
    pool = matching if matching and rng.random() < 0.9 else skins
    return pool[int(rng.integers(len(pool)))]


def _pose(
    assets: AssetLibrary, phenotypes: dict[str, float], rng: np.random.Generator, split: Split, bag: Bag | None
) -> tuple[Figure, PosedBody, dict[str, str]]:
    template = assets.template
    body = template.body
    rotations, name = draw_pose(
        template,
        assets.motions(split),
        rng,
        procedural=split == "train",
        clips=assets.clips if split == "train" else None,
    )
    if bag is not None and bag.kind == "handbag":
        for joint, rotation in finger_rotations(template, bag.side, rng, fist=1.15).items():
            rotations[template.joint(joint)] = rotation
    expression = draw_expression(assets, rng)
    for joint, rotation in expression.rotations.items():
        if joint in template.joint_names:
            rotations[template.joint(joint)] = rotation
    shape = torch.tensor([phenotypes[key] for key in body.phenotype_names], dtype=torch.float32)
    rest, joints = rest_shape(body, shape)
    if split == "train" and should_stand(name):
        settled = Balancer(template, rest, joints).settle(rotations)
        rotations = rotations if collides(template, settled, wide=name.startswith(WIDE)) else settled
    transforms = joint_transforms(joints, template.joint_parents, rotations)
    stages = stage_transforms(joints, template.joint_parents, rotations) if split == "train" else None
    figure = Figure(rest=rest, transforms=transforms)
    skin = figure.pose(rest[template.skin_ids], template.weights[template.skin_ids])
    # The root joint does not move under its own rotation, so it still stands at its rest place.
    shift = -np.array([joints[0, 0], skin[:, 1].min(), joints[0, 2]], np.float32)
    transforms[..., 3] += shift
    if stages is not None:
        stages[..., 3] += shift
    with torch.no_grad():
        posed = body(
            shape,
            torch.from_numpy(Rotation.from_matrix(rotations).as_rotvec().astype(np.float32)),
            torch.from_numpy(joints[0] + shift),
        )
    figure = Figure(rest=rest, transforms=transforms, stages=stages, bones=_leg_bones(template, posed.joints.numpy()))
    return figure, posed, {"pose": name, "expression": expression.name}


def _leg_bones(template: Template, joints: Float[np.ndarray, "j 3"]) -> Float[np.ndarray, "4 2 3"]:
    pairs = (("upperleg01", "lowerleg01"), ("lowerleg01", "foot"))
    ends = [[template.joint(f"{name}.{side}") for name in pair] for side in "LR" for pair in pairs]
    return joints[np.array(ends)]


def _head(dresser: Dresser, surface: Surface, color: np.ndarray, *, feminine: bool, bald: bool) -> list[Layer]:
    """Eyes, brows, lashes, hair, and what is worn over it."""
    library, rng = dresser.library, dresser.rng
    layers: list[Layer] = []
    eyes = [piece for piece in library.face_pieces("eyes") if "low" in piece.asset] or library.face_pieces("eyes")
    if eyes and library.eye_textures:
        path = library.eye_textures[int(rng.integers(len(library.eye_textures)))]
        layers.append(
            Layer(
                cloth=eyes[0].fit(dresser.rest),
                texture=library.texture(path)[..., :3],
                rank=-1,
                name=path.stem,
                hides=False,
                specular=0.05,
                roughness=0.15,
            )
        )
    for role in FACE_ROLES:
        pieces = library.face_pieces(role)
        if pieces:
            piece = pieces[int(rng.integers(len(pieces)))]
            tinted = color * rng.uniform(0.5, 0.9) if role == "brows" else np.full(3, 0.05)
            layers.append(_strands(dresser, piece.fit(dresser.rest), piece, tinted, FACE, casts_shadow=False))
    if not bald:
        layers += _draw_hair(dresser, surface, color, feminine=feminine)
    if dresser.split == "train":
        if rng.random() < 0.14:
            layers += _draw_hat(dresser, surface)
        if rng.random() < 0.06:
            layers.append(draw_scarf(library, surface, rng, HAT + 1))
        if rng.random() < 0.06:
            layers.append(draw_sunglasses(surface, rng, HAT))
    return layers


def _draw_hat(dresser: Dresser, surface: Surface) -> list[Layer]:
    """A procedural hat, or one of the assets, where there are some."""
    hats = dresser.library.pieces("hat", dresser.split)
    piece = dresser.choose(hats) if hats and dresser.rng.random() < 0.5 else None
    if piece is not None:
        return [asset_layer(dresser, piece, HAT)]
    return draw_hat(dresser.library, surface, dresser.rng, HAT)


def _draw_hair(dresser: Dresser, surface: Surface, color: np.ndarray, *, feminine: bool) -> list[Layer]:
    """A style of the assets, often trimmed or fuller, or (for training) a procedural one."""
    rng = dresser.rng
    pieces = dresser.library.pieces("hair", dresser.split)
    if dresser.split == "train" and rng.random() < (0.3 if feminine else 0.05):
        return draw_long_hair(dresser.library, surface, color, rng, HAIR)
    if dresser.split == "train" and rng.random() < 0.3:
        return draw_hair_shell(dresser.library, surface, color, rng, HAIR, feminine=feminine)
    short = [piece for piece in pieces if "short" in piece.asset]
    longer = [piece for piece in pieces if "short" not in piece.asset]
    wants_long = rng.random() < (0.85 if feminine else 0.12)
    pool = (longer if wants_long else short) or pieces
    piece = pool[int(rng.integers(len(pool)))]
    cloth = piece.fit(dresser.rest)
    low = float(cloth.canonical[:, 1].min())
    if low < 1.5 and rng.random() < 0.6:  # trim with an uneven edge
        length = rng.uniform(low, 1.62)
        cloth = cloth.clip(cloth.canonical[:, 1] - length + 0.012 * smooth_noise(cloth.canonical, rng, 0.06))
    if rng.random() < 0.5:
        cloth = cloth.moved(_fuller(cloth.vertices, surface, float(rng.uniform(1.0, 1.12))))
    return [_strands(dresser, cloth, piece, color, HAIR, casts_shadow=True)]


def _fuller(vertices: np.ndarray, surface: Surface, factor: float) -> np.ndarray:
    """Hair ``[n, 3]`` scaled away from the middle of the head."""
    head = surface.cloth.vertices[surface.cloth.canonical[:, 1] > 1.66]
    centre = head.mean(0)
    return centre + (vertices - centre) * np.array([factor, 1 + 0.4 * (factor - 1), factor])


def _strands(
    dresser: Dresser, cloth: Cloth, piece: Piece, color: np.ndarray, rank: int, *, casts_shadow: bool
) -> Layer:
    texture = np.full((4, 4, 4), 255, np.uint8) if piece.texture is None else dresser.library.texture(piece.texture)
    return Layer(
        cloth=cloth,
        texture=appearance.tint_hair(texture, color, dresser.rng),
        rank=rank,
        name=piece.asset,
        asset=f"hair/{piece.asset}" if piece.role == "hair" else "",
        alpha="blend",
        hides=False,
        casts_shadow=casts_shadow,
        specular=0.04,
        roughness=0.5,
    )
