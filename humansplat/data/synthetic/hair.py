"""Long hair: locks that hang from the scalp and fall on head, neck and shoulders; loose, tied or braided."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, UInt8

from humansplat.data.synthetic.assets import AssetLibrary
from humansplat.data.synthetic.cloth import Cloth, grid_faces, smooth_noise
from humansplat.data.synthetic.drape import Fabric
from humansplat.data.synthetic.headwear import head_frame, scalp, strand_texture
from humansplat.data.synthetic.layers import Layer
from humansplat.data.synthetic.shells import Surface

CROWN = np.array([0.0, 1.80, 0.10])
"""Where hair parts on the dummy, metres."""
MIDDLE = np.array([0.0, 1.72, 0.115])
"""Of the head on the dummy."""
SEGMENT = 0.03
"""Distance of the knots of a lock, metres."""
ACROSS = 3
"""Vertices across a lock."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Strands:
    """Locks at rest on the dummy: their middles, and half of their width as a vector."""

    middles: Float[np.ndarray, "l k 3"]
    halves: Float[np.ndarray, "l k 3"]
    hold: Float[np.ndarray, "l k"]
    """1 where a lock lies on the head, 0 where it falls."""


def draw_long_hair(
    library: AssetLibrary, surface: Surface, color: Float[np.ndarray, " 3"], rng: np.random.Generator, rank: int
) -> list[Layer]:
    """Loose hair to shoulders, chest or waist, a pony tail or a braid, over a cap that covers the scalp."""
    kind = str(rng.choice(["loose", "pony tail", "braid"], p=[0.6, 0.22, 0.18]))
    length = float(
        rng.choice([rng.uniform(0.1, 0.2), rng.uniform(0.2, 0.38), rng.uniform(0.38, 0.6)], p=[0.4, 0.4, 0.2])
    )
    cap = _cap(library, surface, color, rng, rank)
    strands = loose_locks(rng, length) if kind == "loose" else tail(rng, length, braided=kind == "braid")
    cloth, woven = _hung(surface, strands, clearance=0.006 if kind == "loose" else 0.012)
    texture = lock_texture(color, rng, braided=kind == "braid")
    return [
        cap,
        Layer(
            cloth=cloth,
            texture=texture,
            rank=rank + 1,
            name=f"hair {kind} {length:.2f}",
            alpha="cutout",
            hides=False,
            falls=woven,
            specular=0.04,
            roughness=0.5,
        ),
    ]


def _cap(
    library: AssetLibrary, surface: Surface, color: Float[np.ndarray, " 3"], rng: np.random.Generator, rank: int
) -> Layer:
    points = surface.cloth.canonical
    field = scalp(points, float(rng.uniform(0.85, 1.0)), 0.004)
    field = np.where(surface.regions.head(surface.cloth) + (points[:, 1] > 1.55) > 0.5, field, -1)
    field = (field + 0.003 * smooth_noise(points, rng, 0.03)).astype(np.float32)
    thickness = (rng.uniform(0.006, 0.014) * np.clip(field / 0.03, 0.2, 1) ** 0.6).astype(np.float32)
    shell = surface.shell(field, np.maximum(thickness, 0.002), 12)
    texture = strand_texture(library, color, rng, 0.0)
    return Layer(cloth=shell, texture=texture, rank=rank, name="hair cap", roughness=0.6)


def loose_locks(rng: np.random.Generator, length: float) -> Strands:
    """Locks from a parting over the head and down, in three storeys, none over the face.

    Args:
        rng: Source of parting, width and waves.
        length: How far the locks reach below the chin, metres.
    """
    parting = float(rng.normal(0.0, 0.025))
    fringe = float(rng.uniform(0.75, 1.25))  # radians from the front that stay free
    curl, waves = float(rng.uniform(0.0, 0.012)), float(rng.uniform(0.06, 0.14))
    roots: list[tuple[float, float]] = []
    for storey, count in ((0.25, 16), (0.6, 22), (0.95, 26)):
        turns = np.linspace(fringe, 2 * np.pi - fringe, count) + rng.normal(0, 0.05, count)
        roots += [(float(turn), storey) for turn in turns]
    knots = int(np.ceil((0.2 + length) / SEGMENT)) + 4
    middles, halves, hold = [], [], []
    for turn, storey in roots:
        over = np.linspace(storey * 0.9, 1.75, 7)  # angle from the crown down to the ears' height
        radius = np.array([0.083, 0.108, 0.108]) + 0.010 + 0.004 * storey
        side = np.array([np.sin(turn), 0.0, np.cos(turn)])
        arc = MIDDLE + radius * (np.sin(over)[:, None] * side + np.cos(over)[:, None] * np.array([0.0, 1.0, 0.0]))
        arc[:, 0] += parting * np.clip(1 - over / 1.2, 0, 1)
        rest = length * float(rng.uniform(0.85, 1.08)) + 0.12
        extra = knots - len(arc)
        below = arc[-1] + np.outer(np.linspace(1, extra, extra) * rest / extra, [0.0, -1.0, 0.0])
        line = np.concatenate([arc, below])
        down = np.linspace(0, 1, knots)
        swing = curl * np.clip(down * 2, 0, 1) * np.sin(2 * np.pi * down * rest / waves + rng.uniform(0, 6.3))
        tangent = np.array([np.cos(turn), 0.0, -np.sin(turn)])
        line = line + swing[:, None] * tangent
        width = float(rng.uniform(0.017, 0.026)) * np.interp(down, [0, 0.15, 0.75, 1], [0.7, 1, 0.9, 0.35])
        middles.append(line)
        halves.append(width[:, None] * tangent)
        hold.append(np.interp(np.arange(knots), [4, 8], [1.0, 0.0]))
    return Strands(middles=np.array(middles), halves=np.array(halves), hold=np.array(hold))


def tail(rng: np.random.Generator, length: float, *, braided: bool) -> Strands:
    """A bundle from one place at the back of the head: ribbons around a middle line.

    Args:
        rng: Source of place and thickness.
        length: How far it reaches below the chin, metres.
        braided: Whether it is thin, even, and begins at the nape.
    """
    angle = float(rng.uniform(1.5, 2.0) if braided else rng.uniform(0.7, 1.7))  # from the crown to the back
    start = MIDDLE + np.array([0.0, 0.118 * np.cos(angle), -0.118 * np.sin(angle)])
    reach = max(start[1] - 1.6, 0.0) + length
    knots = int(np.ceil(reach / SEGMENT)) + 2
    down = np.linspace(0, 1, knots)
    line = (
        start + np.outer(np.minimum(down * reach, 0.05), [0.0, 0.0, -0.6]) + np.outer(down * reach, [0.0, -1.0, 0.0])
    )
    thick = float(rng.uniform(0.016, 0.024))
    if braided:
        girth = thick * np.interp(down, [0, 0.05, 0.85, 0.9, 1], [0.9, 1, 0.7, 0.3, 0.5])
        girth = girth * (1 + 0.14 * np.abs(np.sin(down * reach / 0.022 * np.pi / 2)))
    else:
        girth = 1.2 * thick * np.interp(down, [0, 0.06, 0.35, 0.8, 1], [0.45, 1, 1.35, 1, 0.25])
    middles, halves = [], []
    for turn in np.linspace(0, 2 * np.pi, 8 if braided else 12, endpoint=False):
        out = np.array([np.sin(turn), 0.0, np.cos(turn)])
        across = np.array([np.cos(turn), 0.0, -np.sin(turn)])
        middles.append(line + girth[:, None] * out)
        halves.append(0.55 * girth[:, None] * across)
    hold = np.broadcast_to(np.interp(np.arange(knots), [1, 3], [1.0, 0.0]), (len(middles), knots)).copy()
    return Strands(middles=np.array(middles), halves=np.array(halves), hold=hold)


def _hung(surface: Surface, strands: Strands, *, clearance: float) -> tuple[Cloth, Fabric]:
    """Ribbons as a piece on this person's head, and their threads."""
    template = surface.template
    origin, scale = head_frame(surface)
    locks, knots = strands.hold.shape
    across = np.linspace(-1, 1, ACROSS)
    points = strands.middles[:, :, None] + across[:, None] * strands.halves[:, :, None]
    bulge = strands.middles - MIDDLE
    bulge /= np.linalg.norm(bulge, axis=-1, keepdims=True)
    points = points + 0.004 * (1 - across**2)[:, None] * bulge[:, :, None]
    count = locks * knots * ACROSS
    index = np.arange(count).reshape(locks, knots, ACROSS)
    faces = (grid_faces(knots, ACROSS) + index[:, :1, :1]).reshape(-1, 3)
    down, sideways = np.meshgrid(np.linspace(1, 0, knots), np.linspace(0, 1, ACROSS), indexing="ij")
    column = np.arange(locks)[:, None, None]
    uvs = np.stack([(column % 8 + 0.04 + 0.92 * sideways) / 8, np.broadcast_to(down, (locks, knots, ACROSS))], -1)
    weights = np.zeros((count, len(template.joint_names)), np.float32)
    weights[:, template.joint("head")] = 1
    flat = points.reshape(-1, 3)
    cloth = Cloth(
        vertices=(origin + scale * flat).astype(np.float32),
        faces=faces,
        uvs=uvs.reshape(-1, 2).astype(np.float32),
        canonical=flat.astype(np.float32),
        weights=weights,
        weld=np.arange(count),
    )
    lines = [np.stack([index[:, :-1], index[:, 1:]], -1), np.stack([index[:, :, :-1], index[:, :, 1:]], -1)]
    slants = [
        np.stack([index[:, :-1, :-1], index[:, 1:, 1:]], -1),
        np.stack([index[:, :-1, 1:], index[:, 1:, :-1]], -1),
    ]
    bends = [np.stack([index[:, :-2], index[:, 2:]], -1)]
    groups = [np.concatenate([item.reshape(-1, 2) for item in group]) for group in (lines, slants, bends)]
    edges = np.concatenate(groups)
    stiffness = np.repeat([1.0, 0.5, 0.08], [len(group) for group in groups]).astype(np.float32)
    ends = cloth.vertices[edges]
    woven = Fabric(
        edges=edges,
        stiffness=stiffness,
        hold=np.broadcast_to(strands.hold[..., None], index.shape).reshape(-1).astype(np.float32).copy(),
        lengths=np.linalg.norm(ends[:, 0] - ends[:, 1], axis=1).astype(np.float32),
        clearance=clearance,
    )
    return cloth, woven


def lock_texture(
    color: Float[np.ndarray, " 3"], rng: np.random.Generator, *, braided: bool = False
) -> UInt8[np.ndarray, "h w 4"]:
    """Eight locks side by side: strands of uneven brightness that end at uneven heights."""
    height, width = 128, 256
    strands = rng.uniform(0.62, 1.3, width)
    strands = 0.6 * strands + 0.4 * np.repeat(rng.uniform(0.7, 1.2, width // 4), 4)
    down = np.linspace(0, 1, height)[:, None]
    light = strands * (1 + 0.1 * np.sin(2 * np.pi * (down * 2 + rng.uniform(0, 1, 8).repeat(width // 8))))
    x = np.linspace(0, 8, width, endpoint=False) % 1.0
    if braided:
        light = light * (0.75 + 0.35 * np.abs(np.sin(np.pi * (down * 18 + x))))
    ends = rng.uniform(0.72, 1.05, width) - 1.4 * np.clip(np.abs(x - 0.5) - 0.3, 0, 1)
    alpha = np.where(down < ends, 255, 0)
    if braided:
        alpha = np.full((height, width), 255)
    roots = np.clip(0.8 + down, 0, 1)
    image = np.clip(light[..., None] * color * roots[..., None], 0, 1) * 255
    return np.concatenate([image, alpha[..., None]], -1).astype(np.uint8)
