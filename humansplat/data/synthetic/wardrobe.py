"""Choosing and fitting what a person wears."""

from dataclasses import dataclass

import numpy as np

from humansplat.data.synthetic.assets import AssetLibrary, Piece
from humansplat.data.synthetic.cloth import Cloth, inflate, smooth_noise
from humansplat.data.synthetic.figure import Template
from humansplat.data.synthetic.layers import Layer
from humansplat.data.synthetic.regions import Regions
from humansplat.data.synthetic.roles import Role
from humansplat.data.synthetic.shells import Surface, draw_shoes, draw_top, draw_trousers
from humansplat.data.synthetic.skirts import draw_coat, draw_dress, draw_skirt
from humansplat.data.synthetic.splits import Split
from humansplat.data.synthetic.textures import garment_texture

SHOES, LOWER, UPPER, FULL, COAT, EXTRA = 10, 20, 30, 40, 50, 60
"""Ranks of layers, from the skin outwards."""
FINE = 4000
"""Vertices from which on an asset has wrinkles of its own."""
MISFIT = 0.3
"""How often, against others, an asset made for the other sex is worn."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Dresser:
    """Everything that fitting needs to know of one person."""

    library: AssetLibrary
    """Where pieces come from."""
    split: Split
    """Which assets may be used."""
    rest: np.ndarray
    """Shaped base mesh at rest, ``[b, 3]``."""
    feminine: bool
    """Whether skirts, dresses and assets made for women are likely, and those made for men unlikely."""
    rng: np.random.Generator
    """Source of all choices."""

    @property
    def template(self) -> Template:
        """What all bodies share."""
        return self.library.template

    def pick(self, role: Role) -> Piece | None:
        """Draw an asset's piece that is worn in a place; ``None`` when the split has none."""
        return self.choose(self.library.pieces(role, self.split))

    def choose(self, pieces: list[Piece]) -> Piece | None:
        """Draw one of some pieces, rarely one made for the other sex."""
        if not pieces:
            return None
        other = "male_" if self.feminine else "female_"
        shares = np.array([MISFIT if piece.asset.startswith(other) else 1.0 for piece in pieces])
        return pieces[int(self.rng.choice(len(pieces), p=shares / shares.sum()))]


def dress(dresser: Dresser, surface: Surface, *, room: float) -> list[Layer]:
    """Draw an outfit.

    Validation people wear only held-out assets; procedural pieces have no identity to hold out and are for training.

    Args:
        dresser: The person.
        surface: Their skin at rest.
        room: How far the thighs are spread or lifted, radians: skirts must leave them room.

    Returns:
        Layers, inner ones first.
    """
    if dresser.split != "train":
        lower = _asset(dresser, "lower", LOWER) or _asset(dresser, "full", FULL)
        return [*lower, *_asset(dresser, "upper", UPPER), *_asset(dresser, "shoes", SHOES)]
    rng, library = dresser.rng, dresser.library
    layers: list[Layer] = []
    skirts = (0.38 if dresser.feminine else 0.03) * (0.6 if room > 1.2 else 1.0)
    overalls = dresser.pick("full") if rng.random() < 0.07 else None
    if overalls is not None:
        layers.append(asset_layer(dresser, overalls, FULL))
        layers += _upper(dresser, surface, under=True)
    elif rng.random() < 0.4 * skirts:
        layers += draw_dress(library, surface, rng, UPPER, room)
    else:
        if rng.random() < skirts:
            layers.append(draw_skirt(library, surface, rng, LOWER, room))
        elif rng.random() < 0.45:
            layers.append(draw_trousers(library, surface, rng, LOWER))
        else:
            layers += _asset(dresser, "lower", LOWER) or [draw_trousers(library, surface, rng, LOWER)]
        layers += _upper(dresser, surface, under=False)
        if rng.random() < 0.2:
            layers += draw_coat(library, surface, rng, COAT, room, long=bool(rng.random() < 0.5))
    layers += draw_shoes(library, surface, rng, SHOES) if rng.random() < 0.35 else _asset(dresser, "shoes", SHOES)
    return layers


def _upper(dresser: Dresser, surface: Surface, *, under: bool) -> list[Layer]:
    """A top; some assets' tops are too short to be worn without the overalls that they belong to."""
    pieces = dresser.library.pieces("upper", dresser.split)
    if not pieces or dresser.rng.random() < 0.5:
        return [draw_top(dresser.library, surface, dresser.rng, UPPER)]
    pieces = [piece for piece in pieces if under or piece.cloth.canonical[:, 1].min() < 1.05] or pieces
    piece = dresser.choose(pieces)
    return [asset_layer(dresser, piece, UPPER)] if piece is not None else []


def _asset(dresser: Dresser, role: Role, rank: int) -> list[Layer]:
    piece = dresser.pick(role)
    return [asset_layer(dresser, piece, rank)] if piece is not None else []


def asset_layer(dresser: Dresser, piece: Piece, rank: int) -> Layer:
    """Fit an asset's piece, vary its cut and width, and colour it."""
    rng = dresser.rng
    cloth = piece.fit(dresser.rest)
    texture, colors = garment_texture(dresser.library, piece, rng, lettered=dresser.split == "train")
    cuts = ""
    if piece.role == "upper" and rng.random() < 0.35:
        cloth, cuts = _cut_upper(cloth, Regions(dresser.template), rng)
    elif piece.role in ("lower", "full") and rng.random() < 0.3:
        cloth, cuts = _cut_lower(cloth, Regions(dresser.template), rng)
    if piece.role in ("upper", "lower", "full") and rng.random() < 0.6:
        cloth = _loosen(cloth, rng)
    leather = piece.role == "shoes"
    layer = Layer(
        cloth=cloth,
        texture=texture,
        rank=rank,
        name=f"{piece.asset}/{piece.role}{cuts} {colors}",
        asset=f"clothes/{piece.asset}",
        specular=0.04 if leather else 0.03,
        roughness=float(rng.uniform(0.3, 0.8)) if leather else 0.85,
    )
    if dresser.split == "train" and not leather and len(cloth.vertices) < FINE:
        return layer.softened(dresser.template, rng, float(rng.uniform(0.1, 0.5)))
    return layer


def _cut_upper(cloth: Cloth, regions: Regions, rng: np.random.Generator) -> tuple[Cloth, str]:
    if rng.random() < 0.7:
        return cloth.clip(regions.sleeve(cloth, float(rng.uniform(0.08, 0.75)))), "-sleeves"
    return cloth.clip(cloth.canonical[:, 1] - rng.uniform(1.0, 1.12)), "-hem"


def _cut_lower(cloth: Cloth, regions: Regions, rng: np.random.Generator) -> tuple[Cloth, str]:
    return cloth.clip(cloth.canonical[:, 1] - rng.uniform(0.25, 0.72)), "-legs"


def _loosen(cloth: Cloth, rng: np.random.Generator) -> Cloth:
    """Make a piece wider with smooth unevenness, more so towards its lower end."""
    height = cloth.canonical[:, 1]
    drop = (height.max() - height) / max(float(np.ptp(height)), 0.1)
    noise = smooth_noise(cloth.canonical, rng, float(rng.uniform(0.12, 0.4)))
    amount = rng.uniform(0.0, 0.02) + rng.uniform(0.0, 0.025) * drop + rng.uniform(0.0, 0.006) * noise
    return inflate(cloth, np.maximum(amount, 0.0).astype(np.float32))
