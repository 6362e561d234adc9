import numpy as np
import pytest

from humansplat.capture.background import background_difference, sure_background
from humansplat.capture.carried import carried_things


@pytest.fixture
def scene():
    """Dark legs and a red ball before a light wall; the coarse mask joins the legs too far down."""
    y, _ = np.mgrid[0:300, 0:240]
    image = np.repeat((0.95 - 0.0004 * y)[..., None], 3, axis=-1).astype(np.float32)
    image[40:260, 90:120] = image[40:260, 128:158] = (0.1, 0.1, 0.3)
    image[40:165, 90:158] = (0.1, 0.1, 0.3)
    image[120:160, 30:70] = (0.8, 0.1, 0.1)
    inside = np.zeros((300, 240), dtype=bool)
    inside[40:260, 90:158] = True
    inside[172:260, 120:128] = False
    return image, inside


def test_a_gap_between_the_legs_is_background(scene):
    image, inside = scene
    difference = background_difference(image, inside)
    assert difference is not None
    sure = sure_background(difference, inside, graph_pixel=2.0)
    assert sure[166:171, 121:127].all()
    assert not sure[40:260, 90:120].any()
    assert not sure[40:165, 90:158].any()


def test_a_person_of_the_background_s_colour_is_left_whole(scene):
    image, inside = scene
    image = np.where(inside[..., None], image[0, 0], image)
    difference = background_difference(image, inside)
    assert difference is not None
    assert not sure_background(difference, inside, graph_pixel=2.0)[45:165, 95:150].any()


def test_a_lively_background_says_nothing(scene):
    image, inside = scene
    noise = np.random.default_rng(0).uniform(-0.2, 0.2, image.shape)
    assert background_difference((image + noise).clip(0, 1).astype(np.float32), inside) is None


def test_only_things_near_a_hand_are_carried(scene):
    image, inside = scene
    image[272:284, 212:224] = (0.1, 0.6, 0.1)  # something else on the floor
    difference = background_difference(image, inside)
    assert difference is not None
    things = carried_things(difference, inside, np.array([[72.0, 130.0]]))
    assert things[120:160, 30:70].all()
    assert things.sum() == 40 * 40
    assert not carried_things(difference, inside, np.array([[150.0, 60.0]])).any()
