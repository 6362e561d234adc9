"""Characters in the house frame and their poses, against plain slow oracles and the default body itself."""

from pathlib import Path

import numpy as np
import pytest
from glb_files import BOXES, MIXAMO, Builder, box_humanoid, mixamo_body
from scipy.spatial.transform import Rotation

from humansplat.body.parts import PART_NAMES
from humansplat.data.rigged.character import Character, unit_scale
from humansplat.data.rigged.gltf import read_gltf
from humansplat.data.rigged.poses import draw_frames, draw_turns
from humansplat.data.rigged.retarget import house_joints, local_rotations, world_turns
from humansplat.data.rigged.transforms import global_frames
from humansplat.data.synthetic.figure import Figure, Template, joint_transforms
from humansplat.data.synthetic.limbs import aim, normalized, turn
from humansplat.errors import UserError


def animate_all(builder: Builder, nodes: dict[str, int], seed: int = 0) -> None:
    """Every joint turns by something at time 1."""
    rng = np.random.default_rng(seed)
    times = builder.accessor(np.array([0.0, 1.0], np.float32))
    samplers, channels = [], []
    for node in nodes.values():
        turns = Rotation.from_rotvec(rng.normal(0, 0.5, (2, 3))).as_quat().astype(np.float32)
        samplers.append({"input": times, "output": builder.accessor(turns)})
        channels.append({"sampler": len(samplers) - 1, "target": {"node": node, "path": "rotation"}})
        matrix = np.array(builder.json["nodes"][node].pop("matrix", np.eye(4).ravel())).reshape(4, 4).T
        builder.json["nodes"][node].setdefault("translation", matrix[:3, 3].tolist())
    builder.add("animations", name="dance", samplers=samplers, channels=channels)


def slow_vertices(path: Path, time: float) -> np.ndarray:
    """The specification's formula, one vertex and one joint after the other."""
    scene = read_gltf(path)
    frames = global_frames(scene.animations[0].sample(scene.pose, time).local(), scene.parents, scene.order)
    drawn = scene.drawn[0]
    part, skin = drawn.primitives[0], drawn.skin
    assert skin is not None
    assert part.joints is not None
    assert part.weights is not None
    moved = []
    for vertex, joints, weights in zip(part.vertices, part.joints, part.weights, strict=True):
        total = np.zeros(3)
        for joint, weight in zip(joints, weights, strict=True):
            matrix = frames[skin.joints[joint]] @ skin.inverse_binds[joint]
            total += weight * (matrix @ [*vertex, 1.0])[:3]
        moved.append(total)
    return np.array(moved)


def test_skinning_is_the_specifications_formula(tmp_path: Path, template: Template) -> None:
    builder = box_humanoid()
    animate_all(builder, {name: index for index, (name, _, _) in enumerate(BOXES)})
    path = builder.save(tmp_path / "man.glb")
    character = Character(path, template)
    for time in (0.0, 0.4, 1.0):
        (mesh,) = character.skinned(character.animated(0, time))
        np.testing.assert_allclose(mesh.vertices, slow_vertices(path, time), atol=1e-5)


@pytest.fixture(scope="module")
def mixamo(template: Template, tmp_path_factory: pytest.TempPathFactory) -> Character:
    path = mixamo_body(template).save(tmp_path_factory.mktemp("mixamo") / "body.glb")
    return Character(path, template)


def test_a_character_at_rest_is_the_mesh_that_was_exported(mixamo: Character, template: Template) -> None:
    (mesh,) = mixamo.skinned(mixamo.rest)
    np.testing.assert_allclose(mesh.vertices, template.canonical[template.skin_ids], atol=1e-5)
    assert mixamo.notes == ()  # a node below the root has brought centimetres to metres
    assert mesh.parts is not None
    expected = template.parts_of(template.weights[template.skin_ids])
    fingers = np.isin(expected, [PART_NAMES.index(f"{side}HandIndex1") for side in ("left", "right")])
    assert (mesh.parts == expected)[
        ~fingers
    ].mean() > 0.8  # the rig has one finger, one toe, three of five spine joints
    left = mesh.vertices[mesh.parts == PART_NAMES.index("leftHand")]
    assert left[:, 0].min() > 0.3


def posed_truth(template: Template, turns: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Vertices and joints of the default body in a pose, its root at the origin."""
    local = local_rotations(turns, template.joint_parents).astype(np.float32)
    transforms = joint_transforms(template.joints, template.joint_parents, local)
    ids = template.skin_ids
    vertices = Figure(rest=template.canonical, transforms=transforms).pose(
        template.canonical[ids], template.weights[ids]
    )
    joints = np.einsum("jab,jb->ja", transforms[..., :3], template.joints) + transforms[..., 3]
    return vertices - joints[0], joints - joints[0]


def differences(character: Character, template: Template, turns: np.ndarray) -> tuple[float, float]:
    """Mean vertex distance and largest distance of a limb's joint to the default body in the same pose, metres."""
    vertices, joints = posed_truth(template, turns)
    assert character.retarget is not None
    frames = character.retarget.frames(turns)
    hips = frames[character.humanoid["hips"], :3, 3]
    limbs = {slot: node for slot, node in character.humanoid.items() if slot.endswith(("arm", "hand", "leg", "foot"))}
    errors = [
        np.linalg.norm(frames[node, :3, 3] - hips - joints[template.joint(house_joints(slot, character.humanoid)[0])])
        for slot, node in limbs.items()
    ]
    (mesh,) = character.skinned(frames)
    return float(np.linalg.norm(mesh.vertices - hips - vertices, axis=1).mean()), max(map(float, errors))


def test_poses_of_the_default_body_are_taken_over(mixamo: Character, template: Template) -> None:
    """The rig has 28 joints instead of 163: fingers and twists differ, limbs do not."""
    rng = np.random.default_rng(3)
    for _ in range(4):
        vertex_error, joint_error = differences(mixamo, template, draw_turns(template, rng)[0])
        assert vertex_error < 0.02
        assert joint_error < 0.02


def t_pose(template: Template) -> np.ndarray:
    """Rotations of the default body's joints that stretch the arms sideways and the legs down."""
    rotations = np.broadcast_to(np.eye(3), (len(template.joint_names), 3, 3)).copy()
    for side, sign in (("L", 1.0), ("R", -1.0)):
        for chain, goal in (
            (("upperarm01", "lowerarm01", "wrist", "finger3-1"), np.array([sign, 0.0, 0.0])),
            (("upperleg01", "lowerleg01", "foot"), np.array([0.0, -1.0, 0.0])),
        ):
            above = np.eye(3)
            for name, end in zip(chain, chain[1:], strict=False):
                a, b = (template.joints[template.joint(f"{joint}.{side}")].astype(np.float64) for joint in (name, end))
                turned = aim(normalized(above @ normalized(b - a)), goal) @ above
                rotations[template.joint(f"{name}.{side}")] = above.T @ turned
                above = turned
    return rotations.astype(np.float32)


def test_a_rig_bound_in_a_t_pose_lying_down_and_turned_away_takes_the_same_poses(
    tmp_path: Path, template: Template
) -> None:
    transforms = joint_transforms(template.joints, template.joint_parents, t_pose(template))
    rest = Figure(rest=template.canonical, transforms=transforms).pose(template.canonical, template.weights)
    joints = np.einsum("jab,jb->ja", transforms[..., :3], template.joints) + transforms[..., 3]
    z_up = np.array([[1.0, 0.0, 0.0], [0.0, 0.0, -1.0], [0.0, 1.0, 0.0]])
    builder = mixamo_body(template, rest=rest, joints=joints, turn=z_up @ turn(y=2.0))
    character = Character(builder.save(tmp_path / "t.glb"), template)
    assert character.notes[0] == "its +Z is taken for up"
    assert "so that it faces +Z" in character.notes[1]
    rng = np.random.default_rng(5)
    for _ in range(3):
        vertex_error, joint_error = differences(character, template, draw_turns(template, rng)[0])
        assert vertex_error < 0.02
        assert joint_error < 0.02


def test_a_pose_of_the_rig_is_read_back(mixamo: Character, template: Template) -> None:
    assert mixamo.retarget is not None
    turns, _ = draw_turns(template, np.random.default_rng(1))
    read = mixamo.retarget.turns(mixamo.retarget.frames(turns))
    for name in ("upperleg01.L", "lowerleg01.R", "lowerarm01.L", "head", "root"):
        joint = template.joint(name)
        angle = Rotation.from_matrix(read[joint] @ turns[joint].T).magnitude()
        assert angle < (0.7 if "arm" in name else 0.25)  # an arm's twist is shared by two joints
    local = local_rotations(turns, template.joint_parents)
    np.testing.assert_allclose(world_turns(local, template.joint_parents), turns, atol=1e-5)


@pytest.mark.parametrize(
    ("height", "metres", "note"),
    [(1.8, 1.8, ""), (180, 1.8, "centimetres"), (1800, 1.8, "millimetres"), (70, 1.778, "inches"), (6, 1.829, "feet")],
)
def test_units_are_told_by_the_height(height: float, metres: float, note: str) -> None:
    scale, told = unit_scale(height)
    assert height * scale == pytest.approx(metres, abs=1e-3)
    assert note in told
    assert (note == "") == (told == "")


def test_a_height_that_is_no_persons_is_scaled_and_said() -> None:
    scale, told = unit_scale(17_000)
    assert 17_000 * scale == pytest.approx(1.7)
    assert "a person in no unit" in told
    with pytest.raises(UserError, match="0 units high"):
        unit_scale(0.0)


def test_a_character_of_180_units_is_in_centimetres(tmp_path: Path, template: Template) -> None:
    character = Character(box_humanoid(units=100.0).save(tmp_path / "cm.glb"), template)
    (mesh,) = character.skinned(character.rest)
    assert 1.4 < np.ptp(mesh.vertices[:, 1]) < 1.8
    assert "taken for centimetres" in character.notes[0]


def test_bind_matrices_of_zeros_are_passed_over(tmp_path: Path, template: Template) -> None:
    builder = box_humanoid()
    accessor = builder.json["accessors"][builder.json["skins"][0]["inverseBindMatrices"]]
    begin = builder.json["bufferViews"][accessor["bufferView"]]["byteOffset"]
    builder.data = builder.data[:begin] + bytes(64) + builder.data[begin + 64 :]  # of the hips
    character = Character(builder.save(tmp_path / "zeros.glb"), template)
    assert np.isfinite(character.rest).all()


def test_what_hangs_on_a_joint_moves_with_it_and_what_stands_beside_is_left_out(
    tmp_path: Path, template: Template
) -> None:
    builder = box_humanoid()
    cube = builder.accessor(np.eye(3, dtype=np.float32) * 0.1)
    mesh = builder.add("meshes", primitives=[{"attributes": {"POSITION": cube}}])
    glasses = builder.add("nodes", name="glasses", mesh=mesh, translation=[0.0, 0.05, 0.1])
    head = next(index for index, (name, _, _) in enumerate(BOXES) if name == "Head")
    builder.json["nodes"][head]["children"].append(glasses)
    builder.json["scenes"][0]["nodes"].append(builder.add("nodes", name="floor", mesh=mesh))
    character = Character(builder.save(tmp_path / "man.glb"), template)
    assert len(character.pieces) == 2
    frames, _ = draw_frames(character, template, np.random.default_rng(2))
    worn = next(mesh for mesh in character.skinned(frames) if len(mesh.vertices) == 3)
    expected = np.array([0.0, 0.05, 0.1]) + np.eye(3) * 0.1
    np.testing.assert_allclose(worn.vertices, expected @ frames[head, :3, :3].T + frames[head, :3, 3], atol=1e-5)


def test_a_file_without_a_skin_is_refused(tmp_path: Path, template: Template) -> None:
    builder = box_humanoid()
    for node in builder.json["nodes"]:
        node.pop("skin", None)
    with pytest.raises(UserError, match=r"no mesh that a skeleton moves; export the character with its armature"):
        Character(builder.save(tmp_path / "statue.glb"), template)


@pytest.mark.parametrize(
    ("mode", "factor", "shown"),
    [("OPAQUE", 0.2, "opaque"), ("MASK", 1.0, "cutout"), ("BLEND", 1.0, "blend"), ("BLEND", 0.01, None)],
)
def test_alpha_modes_are_those_of_the_renderer(
    tmp_path: Path, template: Template, mode: str, factor: float, shown: str | None
) -> None:
    builder = box_humanoid()
    picture = np.full((4, 4, 4), 200, np.uint8)
    picture[..., 3] = np.array([255, 200, 100, 0])[None]
    attributes = builder.json["meshes"][0]["primitives"][0]["attributes"]
    count = builder.json["accessors"][attributes["POSITION"]]["count"]
    attributes["TEXCOORD_0"] = builder.accessor(np.tile(np.array([[0.25, 0.125]], np.float32), (count, 1)))
    material = builder.add(
        "materials",
        alphaMode=mode,
        alphaCutoff=0.7,
        pbrMetallicRoughness={
            "baseColorTexture": {"index": builder.texture(picture)},
            "baseColorFactor": [1.0, 0.5, 0.25, factor],
        },
    )
    builder.json["meshes"][0]["primitives"][0]["material"] = material
    path = builder.save(tmp_path / "man.glb")
    if shown is None:
        with pytest.raises(UserError, match="shows nothing"):
            Character(path, template)
        return
    character = Character(path, template)
    (mesh,) = character.skinned(character.rest)
    assert mesh.alpha == shown
    assert mesh.color == (1.0, 0.5, 0.25)
    assert mesh.texture is not None
    assert mesh.uvs is not None
    np.testing.assert_allclose(mesh.uvs[0], [0.25, 0.875])  # the house counts from the bottom
    if shown == "opaque":
        assert mesh.texture.shape == (4, 4, 3)
    else:
        expected = [255, 255, 0, 0] if shown == "cutout" else [255, 200, 100, 0]
        assert mesh.texture[0, :, 3].tolist() == expected


def test_every_name_of_the_test_rig_is_used() -> None:
    assert len({name for name, _, _ in MIXAMO}) == len(MIXAMO)


def test_frames_of_an_animation_face_the_front_and_move_the_body_along(tmp_path: Path, template: Template) -> None:
    """The whole man turns away while he lifts an arm; what is drawn has the arm and not the turn."""

    def animate(builder: Builder, nodes: dict[str, int]) -> None:
        times = builder.accessor(np.array([0.0, 1.0], np.float32))
        samplers, channels = [], []
        for name, moved in (("Hips", turn(y=2.5)), ("LeftArm", turn(z=0.8))):
            matrix = np.array(builder.json["nodes"][nodes[name]]["matrix"]).reshape(4, 4).T
            above = next((above for joint, above, _ in MIXAMO if joint == name), "")
            axes = np.eye(3)
            while above:  # axes of the node above, as bound
                axes = np.array(builder.json["nodes"][nodes[above]]["matrix"]).reshape(4, 4).T[:3, :3] @ axes
                above = next(other for joint, other, _ in MIXAMO if joint == above)
            local = axes.T @ moved @ axes @ matrix[:3, :3]
            turns = Rotation.from_matrix(np.stack([matrix[:3, :3], local])).as_quat().astype(np.float32)
            samplers.append({"input": times, "output": builder.accessor(turns)})
            channels.append({"sampler": len(samplers) - 1, "target": {"node": nodes[name], "path": "rotation"}})
            builder.json["nodes"][nodes[name]] |= {"translation": matrix[:3, 3].tolist()}
        for name in ("Hips", "LeftArm"):  # a node is given by a matrix, or by what an animation moves
            del builder.json["nodes"][nodes[name]]["matrix"]
        builder.add("animations", name="wave", samplers=samplers, channels=channels)

    builder = mixamo_body(template, animate=animate)
    character = Character(builder.save(tmp_path / "man.glb"), template)
    assert character.retarget is not None
    turns = character.retarget.turns(character.animated(0, 1.0))
    expected = {"root": 2.5, "upperarm01.L": None, "upperarm01.R": 2.5, "head": 2.5}
    for name, angle in expected.items():
        found = turns[template.joint(name)]
        wanted = turn(y=2.5) @ turn(z=0.8) if angle is None else turn(y=angle)
        assert Rotation.from_matrix(found @ wanted.T).magnitude() < 0.01
    rng = np.random.default_rng(0)
    name = ""
    while not name.startswith("animation"):
        frames, name = draw_frames(character, template, rng)
    assert name.startswith("animation wave at ")
    facing = character.retarget.turns(frames)[template.joint("root")][:, 2]
    np.testing.assert_allclose(facing, [0.0, 0.0, 1.0], atol=1e-3)
