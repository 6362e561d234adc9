"""Cameras of the paper's rig, and the labels that they are aimed by."""

import math

import numpy as np
import pytest
import torch
import toy_scans
from torch.testing import assert_close

from humansplat.body.parts import PART_NAMES
from humansplat.data.scans.part_labels import part_labels
from humansplat.data.scans.rings import CLEARANCE, RING_FOV, ring, scan_cameras
from humansplat.geometry.projection import project

HEAD = PART_NAMES.index("head")


def test_the_rig_has_its_views_in_their_order():
    body = toy_scans.person()
    cameras, roles = scan_cameras(body.vertices.double().numpy(), body.parts.numpy().astype(np.uint8), 64)
    assert roles == ("input", *["orthogonal"] * 3, *["whole"] * 36, *["half"] * 36, *["face"] * 36)
    azimuths = torch.atan2(cameras.centers[4:40, 0], cameras.centers[4:40, 2])
    assert_close(torch.remainder(azimuths, 2 * math.pi)[1:18], torch.arange(1, 18) * math.pi / 18, atol=0.1, rtol=0)
    shown = {"whole": body.vertices, "face": body.vertices[body.parts == HEAD]}
    for view, role in enumerate(roles):
        assert cameras.viewmats[view, 2, 1].abs() < 1e-4 or view < 4  # level
        if role in shown:
            pixels, depth = project(shown[role], cameras.viewmats[view], cameras.Ks[view])
            assert depth.min() > 0.1
            assert ((pixels > 0) & (pixels < 64)).all()
    widest = [
        (project(body.vertices, cameras.viewmats[view], cameras.Ks[view])[0] - 32).abs().max() for view in range(4, 40)
    ]
    assert float(max(widest)) == pytest.approx(0.92 * 32, abs=0.5)


def test_no_camera_stands_within_a_stretched_arm():
    head = torch.tensor([[-0.1, 1.5, -0.1], [0.1, 1.8, 0.1]], dtype=torch.float64)
    arm = torch.tensor([[0.9, 1.4, 0.0]], dtype=torch.float64)
    near, wide = ring(head, 8, RING_FOV, 0.8, 64), ring(head, 8, RING_FOV, 0.8, 64, clear=arm)
    assert (near.centers - arm).norm(dim=-1).min() < CLEARANCE + 0.2
    assert (wide.centers - arm).norm(dim=-1).min() >= CLEARANCE
    for view in range(8):
        pixels = project(head, wide.viewmats[view], wide.Ks[view])[0]
        assert ((pixels - 32).abs() <= 0.8 * 32 + 1e-6).all()


def test_labels_follow_the_skin_and_have_no_islands():
    body = toy_scans.person()
    skin, faces, parts = body.vertices.numpy(), body.faces.numpy(), body.parts.numpy().astype(np.uint8)
    assert (part_labels(skin, faces, skin, faces, parts) == parts).mean() > 0.97
    # Clothing stands off, and a patch of the chest is told to be a hand.
    wrong = parts.copy()
    chest = skin[parts == PART_NAMES.index("spine2")]
    wrong[np.linalg.norm(skin - chest[chest[:, 2].argmax()], axis=1) < 0.02] = PART_NAMES.index("leftHand")
    out = part_labels(skin * [1.02, 1.0, 1.02], faces, skin, faces, wrong)
    assert (out == parts).mean() > 0.93
    assert not (out[parts == PART_NAMES.index("spine2")] == PART_NAMES.index("leftHand")).any()


def test_a_strand_of_hair_keeps_the_head_where_it_lies_on_it():
    body = toy_scans.person()
    skin, faces, parts = body.vertices.numpy(), body.faces.numpy(), body.parts.numpy().astype(np.uint8)
    head = skin[parts == HEAD]
    heights = np.linspace(head[:, 1].max(), head[:, 1].min() - 0.3, 30)
    strand = np.array([[x, y, head[:, 2].min() - 0.01] for y in heights for x in (-0.01, 0.01)], np.float32)
    pairs = np.arange(0, 56, 2)
    strip = np.concatenate(
        [np.stack([pairs, pairs + 1, pairs + 2], 1), np.stack([pairs + 1, pairs + 3, pairs + 2], 1)]
    )
    vertices = np.concatenate([skin, strand])
    labels = part_labels(vertices, np.concatenate([faces, strip + len(skin)]), skin, faces, parts)[len(skin) :]
    assert (labels[:16] == HEAD).all()
    assert (labels[-10:] != HEAD).all()
