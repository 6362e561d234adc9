"""The weights that ship, on the photo that ships."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from humansplat import Reconstructor
from humansplat.capture.graph import graph_path
from humansplat.geometry.projection import project
from humansplat.io.body import write_body
from humansplat.metrics.image import psnr
from humansplat.pipelines.weights import CHECKSUMS, find_weights, shipped_weights
from humansplat.render import render_gaussians

pytestmark = [
    pytest.mark.weights,
    pytest.mark.skipif("small" not in shipped_weights(), reason="no weights ship with this copy"),
]


def test_they_are_whole_and_small():
    weights = find_weights("small")
    assert (weights.path / CHECKSUMS).is_file()
    assert weights.image_size == 256
    files = [path for path in weights.path.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) <= 24 * 2**20


@pytest.fixture(scope="module")
def reconstructor():
    return Reconstructor.from_pretrained(device="cpu")


@pytest.fixture(scope="module")
def example(reconstructor):
    """The shipped photo, reconstructed once."""
    photo = Path(__file__).parents[2] / "examples" / "person.png"
    if not photo.is_file() or not graph_path().is_file():
        pytest.skip("the example photo or the pose graph is missing; reconstructing any photo fetches the latter")
    stages: list[str] = []
    person = reconstructor(photo, progress=stages.append)
    assert stages == ["capture", "body", "reconstruct"]
    return photo, person


def test_the_front_looks_like_the_photo(example):
    _, person = example
    front = render_gaussians(person.gaussians, person.camera.map(lambda tensor: tensor[None])).colors[0]
    assert psnr(front.movedim(-1, 0).clamp(0, 1), person.image).item() > 22


def test_unseen_sides_can_be_made_up(example, reconstructor):
    photo, person = example
    stages: list[str] = []
    given = (person.body, person.photo_camera)
    made = reconstructor(photo, body=given, views="diffusion", seed=1, progress=stages.append)
    assert stages == ["capture", "body", "views", "reconstruct"]
    assert made.report.view_sampling["num_steps"] == 4
    front = render_gaussians(made.gaussians, made.camera.map(lambda tensor: tensor[None])).colors[0]
    assert psnr(front.movedim(-1, 0).clamp(0, 1), made.image).item() > 22
    again = reconstructor(photo, body=given, views="diffusion", seed=1, back=photo)
    assert again.gaussians.num_splats != made.gaussians.num_splats, "the second photo is not looked at"


def test_a_photo_becomes_a_person(example):
    _, person = example
    assert person.report.body_silhouette_iou > 0.6
    assert person.report.landmark_error_fraction < 0.1
    assert person.report.silhouette_iou > 0.9
    assert person.report.warnings == []
    assert person.report.photo == "person.png"
    low, high = person.body.vertices.amin(dim=0), person.body.vertices.amax(dim=0)
    assert low[1].item() == pytest.approx(0.0, abs=1e-4)
    assert 1.0 < (high - low).amax() < 2.3


def test_the_photo_camera_sees_the_person_in_the_photo(example):
    photo, person = example
    with Image.open(photo) as image:
        pixels = np.asarray(image.convert("RGB")).astype(int)
    assert pixels.shape[1::-1] == (person.photo_camera.width, person.photo_camera.height)
    shown = np.abs(pixels - pixels[:, :1]).max(axis=-1) > 40  # the wall has one colour a row
    xy, _ = project(person.body.vertices, person.photo_camera.viewmats, person.photo_camera.Ks)
    column, row = xy.long().clamp(0, 639).unbind(-1)
    assert shown[row, column].mean() > 0.8


def test_a_saved_body_can_be_given_back(example, reconstructor, tmp_path):
    photo, person = example
    write_body(person.body, person.photo_camera, tmp_path / "body.npz")
    again = reconstructor(photo, body=tmp_path / "body.npz")
    torch.testing.assert_close(again.camera.Ks, person.camera.Ks, atol=1e-2, rtol=1e-4)
    torch.testing.assert_close(
        again.gaussians.means.mean(dim=0), person.gaussians.means.mean(dim=0), atol=1e-2, rtol=0
    )
    assert again.report.landmark_error_px is None
    assert again.report.body_silhouette_iou == pytest.approx(person.report.body_silhouette_iou, abs=0.03)


def test_a_body_of_another_photo_is_doubted(example, reconstructor, tmp_path):
    photo, person = example
    far = replace(person.body, vertices=person.body.vertices + 5.0)
    again = reconstructor(photo, body=(far, person.photo_camera))
    assert any("covers the person badly" in warning for warning in again.report.warnings)
