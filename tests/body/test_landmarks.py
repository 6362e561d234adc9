import copy

import pytest
import torch

from humansplat.body.landmarks import LANDMARK_NAMES, landmark_map, landmark_points
from humansplat.errors import UserError


def test_landmarks_mirror_each_other_on_the_mean_adult(body):
    points = landmark_points(body.pose({}), landmark_map(body))
    swapped = [name.replace("left", "\0").replace("right", "left").replace("\0", "right") for name in LANDMARK_NAMES]
    swapped = [name.replace("Left", "\0").replace("Right", "Left").replace("\0", "Right") for name in swapped]
    mirror = points[[LANDMARK_NAMES.index(name) for name in swapped]] * torch.tensor([-1.0, 1, 1])
    torch.testing.assert_close(points, mirror, atol=2e-3, rtol=0)


def test_landmarks_sit_where_a_body_has_them(body):
    points = dict(zip(LANDMARK_NAMES, landmark_points(body.pose({}), landmark_map(body)), strict=True))
    down = ["leftEye", "nose", "mouthLeft", "leftShoulder", "leftElbow", "leftWrist", "leftHip", "leftKnee"]
    down += ["leftAnkle", "leftHeel", "leftFootIndex"]
    heights = [points[name][1].item() for name in down]
    assert heights == sorted(heights, reverse=True)
    across = ["nose", "leftEyeInner", "leftEye", "leftEyeOuter", "leftEar"]
    assert [points[name][0].item() for name in across] == sorted(points[name][0].item() for name in across)
    assert points["nose"][2] > points["leftEye"][2] > points["leftEar"][2]
    assert points["leftFootIndex"][2] - points["leftHeel"][2] == pytest.approx(0.27, abs=0.03)
    assert points["leftIndex"][2] > points["leftPinky"][2]


def test_the_few_vertices_of_the_landmarks_give_the_same_points(body, rng):
    landmarks = landmark_map(body)
    few = body.subset(landmarks.vertex_ids)
    pose = {"phenotypes": torch.rand(2, 3, 11, generator=rng), "rotations": torch.randn(2, 3, 163, 3, generator=rng)}
    small = few.pose(pose)
    points = landmarks.points(small.vertices, small.joints)
    assert points.shape == (2, 3, 33, 3)
    torch.testing.assert_close(points, landmark_points(body.pose(pose), landmarks))


def test_a_model_without_landmarks_is_refused(body):
    statue = copy.copy(body)
    statue.name = "statue"
    with pytest.raises(UserError, match="'statue'"):
        landmark_map(statue)
