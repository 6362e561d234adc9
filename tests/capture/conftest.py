"""A drawn person, which the pose graph takes for a real one, and the graph itself."""

import os
from pathlib import Path

import pytest
from PIL import Image, ImageDraw

from humansplat.capture.graph import PoseGraph, default_graph

SKIN, SHIRT, JEANS, SHOE, HAIR = (214, 164, 132), (60, 90, 150), (40, 44, 60), (50, 30, 25), (50, 34, 26)


def draw_person(
    width: int = 400, height: int = 600, scale: float = 1.0, x: float = 200, y: float = 36, background=(235, 238, 240)
) -> Image.Image:
    """A person of about ``520 * scale`` px whose head is centred at ``x`` and begins at ``y``."""
    fine = 2  # drawn at twice the size, for smooth edges
    image = Image.new("RGB", (width * fine, height * fine), background)
    draw = ImageDraw.Draw(image)

    def place(px: float, py: float) -> tuple[float, float]:
        return (x + px * scale) * fine, (y + py * scale) * fine

    def limb(points, radius, color) -> None:
        r = radius * scale * fine
        placed = [place(*point) for point in points]
        draw.line(placed, fill=color, width=int(2 * r))
        for px, py in placed:
            draw.ellipse([px - r, py - r, px + r, py + r], fill=color)

    for side in (-1, 1):
        limb([(side * 28, 250), (side * 34, 370), (side * 38, 480)], 22, JEANS)
        limb([(side * 38, 492), (side * 46, 505)], 13, SHOE)
        limb([(side * 58, 105), (side * 82, 180), (side * 92, 250)], 15, SHIRT)
        limb([(side * 92, 252), (side * 95, 272)], 11, SKIN)
    body = [(-62, 92), (62, 92), (52, 180), (54, 265), (-54, 265), (-52, 180)]
    draw.polygon([place(*point) for point in body], fill=SHIRT)
    limb([(0, 70), (0, 90)], 14, SKIN)
    draw.ellipse([*place(-33, -8), *place(33, 58)], fill=HAIR)
    draw.ellipse([*place(-30, 8), *place(30, 78)], fill=SKIN)
    for side in (-1, 1):
        draw.ellipse([*place(side * 11 - 5, 33), *place(side * 11 + 5, 39)], fill=(30, 30, 30))
        draw.line([place(side * 5, 28), place(side * 17, 27)], fill=HAIR, width=int(3 * scale * fine))
    draw.line([place(0, 38), place(-3, 50), place(2, 51)], fill=(170, 120, 95), width=int(2.5 * scale * fine))
    draw.line([place(-9, 60), place(9, 60)], fill=(160, 70, 70), width=int(4 * scale * fine))
    return image.resize((width, height), Image.Resampling.LANCZOS)


@pytest.fixture(scope="session")
def person_picture() -> Image.Image:
    return draw_person()


@pytest.fixture(scope="session")
def graph() -> PoseGraph:
    """The pose graph of this machine; it is fetched when it is not in the cache yet."""
    pytest.importorskip("ai_edge_litert", reason="the extra 'photo' is not installed")
    return default_graph()


@pytest.fixture(scope="session")
def photos() -> Path:
    """Real photos, where they lie beside the repository."""
    assets = Path(os.environ.get("HUMANSPLAT_ASSETS", Path(__file__).parents[2].parent / "shared"))
    if not (assets / "photos").is_dir():
        pytest.skip(f"no photos in {assets}")
    return assets / "photos"
