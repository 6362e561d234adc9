"""What grows or sits on a head: hair styles beyond the assets', stubble, hats, hoods, scarves and sunglasses."""

import numpy as np
from jaxtyping import Float, UInt8

from humansplat.data.synthetic import patterns
from humansplat.data.synthetic.assets import AssetLibrary
from humansplat.data.synthetic.cloth import Cloth, grid_faces, smooth_noise
from humansplat.data.synthetic.layers import Layer
from humansplat.data.synthetic.shells import Surface, skin_canvas, skin_pattern

NAPE = (1.64, 0.045)
"""Height and depth of the lower end of the scalp on the dummy, metres."""
EYES, MOUTH, CHIN = 1.722, 1.645, 1.60
"""Heights on the dummy's face, metres."""


def scalp(points: Float[np.ndarray, "n 3"], slope: float = 1.0, lift: float = 0.0) -> Float[np.ndarray, " n"]:
    """Positive above the hairline, which rises from the nape to the forehead; metres."""
    return (points[:, 1] - NAPE[0] - lift - slope * (points[:, 2] - NAPE[1])).astype(np.float32)


def beard(points: Float[np.ndarray, "n 3"]) -> Float[np.ndarray, " n"]:
    """Positive on jaw, chin and upper lip; metres."""
    x, y, z = points.T
    lips = np.hypot(x / 0.024, (y - MOUTH) / 0.009) - 1
    return np.minimum.reduce([1.66 + 0.45 * (0.2 - z) - y, y - 1.575, z - 0.115, lips * 0.01]).astype(np.float32)


def paint_hair(
    library: AssetLibrary,
    skin: UInt8[np.ndarray, "h w 3"],
    color: Float[np.ndarray, " 3"],
    *,
    on_scalp: float,
    on_jaw: float,
) -> UInt8[np.ndarray, "s s 3"]:
    """Darken the skin where hair grows, so that no bare scalp shines through strands.

    Args:
        library: Keeps the skin's canvas.
        skin: Its texture.
        color: Of the hair, sRGB.
        on_scalp: Strength on the scalp, in ``[0, 1]``.
        on_jaw: Strength of stubble, in ``[0, 1]``.
    """
    canvas = skin_canvas(library)
    head = canvas.points[:, 1] > 1.56
    points = canvas.points[head]
    shares = on_scalp * np.clip(scalp(points) / 0.02, 0, 1)
    shares = np.maximum(shares, on_jaw * np.clip(beard(points) / 0.008, 0, 1))[:, None]
    colors = canvas.sample(skin).astype(np.float32) / 255
    colors[head] = colors[head] * (1 - shares) + color * shares
    return canvas.finish(colors)


def strand_texture(
    library: AssetLibrary, color: Float[np.ndarray, " 3"], rng: np.random.Generator, curl: float
) -> UInt8[np.ndarray, "h w 3"]:
    """Uneven brightness along the strands, in the texture space of the skin."""
    canvas = skin_canvas(library)
    head = canvas.points[:, 1] > 1.55
    stretch = np.array([1.0, 0.15 + 0.85 * curl, 0.4 + 0.6 * curl], np.float32)
    light = np.ones(len(canvas.points), np.float32)
    light[head] += 0.25 * smooth_noise(canvas.points[head] * stretch, rng, 0.012 + 0.012 * curl)
    return canvas.finish(color * light[:, None])


def draw_hair_shell(
    library: AssetLibrary,
    surface: Surface,
    color: Float[np.ndarray, " 3"],
    rng: np.random.Generator,
    rank: int,
    *,
    feminine: bool,
) -> list[Layer]:
    """Hair as a shell: cropped, combed, curly, an afro, or tied into a bun."""
    kinds = {"crop": 0.4, "short": 0.3, "curly": 0.15, "afro": 0.1, "bun": 0.05}
    if feminine:
        kinds = {"crop": 0.1, "short": 0.15, "curly": 0.25, "afro": 0.15, "bun": 0.35}
    kind = str(rng.choice(list(kinds), p=list(kinds.values())))
    low, high, waves, curl = {
        "crop": (0.003, 0.007, 0.03, 1.0),
        "short": (0.01, 0.024, 0.05, 0.0),
        "curly": (0.02, 0.045, 0.03, 1.0),
        "afro": (0.05, 0.1, 0.03, 1.0),
        "bun": (0.006, 0.014, 0.05, 0.0),
    }[kind]
    cloth = surface.cloth
    points = cloth.canonical
    field = scalp(points, float(rng.uniform(0.85, 1.1)), float(rng.uniform(-0.01, 0.015)))
    if kind in ("short", "curly") and rng.random() < 0.5:  # longer behind
        field = np.maximum(field, np.minimum(0.12 - points[:, 2], points[:, 1] - rng.uniform(1.56, 1.63)))
    field = np.where(surface.regions.head(cloth) + (points[:, 1] > 1.55) > 0.5, field, -1)
    field = field + 0.004 * smooth_noise(points, rng, 0.03)
    full = rng.uniform(low, high)
    rim = np.clip(field / (0.05 if kind == "afro" else 0.025), 0.15, 1) ** 0.6
    thickness = full * rim * (1 + 0.2 * smooth_noise(points, rng, waves))
    shell = surface.shell(field, np.maximum(thickness, 0.002), 4 if kind == "crop" else 25)
    texture = strand_texture(library, color, rng, curl)
    layers = [Layer(cloth=shell, texture=texture, rank=rank, name=f"hair {kind}", roughness=0.6)]
    if kind == "bun":
        layers.append(_ball(surface, rng, color, rank))
    return layers


def draw_beard(
    library: AssetLibrary, surface: Surface, color: Float[np.ndarray, " 3"], rng: np.random.Generator, rank: int
) -> Layer:
    """A full beard as a shell on the jaw."""
    points = surface.cloth.canonical
    field = beard(points) + 0.002 * smooth_noise(points, rng, 0.03)
    long = rng.uniform(0.003, 0.03) * np.clip((1.63 - points[:, 1]) / 0.03, 0.15, 1)
    thickness = (0.003 + long) * np.clip(field / 0.01, 0.2, 1)
    shell = surface.shell(field.astype(np.float32), thickness.astype(np.float32), 3)
    texture = strand_texture(library, color, rng, 0.6)
    return Layer(cloth=shell, texture=texture, rank=rank, name="beard", hides=False, roughness=0.6)


def head_frame(surface: Surface) -> tuple[Float[np.ndarray, " 3"], float]:
    """Where the dummy's head origin lies on this person at rest, and how much larger the head is."""
    cloth = surface.cloth
    head = cloth.canonical[:, 1] > 1.66
    here, there = cloth.vertices[head], cloth.canonical[head]
    scale = float(np.ptp(here[:, 0]) / np.ptp(there[:, 0]))
    return here.mean(0) - scale * there.mean(0), scale


def _placed(
    surface: Surface, points: Float[np.ndarray, "n 3"], faces: np.ndarray, uvs: Float[np.ndarray, "n 2"]
) -> Cloth:
    """A rigid piece on the head, given on the dummy."""
    origin, scale = head_frame(surface)
    weights = np.zeros((len(points), len(surface.template.joint_names)), np.float32)
    weights[:, surface.template.joint("head")] = 1
    return Cloth(
        vertices=(origin + scale * points).astype(np.float32),
        faces=faces,
        uvs=uvs.astype(np.float32),
        canonical=points.astype(np.float32),
        weights=weights,
        weld=np.arange(len(points)),
    )


def _ball(surface: Surface, rng: np.random.Generator, color: Float[np.ndarray, " 3"], rank: int) -> Layer:
    rows, columns = 10, 16
    polar, around = np.meshgrid(np.linspace(0, np.pi, rows), np.linspace(0, 2 * np.pi, columns), indexing="ij")
    radius, angle = rng.uniform(0.03, 0.05), rng.uniform(0.2, 1.9)  # from the top of the head to its back
    centre = np.array([0.0, 1.73 + 0.115 * np.cos(angle), 0.115 - 0.115 * np.sin(angle)])
    sphere = np.stack([np.sin(polar) * np.cos(around), np.cos(polar), np.sin(polar) * np.sin(around)], -1)
    points = (centre + radius * sphere * [1, 0.85, 1]).reshape(-1, 3)
    light = 1 + 0.25 * rng.standard_normal((16, 16, 1))
    uvs = np.stack([around / 7, polar / 4], -1).reshape(-1, 2)
    return Layer(
        cloth=_placed(surface, points, grid_faces(rows, columns)[:, ::-1], uvs),
        texture=(np.clip(light * color, 0, 1) * 255).astype(np.uint8),
        rank=rank,
        name="hair bun",
        hides=False,
        roughness=0.6,
    )


def draw_hat(library: AssetLibrary, surface: Surface, rng: np.random.Generator, rank: int) -> list[Layer]:
    """A beanie, a cap or a hat with a brim."""
    kind = str(rng.choice(["beanie", "cap", "brim", "hood"], p=[0.35, 0.3, 0.2, 0.15]))
    texture, colors = skin_pattern(library, rng)
    cloth = surface.cloth
    points = cloth.canonical
    if kind == "hood":
        x, y, z = points.T
        oval = np.hypot(x / 0.062, (y - 1.695) / 0.1) - 1
        field = np.where(z > 0.13, oval * 0.06, 0.05)
        field = np.minimum(field, points[:, 1] - 1.5)
        field = np.minimum(field, 0.5 - surface.regions.arm(cloth))
        thickness = np.full(len(points), rng.uniform(0.012, 0.03))
    else:
        edge, tilt = rng.uniform(1.755, 1.775), rng.uniform(0.0, 0.35)
        field = points[:, 1] - edge - tilt * (points[:, 2] - 0.12)
        thickness = np.full(len(points), rng.uniform(0.012, 0.02))
        thickness += np.clip(field / 0.08, 0, 1) * rng.uniform(0.0, 0.05)
    shell = surface.shell(field.astype(np.float32), thickness.astype(np.float32), 30)
    layers = [Layer(cloth=shell, texture=texture, rank=rank, name=f"{kind} {colors}")]
    if kind in ("cap", "brim"):
        turn = np.linspace(-np.pi, np.pi, 49) if kind == "brim" else np.linspace(-1.2, 1.2, 25)
        width = rng.uniform(0.05, 0.11) * (np.ones_like(turn) if kind == "brim" else np.cos(turn * 1.25).clip(0.02))
        droop = rng.uniform(0.0, 0.35)
        inner = np.stack([0.086 * np.sin(turn), np.zeros_like(turn), 0.12 + 0.108 * np.cos(turn)], -1)
        outward = np.stack([np.sin(turn), np.full_like(turn, -droop), np.cos(turn)], -1)
        rows = np.stack([inner, inner + 0.5 * width[:, None] * outward, inner + width[:, None] * outward])
        rows[..., 1] += edge + 0.006 + tilt * (rows[..., 2] - 0.12)
        color = texture.reshape(-1, 3)[::97].mean(0)
        layers.append(
            Layer(
                cloth=_placed(
                    surface, rows.reshape(-1, 3), grid_faces(3, len(turn))[:, ::-1], rows.reshape(-1, 3)[:, :2]
                ),
                texture=np.broadcast_to(color, (4, 4, 3)).astype(np.uint8),
                rank=rank,
                name="brim",
                hides=False,
            )
        )
    return layers


def draw_scarf(library: AssetLibrary, surface: Surface, rng: np.random.Generator, rank: int) -> Layer:
    """A scarf or a thick collar."""
    texture, colors = skin_pattern(library, rng)
    points = surface.cloth.canonical
    low, high = rng.uniform(1.48, 1.52), rng.uniform(1.57, 1.61)
    field = np.minimum.reduce([points[:, 1] - low, high - points[:, 1] - 0.3 * (points[:, 2] - 0.1)])
    field = np.minimum(field, 0.3 - surface.regions.arm(surface.cloth))
    noise = smooth_noise(points, rng, 0.08)
    thickness = rng.uniform(0.02, 0.045) + 0.012 * noise
    shell = surface.shell(field.astype(np.float32), np.maximum(thickness, 0.01).astype(np.float32), 20)
    return Layer(cloth=shell, texture=texture, rank=rank, name=f"scarf {colors}")


def draw_sunglasses(surface: Surface, rng: np.random.Generator, rank: int) -> Layer:
    """Dark glasses as a curved strip before the eyes."""
    height = rng.uniform(0.014, 0.026)
    x, y = np.meshgrid(np.linspace(-0.078, 0.078, 17), np.linspace(EYES + height * 0.6, EYES - height, 4))
    bow = np.clip((np.abs(x) - 0.062) / 0.016, 0, 1)
    y = EYES + 0.01 * bow + (y - EYES) * (1 - 0.7 * bow)
    bridge = np.exp(-((x / 0.012) ** 2))
    y = EYES + (y - EYES) * (1 - 0.6 * bridge) + 0.004 * bridge
    z = 0.246 - 5.5 * x**2 - 0.04 * bow
    color = patterns.cloth_color(rng) * 0.25
    return Layer(
        cloth=_placed(
            surface,
            np.stack([x, y, z], -1).reshape(-1, 3),
            grid_faces(4, 17),
            np.zeros((x.size, 2)),
        ),
        texture=np.broadcast_to(color * 255, (4, 4, 3)).astype(np.uint8),
        rank=rank,
        name="sunglasses",
        hides=False,
        specular=0.06,
        roughness=0.2,
    )
