"""Cloth that falls: on simple bodies, and skirts of real people on their legs."""

from typing import Literal

import numpy as np
import pytest
from scipy.spatial import cKDTree
from scipy.spatial.transform import Rotation

from humansplat.data.synthetic import AssetLibrary
from humansplat.data.synthetic.bags import Bag, bag_layers, draw_bag, height_of_clothes
from humansplat.data.synthetic.cloth import Cloth
from humansplat.data.synthetic.drape import Fabric, Obstacle, drape, fabric, obstacle, pierced, thinned
from humansplat.data.synthetic.figure import Figure, Template, joint_transforms, stage_transforms
from humansplat.data.synthetic.hair import draw_long_hair
from humansplat.data.synthetic.layers import Layer, carriers, dressed_meshes
from humansplat.data.synthetic.limbs import turn
from humansplat.data.synthetic.poses import to_array
from humansplat.data.synthetic.shells import Surface, draw_top
from humansplat.data.synthetic.skirts import draw_coat, draw_cut, draw_skirt, skirt_cloth
from humansplat.data.synthetic.wrinkles import draw_wrinkles, refined, wrinkled


def sheet(size: int = 15, side: float = 0.5) -> Cloth:
    """A flat square at height 1, all of it carried by one joint."""
    x, z = np.meshgrid(np.linspace(-side / 2, side / 2, size), np.linspace(-side / 2, side / 2, size), indexing="ij")
    points = np.stack([x, np.ones_like(x), z], -1).reshape(-1, 3).astype(np.float32)
    index = np.arange(size * size).reshape(size, size)
    a, b, c, d = index[:-1, :-1], index[:-1, 1:], index[1:, :-1], index[1:, 1:]
    faces = np.concatenate([np.stack([a, b, c], -1).reshape(-1, 3), np.stack([b, d, c], -1).reshape(-1, 3)])
    return Cloth(
        vertices=points,
        faces=faces,
        uvs=points[:, [0, 2]].copy(),
        canonical=points.copy(),
        weights=np.ones((len(points), 1), np.float32),
        weld=np.arange(len(points)),
    )


def still_figure() -> Figure:
    transforms = np.eye(3, 4, dtype=np.float32)[None]
    return Figure(rest=np.zeros((1, 3), np.float32), transforms=transforms, stages=np.repeat(transforms[None], 4, 0))


def ball(radius: float, middle: np.ndarray) -> Obstacle:
    turns = np.random.default_rng(0).normal(size=(3000, 3))
    outward = turns / np.linalg.norm(turns, axis=1, keepdims=True)
    points = (middle + radius * outward).astype(np.float32)
    return Obstacle(points=points, outward=outward.astype(np.float32), weights=np.ones((3000, 1), np.float32))


def test_a_sheet_falls_over_a_ball_and_keeps_its_threads() -> None:
    cloth = sheet()
    woven = fabric(cloth, np.zeros(len(cloth.vertices)), bending=0.05, clearance=0.01)
    middle = np.array([0.0, 0.84, 0.0])
    fallen = drape(cloth, woven, still_figure(), [ball(0.15, middle)])
    distance = np.linalg.norm(fallen - middle, axis=1)
    assert distance.min() > 0.152  # none inside the ball
    assert fallen[0, 1] < 0.9  # corners hang
    lengths = np.linalg.norm(fallen[woven.edges[:, 0]] - fallen[woven.edges[:, 1]], axis=1)
    threads = woven.stiffness == 1
    np.testing.assert_allclose(lengths[threads] / woven.lengths[threads], 1, atol=0.3)
    np.testing.assert_array_equal(fallen, drape(cloth, woven, still_figure(), [ball(0.15, middle)]))


def test_what_is_held_stays_with_the_body_and_nothing_goes_through_the_floor() -> None:
    cloth = sheet()
    hold = (cloth.vertices[:, 0] < -0.2).astype(np.float64)
    far = ball(0.05, np.array([5.0, 0.0, 0.0]))
    woven = fabric(cloth, hold, bending=0.05, clearance=0.01)
    fallen = drape(cloth, woven, still_figure(), [far])
    np.testing.assert_allclose(fallen[hold == 1], cloth.vertices[hold == 1], atol=1e-6)
    assert fallen[hold == 0, 1].mean() < 0.95
    low = cloth.moved(cloth.vertices - [0, 0.99, 0])
    assert drape(low, woven, still_figure(), [far])[hold == 0, 1].min() >= 0.004 - 1e-6
    pressed = woven.pressed(np.ones(len(cloth.vertices)), cloth.weld)
    np.testing.assert_allclose(drape(cloth, pressed, still_figure(), [far]), cloth.vertices, atol=1e-6)


def test_thinning_keeps_one_point_a_cube_and_a_bone_through_a_sheet_is_found() -> None:
    points = np.random.default_rng(0).uniform(-1, 1, (500, 3))
    assert len(np.unique(np.floor(points[thinned(points, 0.5)] / 0.5), axis=0)) == len(thinned(points, 0.5)) <= 64
    cloth = sheet()
    through = np.array([[[0.01, 0.5, 0.02], [0.01, 1.5, 0.02]]], np.float32)
    assert pierced(cloth.vertices, cloth.faces, through)
    assert not pierced(cloth.vertices, cloth.faces, through * np.float32(0.4))


def posed(template: Template, pose: dict[str, np.ndarray]) -> Figure:
    rotations = to_array(template, pose)
    joints = template.joints
    return Figure(
        rest=template.canonical,
        transforms=joint_transforms(joints, template.joint_parents, rotations),
        stages=stage_transforms(joints, template.joint_parents, rotations),
    )


@pytest.fixture(scope="module")
def surface(tiny_library: AssetLibrary, template: Template) -> Surface:
    return Surface(tiny_library, template.canonical)


def sunk(layer: Layer, vertices: np.ndarray, surface: Surface, figure: Figure) -> np.ndarray:
    """How deep vertices lie under the nearest point of the posed skin, metres."""
    assert layer.falls is not None
    body = obstacle(surface.cloth, np.ones(len(surface.cloth.vertices), bool))
    points, outward = body.posed(figure.transforms)
    free = layer.falls.hold[np.unique(layer.cloth.weld, return_inverse=True)[1]] == 0
    near, index = cKDTree(points).query(vertices[free])
    depth = -np.einsum("nc,nc->n", vertices[free] - points[index], outward[index])
    return np.where(near < 0.1, depth, 0)


LIFTED = {"upperleg01.L": turn(x=-1.3), "lowerleg01.L": turn(x=1.3)}


@pytest.mark.parametrize("pose", [{}, LIFTED, {"upperleg01.L": turn(z=0.5), "upperleg01.R": turn(z=-0.5)}])
def test_no_skirt_lies_inside_the_legs(
    tiny_library: AssetLibrary, surface: Surface, template: Template, pose: dict[str, np.ndarray]
) -> None:
    figure = posed(template, pose)
    layer = draw_skirt(tiny_library, surface, np.random.default_rng(3), 20, room=1.3 if pose else 0.2)
    mesh = dressed_meshes([layer], template, figure, surface.cloth)[0]
    depth = sunk(layer, mesh.vertices, surface, figure)
    assert np.isfinite(mesh.vertices).all()
    assert np.mean(depth > 0.005) < 0.01
    assert mesh.parts is not None
    assert mesh.parts.max() < 24


def test_a_skirt_lies_on_a_lifted_thigh_and_hangs_from_it(
    tiny_library: AssetLibrary, surface: Surface, template: Template
) -> None:
    figure = posed(template, LIFTED)
    cut = draw_cut(np.random.default_rng(0), 1.3, waist=1.05, hem=0.5)
    cloth, canvas = skirt_cloth(surface, np.random.default_rng(0), cut)
    np.testing.assert_allclose(cloth.weights.sum(1), 1, atol=1e-4)
    assert np.ptp(cloth.canonical[cloth.canonical[:, 1] < 0.53][:, 1]) > 0  # the hem is not quite even
    assert len(canvas.points) == canvas.size**2
    woven = fabric(cloth, np.clip((cloth.canonical[:, 1] - 0.93) / 0.07, 0, 1), bending=0.1, clearance=0.01)
    fallen = drape(cloth, woven, figure, carriers(surface.cloth, [], low=0.5, high=1.1))
    knee = figure.pose(template.joints[[template.joint("lowerleg01.L")]], np.eye(163, dtype=np.float32)[[
        template.joint("lowerleg01.L")]])[0]  # fmt: skip
    above = fallen[(np.abs(fallen[:, 0] - knee[0]) < 0.05) & (np.abs(fallen[:, 2] - knee[2] + 0.15) < 0.05)]
    assert above[:, 1].max() > knee[1]


def test_coats_and_hair_fall_without_breaking(
    tiny_library: AssetLibrary, surface: Surface, template: Template
) -> None:
    figure = posed(template, {"spine03": turn(x=0.9), "spine05": turn(x=0.5)})
    rng = np.random.default_rng(1)
    layers = draw_coat(tiny_library, surface, rng, 50, 0.3, long=True)
    layers += draw_long_hair(tiny_library, surface, np.array([0.3, 0.2, 0.1]), rng, 100)
    meshes = dressed_meshes(layers, template, figure, surface.cloth)
    assert [mesh.name for mesh in meshes] == [layer.name for layer in layers]
    for mesh, layer in zip(meshes, layers, strict=True):
        assert np.isfinite(mesh.vertices).all()
        np.testing.assert_allclose(layer.cloth.weights.sum(1), 1, atol=1e-4)
    hair = meshes[-1]
    assert hair.parts is not None
    assert set(hair.parts.tolist()) == {15}
    woven = layers[-1].falls
    assert woven is not None
    lengths = np.linalg.norm(hair.vertices[woven.edges[:, 0]] - hair.vertices[woven.edges[:, 1]], axis=1)
    assert np.median(lengths[woven.stiffness == 1] / woven.lengths[woven.stiffness == 1]) == pytest.approx(1, abs=0.1)


def test_wrinkles_rise_where_the_pose_presses_cloth(
    tiny_library: AssetLibrary, surface: Surface, template: Template
) -> None:
    top = draw_top(tiny_library, surface, np.random.default_rng(2), 30)
    assert top.wrinkles is not None
    half = refined(surface.cloth)
    assert len(half.faces) == 4 * len(surface.cloth.faces)
    np.testing.assert_allclose(half.weights.sum(1), 1, atol=1e-4)
    assert not half.boundary()[np.isin(half.weld, surface.cloth.weld[~surface.cloth.boundary()])].any()
    drawn = draw_wrinkles(half, template, np.random.default_rng(0), 0.5)
    pose = {"lowerarm01.L": turn(y=-2.0)}
    figure = posed(template, pose)
    flat = figure.pose(half.vertices, half.weights)
    moved = np.linalg.norm(wrinkled(half, drawn, flat) - flat, axis=1)
    straight = posed(template, {}).pose(half.vertices, half.weights)
    resting = np.linalg.norm(wrinkled(half, drawn, straight) - straight, axis=1)
    elbow = np.linalg.norm(half.canonical - template.joints[template.joint("lowerarm01.L")], axis=1) < 0.08
    assert moved[elbow].mean() > 1.2 * resting[elbow].mean()
    np.testing.assert_allclose(moved[half.canonical[:, 1] < 0.8], resting[half.canonical[:, 1] < 0.8], atol=1e-4)
    assert moved.max() < 0.08


@pytest.mark.parametrize(("kind", "part"), [("backpack", 9), ("crossbody", 0), ("handbag", 20)])
def test_bags_hang_outside_the_clothes_with_the_label_of_what_carries_them(
    tiny_library: AssetLibrary,
    surface: Surface,
    template: Template,
    kind: Literal["backpack", "crossbody", "handbag"],
    part: int,
) -> None:
    figure = posed(template, {})
    body = template.body.neutral()
    rng = np.random.default_rng(4)
    top = draw_top(tiny_library, surface, rng, 30)
    layers = bag_layers(Bag(kind, "L"), surface, [top], figure, template.body(**body), rng, 60)
    meshes = dressed_meshes([top, *layers], template, figure, surface.cloth)[1:]
    sack = next(mesh for mesh in meshes if mesh.name in ("backpack", "shoulder bag", "handbag"))
    assert sack.parts is not None
    assert set(sack.parts.tolist()) == {part}
    for mesh in meshes:
        assert np.isfinite(mesh.vertices).all()
        assert len(mesh.faces) > 20
    lift = height_of_clothes(surface, [top])
    assert lift.max() > 0.004
    assert lift.min() >= 0


def test_bags_are_as_frequent_as_said() -> None:
    drawn = [draw_bag(np.random.default_rng(seed)) for seed in range(400)]
    assert 0.07 < np.mean([bag is not None for bag in drawn]) < 0.2
    assert {bag.kind for bag in drawn if bag} == {"backpack", "crossbody", "handbag"}


def test_stages_end_in_the_pose_and_turn_evenly(template: Template) -> None:
    rotations = to_array(template, {"upperleg01.L": turn(x=-1.5)})
    stages = stage_transforms(template.joints, template.joint_parents, rotations)
    np.testing.assert_allclose(
        stages[-1], joint_transforms(template.joints, template.joint_parents, rotations), atol=1e-5
    )
    hip = template.joint("upperleg01.L")
    angles = [np.linalg.norm(Rotation.from_matrix(stage[hip, :, :3]).as_rotvec()) for stage in stages]
    np.testing.assert_allclose(np.diff([0, *angles]), 1.5 / len(stages), atol=1e-4)


def test_a_fabric_pairs_each_edge_once() -> None:
    woven: Fabric = fabric(sheet(4), np.zeros(16), bending=0.1, clearance=0.01)
    pairs = {tuple(sorted(edge)) for edge in woven.edges[woven.stiffness == 1].tolist()}
    assert len(pairs) == (woven.stiffness == 1).sum() == 33
    assert (woven.stiffness != 1).sum() == 21
