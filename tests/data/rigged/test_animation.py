"""Sampling of animations against closed forms."""

from pathlib import Path

import numpy as np
import pytest
from glb_files import Builder
from scipy.spatial.transform import Rotation

from humansplat.data.rigged.animation import Animation
from humansplat.data.rigged.gltf import Scene, read_gltf
from humansplat.data.rigged.transforms import global_frames
from humansplat.errors import UserError

TIMES = np.array([0.0, 1.0, 3.0], np.float32)


def animated(path: Path, mode: str, target: str, values: np.ndarray) -> tuple[Scene, Animation]:
    builder = Builder()
    builder.add("nodes", name="a", translation=[5.0, 0.0, 0.0], children=[1])
    builder.add("nodes", name="b", matrix=np.eye(4).ravel().tolist())
    sampler = {"input": builder.accessor(TIMES), "output": builder.accessor(values), "interpolation": mode}
    builder.add(
        "animations", name="go", samplers=[sampler], channels=[{"sampler": 0, "target": {"node": 1, "path": target}}]
    )
    scene = read_gltf(builder.save(path / "a.glb"))
    return scene, scene.animations[0]


def place(scene: Scene, animation: Animation, time: float) -> np.ndarray:
    return global_frames(animation.sample(scene.pose, time).local(), scene.parents, scene.order)[1]


def test_linear_translations_and_steps(tmp_path: Path) -> None:
    values = np.array([[0, 0, 0], [2, 0, 0], [2, 4, 0]], np.float32)
    scene, animation = animated(tmp_path, "LINEAR", "translation", values)
    assert (animation.name, animation.duration) == ("go", 3.0)
    for time, expected in ((-1, [5, 0, 0]), (0.25, [5.5, 0, 0]), (2.0, [7, 2, 0]), (3.0, [7, 4, 0]), (9.0, [7, 4, 0])):
        np.testing.assert_allclose(place(scene, animation, time)[:3, 3], expected, atol=1e-6)
    scene, animation = animated(tmp_path, "STEP", "translation", values)
    for time, expected in ((0.99, [5, 0, 0]), (1.0, [7, 0, 0]), (2.99, [7, 0, 0]), (3.0, [7, 4, 0])):
        np.testing.assert_allclose(place(scene, animation, time)[:3, 3], expected, atol=1e-6)


def test_linear_rotations_take_the_short_way_at_constant_speed(tmp_path: Path) -> None:
    end = -Rotation.from_rotvec([0, 0, 1.2]).as_quat()  # the same rotation, on the far side of the sphere
    values = np.stack([[0, 0, 0, 1.0], end, end]).astype(np.float32)
    scene, animation = animated(tmp_path, "LINEAR", "rotation", values)
    for share in (0.25, 0.5, 0.9):
        turned = Rotation.from_matrix(place(scene, animation, share)[:3, :3]).as_rotvec()
        np.testing.assert_allclose(turned, [0, 0, 1.2 * share], atol=1e-6)


def test_cubic_splines_follow_their_polynomial(tmp_path: Path) -> None:
    def cubic(t: np.ndarray) -> np.ndarray:
        return np.stack([t**3 - 2 * t, 0.5 * t**2, 1 + 0 * t], -1)

    def slope(t: np.ndarray) -> np.ndarray:
        return np.stack([3 * t**2 - 2, t, 0 * t], -1)

    values = np.stack([slope(TIMES), cubic(TIMES), slope(TIMES)], 1).reshape(9, 3).astype(np.float32)
    scene, animation = animated(tmp_path, "CUBICSPLINE", "translation", values)
    for time in (0.0, 0.3, 1.0, 1.7, 2.9, 3.0):
        expected = cubic(np.array(time)) + [5, 0, 0]
        np.testing.assert_allclose(place(scene, animation, time)[:3, 3], expected, atol=1e-5)


@pytest.mark.parametrize("count", [2, 4])
def test_values_that_do_not_fit_the_times_are_refused(tmp_path: Path, count: int) -> None:
    with pytest.raises(UserError, match=r"3 ascending times"):
        animated(tmp_path, "LINEAR", "translation", np.zeros((count, 3), np.float32))


def test_a_turn_that_is_none_leaves_the_node_at_rest(tmp_path: Path) -> None:
    values = np.zeros((3, 4), np.float32)
    values[2] = [0, 0, 0, 1]
    scene, animation = animated(tmp_path, "LINEAR", "rotation", values)
    for time in (0.5, 2.0, 3.0):
        np.testing.assert_allclose(place(scene, animation, time)[:3, :3], np.eye(3), atol=1e-6)
