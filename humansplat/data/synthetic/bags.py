"""Bags: backpacks, bags across the body, and handbags that hang from a hand."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from jaxtyping import Float, UInt8
from scipy.spatial import cKDTree

from humansplat.body.parts import PART_NAMES
from humansplat.data.synthetic import patterns
from humansplat.data.synthetic.cloth import Cloth, grid_faces, normals
from humansplat.data.synthetic.figure import Figure
from humansplat.data.synthetic.layers import Layer
from humansplat.data.synthetic.shells import Surface
from humansplat.structures.body import PosedBody

BagKind = Literal["backpack", "crossbody", "handbag"]
KINDS: dict[BagKind, float] = {"backpack": 0.45, "crossbody": 0.3, "handbag": 0.25}
"""How often each kind of bag is drawn."""
ABOVE = 0.13
"""Farther from the skin than this no clothing is looked for, metres."""
STRAP = 0.006
"""Of a strap above what it lies on, metres."""


@dataclass(frozen=True)
class Bag:
    """A bag that a person will carry: drawn before the pose, so that a hand can close around it."""

    kind: BagKind
    side: Literal["L", "R"]
    """The hand that holds it, or the hip that it hangs at."""


def draw_bag(rng: np.random.Generator, share: float = 0.13) -> Bag | None:
    """Draw whether somebody carries a bag, and which."""
    if rng.random() >= share:
        return None
    kinds = list(KINDS)
    kind = kinds[int(rng.choice(len(kinds), p=list(KINDS.values())))]
    return Bag(kind, "L" if rng.random() < 0.5 else "R")


def bag_layers(
    bag: Bag,
    surface: Surface,
    worn: Sequence[Layer],
    figure: Figure,
    posed: PosedBody,
    rng: np.random.Generator,
    rank: int,
) -> list[Layer]:
    """Make a bag and what it hangs on.

    Args:
        bag: Which.
        surface: The person's skin at rest.
        worn: What lies under straps and bag.
        figure: The body.
        posed: The body in its pose.
        rng: Source of size and colours.
        rank: Of the layers.
    """
    color = patterns.cloth_color(rng)
    if bag.kind == "handbag":
        return _handbag(bag, surface, posed, color, rng, rank)
    lift = height_of_clothes(surface, worn)
    if bag.kind == "backpack":
        return _backpack(surface, lift, color, rng, rank)
    return _crossbody(bag, surface, lift, color, rng, rank)


def height_of_clothes(surface: Surface, worn: Sequence[Layer]) -> Float[np.ndarray, " n"]:
    """How far the outermost clothing lies above each vertex of the skin at rest, metres."""
    from embreex.mesh_construction import TriangleMesh
    from embreex.rtcore_scene import EmbreeScene

    cloth = surface.cloth
    height = np.zeros(len(cloth.vertices), np.float32)
    pieces = [layer.cloth.vertices[layer.cloth.faces] for layer in worn if layer.hides and layer.rank > 0]
    trunk = np.flatnonzero((cloth.canonical[:, 1] > 0.8) & (cloth.canonical[:, 1] < 1.6))
    if not pieces:
        return height
    scene = EmbreeScene()
    TriangleMesh(scene, np.concatenate(pieces).astype(np.float32))
    outward = normals(cloth.vertices, cloth.faces, cloth.weld)[trunk]
    origins = np.ascontiguousarray(cloth.vertices[trunk] + ABOVE * outward, np.float32)
    hits = scene.run(origins, np.ascontiguousarray(-outward, np.float32), query="INTERSECT", output=True)
    height[trunk] = np.where(hits["primID"] >= 0, np.clip(ABOVE - hits["tfar"], 0, ABOVE), 0)
    return np.maximum(cloth.smooth(height[:, None], 3)[:, 0], 0.8 * height)


def _band(surface: Surface, lift: Float[np.ndarray, " n"], fields: Sequence[Callable[[Cloth], np.ndarray]]) -> Cloth:
    """A strap: the skin over its clothes, cut along one field after the other, so that narrow bands survive."""
    skin = surface.cloth
    outward = normals(skin.vertices, skin.faces, skin.weld)
    cloth = skin.moved(skin.vertices + outward * (lift + STRAP)[:, None])
    for field in fields:
        cloth = cloth.clip(field(cloth))
    return cloth


def _backpack(
    surface: Surface, lift: Float[np.ndarray, " n"], color: np.ndarray, rng: np.random.Generator, rank: int
) -> list[Layer]:
    apart, half = float(rng.uniform(0.075, 0.11)), float(rng.uniform(0.014, 0.024))
    arm = surface.regions.arm
    low = float(rng.uniform(1.12, 1.2))
    strap = _band(
        surface,
        lift,
        [
            lambda cloth: 1.56 - cloth.canonical[:, 1],
            lambda cloth: apart + half - np.abs(cloth.canonical[:, 0]),
            lambda cloth: np.abs(cloth.canonical[:, 0]) - apart + half,
            lambda cloth: 0.45 - arm(cloth),
            lambda cloth: cloth.canonical[:, 1] - np.where(cloth.canonical[:, 2] < 0.04, 1.36, low),
        ],
    )
    skin = surface.cloth
    back = (np.abs(skin.canonical[:, 0]) < 0.13) & (skin.canonical[:, 2] < 0.05)
    back &= (skin.canonical[:, 1] > 1.1) & (skin.canonical[:, 1] < 1.45)
    scale = float(np.ptp(skin.vertices[back][:, 1]) / np.ptp(skin.canonical[back][:, 1]))
    size = rng.uniform([0.13, 0.18, 0.05], [0.17, 0.25, 0.09]) * scale
    top = skin.vertices[back][:, 1].max() + 0.05 * scale
    behind = (skin.vertices[back][:, 2] - lift[back]).min() - 0.012
    middle = np.array([skin.vertices[back][:, 0].mean(), top - size[1], behind - size[2]])
    turned = np.diag([-1.0, 1.0, -1.0])
    sack = _rigid(surface, *_box(size, turned, middle, rng), "spine02", color, rng, rank, "backpack")
    return [_strap_layer(strap, color, rng, rank, "backpack straps"), sack]


def _crossbody(
    bag: Bag,
    surface: Surface,
    lift: Float[np.ndarray, " n"],
    color: np.ndarray,
    rng: np.random.Generator,
    rank: int,
) -> list[Layer]:
    sign = 1.0 if bag.side == "L" else -1.0
    shoulder, hip = np.array([-sign * 0.1, 1.5]), np.array([sign * 0.19, float(rng.uniform(0.93, 1.0))])
    along = (hip - shoulder) / np.linalg.norm(hip - shoulder)
    across = np.array([-along[1], along[0]])
    half = float(rng.uniform(0.009, 0.02))
    arm = surface.regions.arm

    def off(cloth: Cloth) -> np.ndarray:
        return (cloth.canonical[:, :2] - shoulder) @ across

    strap = _band(
        surface,
        lift,
        [
            lambda cloth: np.minimum(1.6 - cloth.canonical[:, 1], cloth.canonical[:, 1] - hip[1] + 0.05),
            lambda cloth: half - off(cloth),
            lambda cloth: half + off(cloth),
            lambda cloth: 0.45 - arm(cloth),
        ],
    )
    skin = surface.cloth
    side = (skin.canonical[:, 0] * sign > 0.1) & (np.abs(skin.canonical[:, 1] - hip[1] + 0.08) < 0.08)
    side &= arm(skin) < 0.3
    size = rng.uniform([0.1, 0.08, 0.03], [0.16, 0.13, 0.05])
    reach = ((skin.vertices[side][:, 0] * sign) + lift[side]).max() + 0.01
    angle = float(rng.uniform(0.2, 0.7))  # behind the hip, where the arm hangs less
    turned = np.array([[0.0, 0.0, sign], [0.0, 1.0, 0.0], [-sign, 0.0, 0.0]])
    back = np.array([[np.cos(angle), 0, -np.sin(angle)], [0, 1, 0], [np.sin(angle), 0, np.cos(angle)]])
    if sign > 0:
        back = back.T
    depth = skin.vertices[side][:, 2]
    middle = np.array([sign * (reach + size[2]), skin.vertices[side][:, 1].mean() - size[1] * 0.4, depth.mean()])
    pivot = np.array([0.0, 0.0, depth.mean()])
    middle = pivot + (middle - pivot) @ back.T
    sack = _rigid(surface, *_box(size, back @ turned, middle, rng), "root", color, rng, rank, "shoulder bag")
    return [_strap_layer(strap, color, rng, rank, "shoulder strap"), sack]


def _handbag(
    bag: Bag, surface: Surface, posed: PosedBody, color: np.ndarray, rng: np.random.Generator, rank: int
) -> list[Layer]:
    """A bag that hangs straight down from the fingers; legs push it aside."""
    template = surface.template
    joints = posed.joints.numpy().astype(np.float64)

    def place(name: str) -> Float[np.ndarray, " 3"]:
        return joints[template.joint(f"{name}.{bag.side}")]

    grip = 0.5 * (place("finger3-2") + place("finger4-2"))
    across = place("finger2-1") - place("finger5-1")
    across[1] = 0
    length = np.linalg.norm(across)
    across = across / length if length > 0.02 else np.array([0.0, 0.0, 1.0])
    size = rng.uniform([0.12, 0.08, 0.035], [0.19, 0.16, 0.06])
    handle = float(rng.uniform(0.08, 0.16))
    room = grip[1] - 0.03  # above the ground
    shrink = min(1.0, room / (handle + 2 * size[1]))
    size, handle = size * max(shrink, 0.5), handle * max(shrink, 0.5)
    turned = np.stack([across, [0.0, 1.0, 0.0], np.cross(across, [0.0, 1.0, 0.0])], 1)
    middle = grip - [0.0, handle + size[1], 0.0]
    points, faces, uvs = _box(size, turned, middle, rng)
    arc = np.linspace(0, np.pi, 13)
    bow = np.stack([0.55 * size[0] * np.cos(arc), handle * np.sin(arc) ** 0.7 - handle, np.zeros_like(arc)], 1)
    bows = []
    for shift in (-0.5, 0.5):
        line = bow + [0.0, 0.0, shift * size[2]] * (1 - np.sin(arc))[:, None]
        bows += [(line + [0.0, 0.0, width]) @ turned.T + grip for width in (-0.006, 0.006)]
    straps = np.stack(bows).reshape(2, 2, 13, 3)
    everything = np.concatenate([points, straps.reshape(-1, 3)])
    everything = _pushed_aside(everything, grip, surface, posed)
    strap_faces = np.concatenate([grid_faces(2, 13), grid_faces(2, 13) + 26])
    hand = f"wrist.{bag.side}"
    sack = _rigid(surface, everything[: len(points)], faces, uvs, hand, color, rng, rank, "handbag")
    flat = np.zeros((52, 2))
    handles = _rigid(surface, everything[len(points) :], strap_faces, flat, hand, color, rng, rank, "handbag handles")
    return [_in_world(sack), _in_world(handles)]


def _in_world(layer: Layer) -> Layer:
    return replace(layer, world=layer.cloth.vertices, hides=False)


def _pushed_aside(
    points: Float[np.ndarray, "n 3"], grip: Float[np.ndarray, " 3"], surface: Surface, posed: PosedBody
) -> Float[np.ndarray, "n 3"]:
    """Swing what hangs from a grip away from the body."""
    skin = posed.vertices.numpy().astype(np.float64)
    whole = np.arange(len(skin))
    outward = normals(skin, posed.faces.numpy(), whole)
    carrying = [part for part, name in enumerate(PART_NAMES) if "Hand" in name or "ForeArm" in name]
    others = ~np.isin(posed.parts.numpy(), carrying)
    skin, outward = skin[others], outward[others]
    tree = cKDTree(skin)
    drop = np.clip(grip[1] - points[:, 1], 0, None)
    for _ in range(6):
        _, near = tree.query(points)
        gap = np.einsum("nc,nc->n", points - skin[near], outward[near]) - 0.03
        close = np.linalg.norm(points - skin[near], axis=1) < 0.15
        gap = np.where(close & (drop > 0.05), gap, 0)
        worst = int(gap.argmin())
        if gap[worst] > -0.002:
            break
        aside = outward[near[worst]] * [1.0, 0.0, 1.0]
        aside /= max(np.linalg.norm(aside), 1e-6)
        points = points - gap[worst] * aside * (drop / max(drop[worst], 0.05))[:, None]
    return points


def _box(
    size: Float[np.ndarray, " 3"],
    turned: Float[np.ndarray, "3 3"],
    middle: Float[np.ndarray, " 3"],
    rng: np.random.Generator,
) -> tuple[Float[np.ndarray, "n 3"], np.ndarray, Float[np.ndarray, "n 2"]]:
    """A rounded box; its front, +Z before it is turned, has the middle of the texture."""
    rows, columns = 15, 25
    up = np.linspace(-np.pi / 2, np.pi / 2, rows)[:, None]
    around = np.linspace(-np.pi, np.pi, columns)[None]
    power = float(rng.uniform(0.25, 0.5))

    def bent(values: np.ndarray) -> np.ndarray:
        return np.sign(values) * np.abs(values) ** power

    x = bent(np.cos(up)) * bent(np.sin(around))
    y = bent(np.sin(up)) * np.ones_like(around)
    z = bent(np.cos(up)) * bent(np.cos(around))
    box = np.stack([x, y, z], -1)
    box[..., [0, 2]] *= 1 - float(rng.uniform(0.0, 0.2)) * (box[..., 1:2] * 0.5 + 0.5)  # narrower at the top
    points = (box * size).reshape(-1, 3) @ turned.T + middle
    u, v = np.broadcast_arrays(0.5 + around / (2 * np.pi), 0.5 + up / np.pi)
    return points, grid_faces(rows, columns)[:, ::-1], np.stack([u, v], -1).reshape(-1, 2)


def _sack_texture(color: Float[np.ndarray, " 3"], rng: np.random.Generator) -> UInt8[np.ndarray, "h w 3"]:
    """A pocket, a lid, a zip, and a mark on the front."""
    size = 128
    v, u = np.meshgrid(1 - (np.arange(size) + 0.5) / size, (np.arange(size) + 0.5) / size, indexing="ij")
    second = patterns.cloth_color(rng) if rng.random() < 0.4 else color * rng.uniform(0.5, 0.8)
    image = np.broadcast_to(color, (size, size, 3)).copy()
    wide, low, high = rng.uniform(0.12, 0.2), rng.uniform(0.22, 0.32), rng.uniform(0.42, 0.56)
    pocket = (np.abs(u - 0.5) < wide) & (v > low) & (v < high)
    rim = (np.abs(u - 0.5) < wide + 0.012) & (v > low - 0.012) & (v < high + 0.012) & ~pocket
    image[pocket] = second
    image[rim] *= 0.55
    if rng.random() < 0.6:
        image[v > rng.uniform(0.62, 0.75)] = second
    image[np.abs(v - high + 0.03) < 0.008] *= 0.4
    if rng.random() < 0.5:
        mark = np.hypot((u - 0.5) / 0.05, (v - 0.5 * (low + high)) / 0.06) < 1
        image[mark] = patterns.cloth_color(rng)
    image *= 1 + 0.06 * rng.standard_normal((size, size, 1))
    return (np.clip(image, 0, 1) * 255).astype(np.uint8)


def _rigid(
    surface: Surface,
    points: Float[np.ndarray, "n 3"],
    faces: np.ndarray,
    uvs: Float[np.ndarray, "n 2"],
    joint: str,
    color: Float[np.ndarray, " 3"],
    rng: np.random.Generator,
    rank: int,
    name: str,
) -> Layer:
    weights = np.zeros((len(points), len(surface.template.joint_names)), np.float32)
    weights[:, surface.template.joint(joint)] = 1
    cloth = Cloth(
        vertices=points.astype(np.float32),
        faces=faces,
        uvs=uvs.astype(np.float32),
        canonical=points.astype(np.float32),
        weights=weights,
        weld=np.arange(len(points)),
    )
    return Layer(
        cloth=cloth,
        texture=_sack_texture(color, rng),
        rank=rank,
        name=name,
        hides=False,
        roughness=float(rng.uniform(0.35, 0.8)),
    )


def _strap_layer(
    strap: Cloth, color: Float[np.ndarray, " 3"], rng: np.random.Generator, rank: int, name: str
) -> Layer:
    shade = np.clip(color * rng.uniform(0.6, 0.95), 0, 1) * 255
    texture = np.broadcast_to(shade, (4, 4, 3)).astype(np.uint8)
    return Layer(cloth=strap, texture=texture, rank=rank, name=name, hides=False)
