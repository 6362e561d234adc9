"""Shells around parts of the skin."""

import numpy as np
import pytest

from humansplat.data.synthetic import AssetLibrary
from humansplat.data.synthetic.cloth import normals
from humansplat.data.synthetic.coverage import cover
from humansplat.data.synthetic.figure import Figure
from humansplat.data.synthetic.layers import skin_mesh
from humansplat.data.synthetic.shells import Surface, draw_shoes, draw_trousers


@pytest.fixture(scope="module")
def surface(tiny_library: AssetLibrary) -> Surface:
    return Surface(tiny_library, tiny_library.template.canonical)


def test_diffusion_draws_tips_in_no_deeper_than_asked_for(surface: Surface) -> None:
    skin = surface.cloth
    feet = (0.1 - skin.canonical[:, 1]).astype(np.float32)
    thin = np.full(len(feet), 0.006, np.float32)
    cut = skin.clip(feet)
    outward = normals(cut.vertices, cut.faces, cut.weld)

    def depth(deepest: float) -> np.ndarray:
        shell = surface.shell(feet, thin, 60, deepest=deepest)
        return ((cut.vertices - shell.vertices) * outward).sum(1)

    free = depth(np.inf)
    assert free.max() > 0.03  # what this is for
    held = depth(0.01)
    assert held.max() < 0.0101
    np.testing.assert_allclose(held[free < 0.01], free[free < 0.01], atol=1e-6)


def test_no_heel_shows_behind_a_shoe(tiny_library: AssetLibrary, surface: Surface) -> None:
    skin = surface.cloth
    back = skin.canonical[:, 2][skin.canonical[:, 1] < 0.06].min()
    heels = (skin.canonical[:, 1] < 0.06) & (skin.canonical[:, 2] < back + 0.02)
    worn = [layer for seed in range(5) for layer in draw_shoes(tiny_library, surface, np.random.default_rng(seed), 10)]
    assert len(worn) > 2
    for layer in worn:
        outer = [(layer.cloth.vertices, layer.cloth.faces)]
        assert cover(skin.vertices, normals(skin.vertices, skin.faces, skin.weld), outer).hidden[heels].all()


def test_knees_are_hidden_by_wide_trousers_and_ankles_are_not(tiny_library: AssetLibrary, surface: Surface) -> None:
    template = surface.template
    drawn = (draw_trousers(tiny_library, surface, np.random.default_rng(seed), 20) for seed in range(99))
    wide = next(layer for layer in drawn if layer.falls is not None and layer.cloth.canonical[:, 1].min() < 0.15)
    still = np.repeat(np.eye(3, 4, dtype=np.float32)[None], len(template.joint_names), axis=0)
    figure = Figure(rest=template.canonical, transforms=still)
    shown = skin_mesh([wide], template, figure, np.zeros((4, 4, 3), np.uint8))
    heights = shown.vertices[np.unique(shown.faces)][:, 1]
    assert not ((heights > 0.45) & (heights < 0.6)).any()
    assert ((heights > 0.1) & (heights < 0.2)).any()
