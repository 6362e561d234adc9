"""Bodies in the scans of themselves, dressed a little, and what is planted in them."""

import re
from dataclasses import replace

import numpy as np
import pytest
import torch

from humansplat.body.scan_check import BodyCheck, check_body, checked_vertices
from humansplat.body.scan_surface import ScanSurface, spread_samples
from humansplat.body.scan_surface_terms import vertex_normals
from humansplat.errors import UserError


@pytest.fixture(scope="module")
def posed(body):
    """Somebody who steps forward with the left leg and raises the right arm."""
    parameters = body.neutral()
    for joint, turn in (("upperleg01.L", (-0.7, 0.0, 0.0)), ("upperarm01.R", (0.0, 0.4, -0.8))):
        parameters["rotations"][body.joint_names.index(joint)] = torch.tensor(turn)
    return body.pose(parameters)


@pytest.fixture(scope="module")
def scan(posed):
    """The body's skin, a centimetre further out, with a hole in it."""
    normals = vertex_normals(posed.vertices, posed.faces)
    return (posed.vertices + 0.01 * normals).numpy(), posed.faces[400:].numpy()


@pytest.fixture(scope="module")
def check(posed, scan):
    """The same question, asked often."""
    return BodyCheck(ScanSurface(*scan), checked_vertices(posed))


def changed(body, change):
    return replace(body, vertices=change(body.vertices), joints=change(body.joints))


def test_a_body_in_its_scan_is_right(posed, scan):
    assert check_body(posed, *scan) == ()


def test_its_frame_does_not_matter(posed, scan):
    turn = torch.tensor([[0.6, 0.0, 0.8], [0.0, 1.0, 0.0], [-0.8, 0.0, 0.6]])
    moved = changed(posed, lambda points: points @ turn.T + torch.tensor([3.0, -1.0, 2.0]))
    assert check_body(moved, (scan[0] @ turn.numpy().T + [3.0, -1.0, 2.0]).astype(np.float32), scan[1]) == ()


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (lambda points: 1000 * points, "unit or scale"),
        (lambda points: points + torch.tensor([0.15, 0.0, 0.0]), r"moved by \(-0.15"),
        (lambda points: points * torch.tensor([-1.0, 1.0, -1.0]), "turned by 180 degrees"),
        (lambda points: points * torch.tensor([-1.0, 1.0, 1.0]), "mirrored"),
        (lambda points: points[:, [2, 1, 0]] * torch.tensor([1.0, 1.0, -1.0]), "turned by -?90 degrees"),
        (lambda points: 0.85 * points, "outside"),
        (lambda points: torch.full_like(points, torch.nan), "not numbers"),
    ],
)
def test_planted_mistakes_are_named(posed, check, change, named):
    flags = check.flags(changed(posed, change))
    assert any(re.search(named, flag) for flag in flags), flags


def test_a_scan_of_more_than_the_body_is_named(posed, scan):
    box = np.array([[x, y, z] for x in (1.0, 1.8) for y in (0.0, 0.8) for z in (0.0, 0.8)], dtype=np.float32)
    faces = np.array([[0, 1, 3], [0, 3, 2], [4, 6, 7], [4, 7, 5], [0, 4, 5], [0, 5, 1], [2, 3, 7], [2, 7, 6]])
    both = np.concatenate([scan[0], box]), np.concatenate([scan[1], faces + len(scan[0])])
    assert any("farther than" in flag for flag in check_body(posed, *both))


@pytest.mark.parametrize(
    ("vertices", "faces", "message"),
    [
        (np.zeros((4, 3), np.float32), np.zeros((0, 3), np.int64), "no faces"),
        (np.zeros((4, 3), np.float32), np.array([[0, 1, 9]]), "vertex 9"),
        (np.zeros((4, 3), np.float32), np.array([[0, 1, -2]]), "vertex -2"),
        (np.full((4, 3), np.nan, np.float32), np.array([[0, 1, 2]]), "not numbers"),
        (np.zeros((4, 3), np.float32), np.array([[0, 1, 2]]), "empty"),
    ],
)
def test_what_is_no_surface_is_refused(posed, vertices, faces, message):
    with pytest.raises(UserError, match=message):
        check_body(posed, vertices, faces)


def test_a_batch_is_refused(posed, scan):
    batch = replace(posed, vertices=posed.vertices[None], joints=posed.joints[None])
    with pytest.raises(UserError, match="one body"):
        check_body(batch, *scan)


def test_inside_and_outside_of_a_shell_that_is_open_below():
    angles = np.linspace(0, 2 * np.pi, 33)[:-1]
    ring = np.stack([0.2 * np.cos(angles), np.zeros(32), 0.2 * np.sin(angles)], axis=1)
    vertices = np.concatenate([ring, ring + [0.0, 1.0, 0.0], [[0.0, 1.0, 0.0]]]).astype(np.float32)
    index = np.arange(32)
    after = (index + 1) % 32
    sides = [np.stack([index, after, after + 32], 1), np.stack([index, after + 32, index + 32], 1)]
    lid = np.stack([index + 32, after + 32, np.full(32, 64)], 1)
    shell = ScanSurface(vertices, np.concatenate([*sides, lid]))
    points = np.array([[0.0, 0.6, 0.0], [0.05, 0.5, 0.05], [0.3, 0.5, 0.0], [0.0, 1.2, 0.0], [0.215, 0.5, 0.0]])
    assert shell.outside(points, 0.03).tolist() == [False, False, True, True, False]


def test_samples_are_spread_by_area():
    vertices = np.array([[0, 0, 0], [1, 0, 0], [0, 1, 0], [5, 0, 0], [8, 0, 0], [5, 1, 0]], np.float32)
    points, faces = spread_samples(vertices, np.array([[0, 1, 2], [3, 4, 5]]), 400, seed=0)
    assert np.bincount(faces).tolist() == [100, 300]
    assert (points[:, 2] == 0).all()
    assert (points[faces == 0].sum(axis=1) <= 1 + 1e-6).all()
