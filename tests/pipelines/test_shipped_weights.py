"""The weights that ship, on the photo that ships."""

from pathlib import Path

import pytest

from humansplat import Reconstructor
from humansplat.capture.graph import graph_path
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
    assert sum(path.stat().st_size for path in files) <= 20 * 2**20


def test_the_example_becomes_a_solid_person_who_looks_like_the_photo():
    photo = Path(__file__).parents[2] / "examples" / "person.png"
    if not photo.is_file() or not graph_path().is_file():
        pytest.skip("the example photo or the pose graph is missing; reconstructing any photo fetches the latter")
    person = Reconstructor.from_pretrained(device="cpu")(photo)
    assert person.report.silhouette_iou > 0.9
    assert person.report.warnings == []
    front = render_gaussians(person.gaussians, person.camera.map(lambda tensor: tensor[None])).colors[0]
    assert psnr(front.movedim(-1, 0).clamp(0, 1), person.image).item() > 22
