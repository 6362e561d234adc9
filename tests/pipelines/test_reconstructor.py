import json
import math
import shutil

import pytest
import torch
from PIL import Image

from humansplat import Gaussians
from humansplat.capture.capture import Capture
from humansplat.errors import UserError
from humansplat.geometry.projection import intrinsics, look_at, orbit
from humansplat.io.body import read_body
from humansplat.io.video import read_video
from humansplat.pipelines.reconstruction import FILES, Reconstruction
from humansplat.pipelines.reconstructor import Reconstructor, batched
from humansplat.pipelines.report import Report
from humansplat.pipelines.weights import find_weights
from humansplat.render import render_gaussians
from humansplat.structures import Cameras


@pytest.fixture(scope="module")
def body(tiny_reconstructor):
    return tiny_reconstructor.body_model.pose({})


@pytest.fixture(scope="module")
def camera():
    """Level, in front of the mean adult, who fills 0.85 of the picture."""
    eye, target = torch.tensor([0.0, 0.85, 3.75]), torch.tensor([0.0, 0.85, 0.0])
    view = look_at(eye, target, torch.tensor([0.0, 1.0, 0.0]))
    return Cameras(viewmats=view, Ks=intrinsics(math.radians(30), 64, 64), width=64, height=64)


@pytest.fixture(scope="module")
def capture(body, camera):
    """What the camera sees of splats on the body's skin."""
    n = len(body.vertices)
    skin = Gaussians(
        means=body.vertices,
        quats=torch.tensor([1.0, 0.0, 0.0, 0.0]).expand(n, 4),
        scales=torch.full((n, 3), 0.012),
        opacities=torch.full((n,), 0.95),
        colors=(body.canonical / 2 + 0.5).clamp(0, 1),
    )
    seen = render_gaussians(skin, camera.map(lambda tensor: tensor[None]))
    return Capture(
        image=seen.colors[0].movedim(-1, 0).clamp(0, 1),
        mask=seen.alphas[0],
        landmarks=torch.zeros(33, 2),
        visibility=torch.ones(33),
        world_landmarks=torch.zeros(33, 3),
        crop_to_photo=torch.tensor([[2.0, 0.0, 10.0], [0.0, 2.0, 20.0]]),
        score=1.0,
    )


@pytest.fixture(scope="module")
def person(tiny_reconstructor, capture, body, camera):
    report = Report(photo="a.png", model="tiny", weights={}, device="cpu", views="none", seed=0)
    with report.stage("reconstruct"):
        splats = tiny_reconstructor.reconstruct(capture, body, camera)
    return Reconstruction(
        gaussians=splats,
        body=body,
        camera=camera,
        photo_camera=Cameras(viewmats=camera.viewmats, Ks=camera.Ks, width=160, height=180),
        image=capture.composited(),
        mask=capture.mask,
        report=report,
    )


def test_an_untrained_network_starts_at_the_person(person, capture, camera):
    splats = person.gaussians
    assert splats.num_splats > 1000
    assert (splats.opacities >= 1 / 255).all()
    low, high = splats.means.amin(dim=0), splats.means.amax(dim=0)
    assert (low > torch.tensor([-1.3, -0.4, -0.9])).all()
    assert (high < torch.tensor([1.3, 2.2, 0.9])).all()


def test_the_networks_take_batches(tiny_reconstructor, capture, body, camera):
    image = torch.cat([capture.image, capture.mask[None]])
    cameras = orbit(camera, body.joints[0], torch.arange(4) * math.pi / 2)
    one = batched(body)
    alone = tiny_reconstructor.splats(image[None], cameras.map(lambda t: t[None]), one)
    both = tiny_reconstructor.splats(
        torch.stack([image, image]),
        cameras.map(lambda t: torch.stack([t, t])),
        type(body)(
            vertices=body.vertices.expand(2, -1, -1),
            joints=body.joints.expand(2, -1, -1),
            canonical=body.canonical,
            faces=body.faces,
            parts=body.parts,
        ),
    )
    assert not alone.means.requires_grad
    torch.testing.assert_close(both[1].means, alone[0].means, atol=1e-4, rtol=1e-4)


def test_pictures_of_another_size_are_refused(tiny_reconstructor, body, camera):
    with pytest.raises(ValueError, match="take pictures of 64 x 64 px, got 32 x 32"):
        tiny_reconstructor.splats(torch.zeros(1, 4, 32, 32), camera.map(lambda t: t[None, None]), batched(body))


def test_all_files_are_saved(person, tmp_path):
    (tmp_path / "mine.txt").write_text("kept")
    person.save(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([*FILES, "mine.txt"])
    assert Gaussians.load(tmp_path / "splats.ply").num_splats == person.gaussians.num_splats
    assert sum(1 for _ in read_video(tmp_path / "turntable.mp4")) == 90
    with Image.open(tmp_path / "preview.png") as preview:
        assert preview.size == (5 * 64 + 4 * 4, 64)
    again, camera = read_body(tmp_path / "body.npz")
    torch.testing.assert_close(again.vertices, person.body.vertices)
    assert (camera.width, camera.height) == (160, 180)
    report = json.loads((tmp_path / "report.json").read_text())
    assert {"versions", "weights", "seed", "stages", "silhouette_iou", "warnings", "peak_memory_mib"} <= report.keys()
    assert report["stages"].keys() == {"reconstruct", "save", "turntable"}
    assert all(cost["seconds"] >= 0 and cost["peak_memory_mib"] > 50 for cost in report["stages"].values())


def test_an_older_video_does_not_outlive_its_result(person, tmp_path):
    (tmp_path / "turntable.mp4").write_bytes(b"of another result")
    person.save(tmp_path, video=False)
    assert not (tmp_path / "turntable.mp4").exists()


def test_the_view_model_is_missed_by_name(tiny_reconstructor):
    with pytest.raises(UserError, match="hold no view model"):
        tiny_reconstructor("photo.jpg", views="diffusion")
    with pytest.raises(UserError, match="photo of the back is for --views diffusion"):
        tiny_reconstructor("photo.jpg", back="back.jpg")


def test_a_view_model_makes_the_unseen_views_by_the_seed(four_views, capture, body, camera):
    reconstructor = Reconstructor.from_pretrained(four_views, "cpu")
    photo = capture.composited()
    made = [reconstructor.view_latents(photo, camera, seed) for seed in (3, 3, 4)]
    assert torch.equal(made[0], made[1])
    assert (made[2] - made[0]).abs().amax(dim=(0, 2, 3, 4))[1:].min() > 0.1
    image = torch.cat([photo, torch.ones(1, 64, 64)])
    torch.testing.assert_close(made[0][:, 0], reconstructor.encode(image[None]), rtol=0, atol=0)
    means = [reconstructor.reconstruct(capture, body, camera, latents).means for latents in made[1:]]
    assert not torch.equal(means[0][:500], means[1][:500])
    assert any(name.startswith("view_model/unet") for name in reconstructor.weights.sha256)
    given = reconstructor.view_latents(photo, camera, 3, photo.flip(-1))
    torch.testing.assert_close(given[:, 2], reconstructor.encode(image.flip(-1)[None]), rtol=0, atol=0)
    with pytest.raises(UserError, match="of 4 views, .* use --views diffusion"):
        reconstructor("photo.jpg")


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_on_a_gpu_the_views_are_replayed_from_graphs(four_views, capture, camera):
    reconstructor, photo = Reconstructor.from_pretrained(four_views, "cuda"), capture.composited()
    recorded, replayed = (reconstructor.view_latents(photo, camera) for _ in range(2))
    assert torch.equal(recorded, replayed)
    assert (recorded.dtype, reconstructor._synthesizer.unet.dtype) == (torch.float32, torch.float16)
    reconstructor._synthesizer.release_cuda_graphs()
    torch.testing.assert_close(reconstructor.view_latents(photo, camera), replayed, rtol=0, atol=0.02)
    exact = Reconstructor.from_pretrained(four_views, "cpu").view_latents(photo, camera)
    torch.testing.assert_close(replayed.cpu(), exact, rtol=0, atol=0.05)


def test_what_a_view_model_does_not_go_with_is_refused(four_views, tmp_path):
    folder = shutil.copytree(four_views, tmp_path / "one")
    config = folder / "config.json"
    config.write_text('{"image_size": 64}')
    with pytest.raises(UserError, match="not trained with the latents of four views; use --views none"):
        Reconstructor.from_pretrained(folder, "cpu")("photo.jpg", views="diffusion")
    for wrong in ('{"num_steps": 0}', '{"sampler": "magic"}', '{"guidance": [1]}', '{"steps": 3}', "7"):
        config.write_text(f'{{"image_size": 64, "view_sampling": {wrong}}}')
        with pytest.raises(UserError, match="view_sampling .* must be num_steps"):
            find_weights(folder)
    config.write_text('{"image_size": 64, "num_inputs": 4, "photo_alone": true}')
    assert find_weights(folder).photo_alone


def test_a_gpu_that_is_not_there_is_refused(tiny_weights):
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    with pytest.raises(UserError, match="needs an NVIDIA GPU"):
        Reconstructor.from_pretrained(tiny_weights, "cuda")
