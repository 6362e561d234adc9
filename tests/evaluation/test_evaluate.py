import json
import math
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from humansplat.capture.capture import Capture
from humansplat.config import DataConfig, ReconstructionConfig, ReconstructorConfig, TrainConfig
from humansplat.data.dataset import PeoplePool
from humansplat.data.format import PersonRecord, manifest_line, write_person
from humansplat.data.people import BodyTemplate
from humansplat.errors import UserError
from humansplat.evaluation.bodies import moved, perturbed_body
from humansplat.evaluation.evaluate import evaluate
from humansplat.evaluation.scoring import score_views, summary
from humansplat.evaluation.subjects import Subject, read_subject
from humansplat.geometry.projection import intrinsics, look_at, orbit, project
from humansplat.geometry.rotations import rotation_between
from humansplat.metrics.views import SIDES
from humansplat.render import render_gaussians
from humansplat.structures import Cameras, Gaussians
from humansplat.training.reconstruction_task import ReconstructionTask

UP = torch.tensor([0.0, 1.0, 0.0])
SIZE = 64


@pytest.fixture(scope="module")
def body(tiny_reconstructor):
    return tiny_reconstructor.body_model.pose({})


@pytest.fixture(scope="module")
def cameras():
    """The four views of the rig, then three novel ones: front, side and back."""
    view = look_at(torch.tensor([0.0, 0.9, 3.8]), torch.tensor([0.0, 0.85, 0.0]), UP)
    first = Cameras(viewmats=view, Ks=intrinsics(math.radians(30), SIZE, SIZE), width=SIZE, height=SIZE)
    return orbit(first, torch.zeros(3), torch.tensor([0, 90, 180, 270, 30, 100, -170]) * (math.pi / 180))


@pytest.fixture(scope="module")
def people(tmp_path_factory, body, cameras):
    """A data set of two people: the mean adult in two colours."""
    root = tmp_path_factory.mktemp("people")
    n = len(body.vertices)
    lines = []
    for name, shade in (("a", 0.2), ("b", 0.6)):
        skin = Gaussians(
            means=body.vertices,
            quats=torch.tensor([1.0, 0.0, 0.0, 0.0]).expand(n, 4),
            scales=torch.full((n, 3), 0.012),
            opacities=torch.full((n,), 0.95),
            colors=(body.canonical / 3 + shade).clamp(0, 1),
        )
        seen = render_gaussians(skin, cameras, background=(0, 0, 0))
        straight = seen.colors / seen.alphas[..., None].clamp(min=1e-3)
        rgba = torch.cat([straight, seen.alphas[..., None]], dim=-1).clamp(0, 1)
        images = (rgba * 255).round().byte().numpy()
        record = PersonRecord(
            images=images,
            parts=np.zeros(images.shape[:3], np.uint8),
            cameras=cameras,
            roles=("input", "orthogonal", "orthogonal", "orthogonal", "novel", "novel", "novel"),
            body=body,
            meta={"split": "validation", "seed": 0},
        )
        write_person(root / name, record)
        lines.append(manifest_line(root / name))
    (root / "manifest.jsonl").write_text("".join(f"{line}\n" for line in lines))
    return root


def test_true_bodies_are_scored_and_shown(people, tiny_reconstructor, tmp_path):
    metrics = evaluate(tiny_reconstructor, people, tmp_path / "one", bodies="true", progress=False)
    stored = json.loads((tmp_path / "one" / "metrics.json").read_text())
    assert stored == metrics
    assert stored["num_people"] == 2
    assert stored["num_views"] == {"mean": 6, "front": 2, "side": 2, "back": 2}
    assert stored["people"].keys() == {"a", "b"}
    assert stored["bodies"] == "true"
    assert stored["model"]["sha256"] == tiny_reconstructor.weights.sha256
    assert 5 < stored["mean"]["psnr_box"] < stored["mean"]["psnr"] < 40
    assert 0.3 < stored["mean"]["silhouette_iou"] <= 1
    with Image.open(tmp_path / "one" / "contact_sheet.png") as sheet:
        assert sheet.width == 7 * SIZE + 6 * 4
        assert sheet.height > 2 * SIZE
    with pytest.raises(UserError, match="photo's latent alone"):
        evaluate(tiny_reconstructor, people, tmp_path / "two", views="true", progress=False)
    with pytest.raises(UserError, match="no view model"):
        evaluate(tiny_reconstructor, people, tmp_path / "two", views="diffusion", progress=False)
    evaluate(tiny_reconstructor, people, tmp_path / "two", bodies="true", views="none", progress=False)
    for name in ("metrics.json", "contact_sheet.png"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()


def test_validation_while_training_has_the_same_figures(people, tiny_reconstructor, tiny_weights, tmp_path):
    metrics = evaluate(tiny_reconstructor, people, tmp_path, bodies="true", progress=False)
    network = tiny_reconstructor.network
    config = TrainConfig(
        task="reconstruction",
        data=DataConfig(image_size=SIZE),
        reconstruction=ReconstructionConfig(
            autoencoder=tiny_weights / "vae",
            model=ReconstructorConfig(num_body_tokens=network.config["num_body_tokens"]),
        ),
    )
    pool = PeoplePool(people, BodyTemplate.of(tiny_reconstructor.body_model), capacity=2)
    pool.load(2)
    with torch.no_grad():
        figures = ReconstructionTask(config).validate(network, pool)
    for group in ("mean", *SIDES):
        for name, value in metrics[group].items():
            ours = figures[name if group == "mean" else f"{name}_{group}"]
            assert ours == pytest.approx(value, abs=2e-4), (group, name)


def test_perturbed_bodies_are_the_same_every_time_and_near_the_truth(people, tiny_reconstructor, tmp_path):
    metrics = evaluate(tiny_reconstructor, people, tmp_path, bodies="perturbed", progress=False)
    assert metrics["bodies"] == "perturbed"
    subject = read_subject(tiny_reconstructor, people / "a")
    first, second = (perturbed_body(tiny_reconstructor, subject) for _ in range(2))
    other = perturbed_body(tiny_reconstructor, replace(subject, name="b"))
    torch.testing.assert_close(first.vertices, second.vertices, rtol=0, atol=0)
    error = (first.joints[0] - subject.body.joints[0]).norm()  # the root: only moved
    assert 0.01 < error < 0.2
    assert (other.vertices - first.vertices).norm(dim=-1).mean() > 0.01
    turned = first.parameters["rotations"] - subject.body.parameters["rotations"]
    assert turned.std().item() == pytest.approx(0.05, rel=0.15)
    for bare in (None, {}):
        with pytest.raises(UserError, match="no parameters"):
            perturbed_body(tiny_reconstructor, replace(subject, body=replace(subject.body, parameters=bare)))


def test_only_the_first_people_can_be_asked_for(people, tiny_reconstructor, tmp_path):
    metrics = evaluate(tiny_reconstructor, people, tmp_path, bodies="true", limit=1, progress=False)
    assert metrics["people"].keys() == {"a"}


def test_flagged_people_are_left_out_and_named_once(people, tiny_reconstructor, tmp_path, caplog):
    flagged = tmp_path / "people"
    shutil.copytree(people, flagged)
    lines = [json.loads(line) for line in (people / "manifest.jsonl").read_text().splitlines()]
    lines[0]["flags"] = ["it sticks out"]
    (flagged / "manifest.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    metrics = evaluate(tiny_reconstructor, flagged, tmp_path / "out", bodies="true", limit=1, progress=False)
    assert metrics["people"].keys() == {"b"}
    assert metrics["flagged"] == ["a"]
    assert [record.message for record in caplog.records] == ["left out 1 of 2 people, whose bodies are flagged"]
    lines[1]["flags"] = ["it, too"]
    (flagged / "manifest.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    with pytest.raises(UserError, match="all 2 people"):
        evaluate(tiny_reconstructor, flagged, tmp_path / "out", bodies="true", progress=False)


def test_views_are_front_side_or_back_of_the_input(people, tiny_reconstructor):
    subject = read_subject(tiny_reconstructor, people / "a")
    assert subject.sides == ("front", "side", "back")
    assert subject.image.shape == (4, SIZE, SIZE)
    assert subject.targets.shape == (3, 4, SIZE, SIZE)


def test_perfect_renders_score_perfectly(people, tiny_reconstructor):
    subject = read_subject(tiny_reconstructor, people / "a")
    alpha = subject.targets[:, 3:]
    perfect = torch.cat([subject.targets[:, :3] * alpha + 1 - alpha, alpha], dim=1)
    for score in score_views(subject, perfect):
        assert score["psnr"] == score["psnr_box"] == 99
        assert score["ssim"] == pytest.approx(1, abs=1e-5)
        assert score["silhouette_iou"] == 1
        assert score["psnr_head"] == 99


def test_means_weigh_every_view_alike():
    row = dict.fromkeys(("psnr", "ssim", "silhouette_iou", "psnr_box", "ssim_box"), 0.0)
    scores = {"a": [row | {"psnr": 10.0}, row | {"psnr": 20.0}], "b": [row | {"psnr": 30.0}]}
    scores["a"][1]["psnr_head"] = 7.0
    scores["b"].append(row | {"psnr": 60.0, "psnr_head": 9.0})
    told = summary(scores, {"a": ("front", "back"), "b": ("back", "closeup")})
    assert told["mean"]["psnr"] == 20.0
    assert told["mean"]["psnr_head"] == told["back"]["psnr_head"] == 7.0
    assert "psnr_head" not in told["front"]
    assert told["closeup"]["psnr"] == 60.0
    assert told["num_views"] == {"mean": 3, "front": 1, "side": 0, "back": 2, "closeup": 1}
    assert told["front"]["psnr"] == 10.0
    assert told["back"]["psnr"] == 25.0
    assert told["side"] == {}
    assert told["people"]["a"]["psnr"] == 15.0


def test_a_fitted_body_keeps_its_place_in_the_picture(body, cameras, rng):
    """The fit lives in a world of its own, turned, shifted and scaled, behind a camera of its own crop."""
    true_camera = cameras[0]
    crop_to_photo = torch.tensor([[0.8, 0.0, 5.0], [0.0, 0.8, 3.0]])
    to_photo = torch.cat([crop_to_photo, torch.tensor([[0.0, 0.0, 1.0]])])
    crop_camera = Cameras(
        viewmats=true_camera.viewmats, Ks=torch.linalg.inv(to_photo) @ true_camera.Ks, width=SIZE, height=SIZE
    )
    turn = rotation_between(torch.tensor([0.3, 0.1, 1.0]), torch.tensor([0.8, 0.0, 0.5]))
    shift = torch.tensor([0.3, -0.2, 0.5])
    world = torch.eye(4)
    world[:3, :3], world[:3, 3] = turn, shift
    fitted = replace(body, vertices=1.3 * body.vertices @ turn.mT + shift, joints=1.3 * body.joints @ turn.mT + shift)
    scaled_view = crop_camera.viewmats.clone()
    scaled_view[:3, 3] *= 1.3  # the same picture of a larger person, farther away
    own = replace(crop_camera, viewmats=scaled_view @ torch.linalg.inv(world))
    capture = Capture(
        image=torch.zeros(3, SIZE, SIZE),
        mask=torch.zeros(SIZE, SIZE),
        landmarks=torch.zeros(33, 2),
        visibility=torch.zeros(33),
        world_landmarks=torch.zeros(33, 3),
        crop_to_photo=crop_to_photo,
        score=1.0,
    )
    placed = moved(fitted, own, capture, body, true_camera)
    torch.testing.assert_close(placed.vertices, body.vertices, atol=2e-4, rtol=0)
    torch.testing.assert_close(placed.joints, body.joints, atol=2e-4, rtol=0)


def test_a_fit_with_another_lens_still_covers_the_person(body, cameras):
    true_camera = cameras[0]
    other = replace(
        true_camera,
        Ks=intrinsics(math.radians(25), SIZE, SIZE),
        viewmats=look_at(torch.tensor([0.0, 0.9, 4.6]), torch.tensor([0.0, 0.85, 0.0]), UP),
    )
    capture = Capture(
        image=torch.zeros(3, SIZE, SIZE),
        mask=torch.zeros(SIZE, SIZE),
        landmarks=torch.zeros(33, 2),
        visibility=torch.zeros(33),
        world_landmarks=torch.zeros(33, 3),
        crop_to_photo=torch.tensor([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]]),
        score=1.0,
    )
    placed = moved(body, other, capture, body, true_camera)
    before, _ = project(body.vertices, other.viewmats, other.Ks)
    after, _ = project(placed.vertices, true_camera.viewmats, true_camera.Ks)
    assert (before - after).norm(dim=-1).max() < 1.0  # pixels


def test_folders_without_people_or_novel_views_are_refused(people, tiny_reconstructor, tmp_path, body, cameras):
    (tmp_path / "manifest.jsonl").write_text("")
    with pytest.raises(UserError, match="lists no people"):
        evaluate(tiny_reconstructor, tmp_path, tmp_path / "out", progress=False)
    record = PersonRecord(
        images=np.zeros((4, SIZE, SIZE, 4), np.uint8),
        parts=np.zeros((4, SIZE, SIZE), np.uint8),
        cameras=cameras[:4],
        roles=("input", "orthogonal", "orthogonal", "orthogonal"),
        body=body,
        meta={},
    )
    write_person(tmp_path / "c", record)
    with pytest.raises(UserError, match="no novel views"):
        read_subject(tiny_reconstructor, tmp_path / "c")
    assert isinstance(read_subject(tiny_reconstructor, people / "b"), Subject)
