import pytest
import torch

from humansplat.body.landmarks import NUM_LANDMARKS, landmark_map, landmark_points
from humansplat.body.markers import (
    MAIN_JOINTS,
    MIRRORED_MARKERS,
    NUM_SKIN_MARKERS,
    ROOT_MARKER,
    marker_map,
)
from humansplat.body.parts import PART_NAMES

MIRROR = torch.tensor([-1.0, 1.0, 1.0])


@pytest.fixture(scope="module")
def markers(body):
    return marker_map(body)


def posed(body, **turned):
    rotations = torch.zeros(len(body.joint_names), 3)
    for name, vector in turned.items():
        rotations[body.joint_names.index(name.replace("__", "."))] = torch.tensor(vector)
    return body.pose({"rotations": rotations})


def test_every_marker_is_a_mean(markers):
    total = markers.vertex_weights.sum(1) + markers.joint_weights.sum(1)
    assert len(total) == NUM_LANDMARKS + len(MAIN_JOINTS) + NUM_SKIN_MARKERS
    torch.testing.assert_close(total, torch.ones_like(total))


def test_landmarks_come_first_and_then_the_joints(body, markers):
    person = posed(body, root=(0.1, 0.7, -0.2), lowerleg01__L=(0.9, 0.0, 0.0))
    points = landmark_points(person, markers)
    torch.testing.assert_close(points[:NUM_LANDMARKS], landmark_points(person, landmark_map(body)))
    assert MAIN_JOINTS[ROOT_MARKER - NUM_LANDMARKS] == "root"
    for index, name in enumerate(MAIN_JOINTS, start=NUM_LANDMARKS):
        torch.testing.assert_close(points[index], person.joints[body.joint_names.index(name)])


def test_skin_markers_lie_on_the_skin_far_apart_and_not_on_hands(body, markers):
    rows = markers.vertex_weights[-NUM_SKIN_MARKERS:]
    assert (rows.sum(1) == 1).all()
    assert not markers.joint_weights[-NUM_SKIN_MARKERS:].any()
    chosen = markers.vertex_ids[rows.argmax(1)]
    parts = [PART_NAMES[part] for part in body.parts[chosen].tolist()]
    assert not any("Hand" in name for name in parts)
    assert len(set(parts)) > 12
    apart = torch.cdist(body.canonical[chosen], body.canonical[chosen])
    assert (apart + 10 * torch.eye(len(chosen))).min() > 0.05


def test_the_markers_of_a_mirrored_pose_are_the_mirrored_markers(body, markers):
    order = list(MIRRORED_MARKERS)
    assert sorted(order) == list(range(NUM_LANDMARKS + len(MAIN_JOINTS)))
    assert [order[index] for index in order] == sorted(order)
    bent = posed(body, lowerarm01__L=(0.2, -0.9, 0.3), upperleg01__R=(-0.6, 0.1, 0.2), neck01=(0.1, 0.3, 0.2))
    mirrored = posed(body, lowerarm01__R=(0.2, 0.9, -0.3), upperleg01__L=(-0.6, -0.1, -0.2), neck01=(0.1, -0.3, -0.2))
    one, other = (landmark_points(person, markers)[: len(order)] for person in (bent, mirrored))
    torch.testing.assert_close(other[order] * MIRROR, one, atol=2e-3, rtol=0)
    assert (other * MIRROR - one).norm(dim=-1).max() > 0.3  # sides do matter
