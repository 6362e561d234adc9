"""``tools/export_weights.py`` as it is called."""

import runpy
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from humansplat.errors import UserError
from humansplat.models.latent_reconstructor import LatentReconstructor
from humansplat.models.lifter import MarkerLifter
from humansplat.models.sv3d import SV3D, build_image_encoder
from humansplat.pipelines.reconstructor import Reconstructor
from humansplat.pipelines.weights import WEIGHT_FILE, ViewSampling, find_weights, load_module

TOOL = Path(__file__).parents[2] / "tools" / "export_weights.py"


@pytest.fixture
def export(monkeypatch):
    def call(*arguments: object) -> int:
        monkeypatch.setattr(sys, "argv", ["export_weights.py", *map(str, arguments)])
        return runpy.run_path(str(TOOL))["main"]()

    return call


def assert_halved(kind, source, out):
    """The file holds float16, and what is loaded of it is the source but for that rounding."""
    state = load_file(out / WEIGHT_FILE)
    assert {tensor.dtype for tensor in state.values()} == {torch.float16}
    before = load_module(kind, source).state_dict()
    for name, tensor in load_module(kind, out).state_dict().items():
        torch.testing.assert_close(tensor, before[name], atol=1e-4, rtol=1e-3)


def test_a_reconstructor_is_exported_with_its_autoencoder(export, tiny_weights, tmp_path):
    source = ["--vae", tiny_weights / "vae", "--reconstructor", tiny_weights / "reconstructor"]
    assert export(*source, "--image-size", 64, "--out", tmp_path / "out") == 0
    assert find_weights(tmp_path / "out").image_size == 64
    assert_halved(LatentReconstructor, tiny_weights / "reconstructor", tmp_path / "out" / "reconstructor")


def test_a_view_model_goes_along(export, tiny_weights, make_tiny_sv3d, tmp_path, capsys):
    unet = make_tiny_sv3d(latent_scaling=1.0, sampling={"num_steps": 3, "sampler": "euler"})  # as of a distilled one
    model = SV3D(unet, build_image_encoder(16, 1, 2, 16, image_size=32))
    model.save(tmp_path / "views")
    source = ["--vae", tiny_weights / "vae", "--reconstructor", tiny_weights / "reconstructor"]
    with pytest.raises(SystemExit):
        export(*source, "--view-model", tmp_path / "views", "--out", tmp_path / "out")
    source += ["--num-inputs", 4, "--view-model", tmp_path / "views"]
    with pytest.raises(SystemExit):
        export(*source, "--view-sampling", "[6]", "--out", tmp_path / "out")
    assert "--view-sampling [6] must be a JSON object" in capsys.readouterr().err
    source += ["--view-sampling", '{"guidance": [1, 2]}']
    assert export(*source, "--photo-alone", "--image-size", 64, "--out", tmp_path / "out") == 0
    found = find_weights(tmp_path / "out")
    assert found.has_view_model
    assert found.photo_alone
    assert found.view_sampling == ViewSampling(num_steps=3, sampler="euler", guidance=(1.0, 2.0))
    state = load_file(tmp_path / "out" / "view_model" / "image_encoder" / "model.safetensors")
    assert {tensor.dtype for tensor in state.values() if tensor.is_floating_point()} == {torch.float16}
    Reconstructor.from_pretrained(tmp_path / "out", "cpu").check_views("diffusion")


def test_a_lifter_is_exported_to_a_folder_of_its_own(export, tmp_path):
    lifter = MarkerLifter(
        num_markers=4, num_phenotypes=2, image_size=32, fine_width=12, width=16, num_blocks=1, num_fine_blocks=1
    )
    lifter.save_pretrained(tmp_path / "run")
    assert export("--lifter", tmp_path / "run", "--out", tmp_path / "lifter" / "anny") == 0
    assert_halved(MarkerLifter, tmp_path / "run", tmp_path / "lifter" / "anny")


def test_pixel_space_and_four_views_are_stated_and_obeyed(export, tiny_weights, tmp_path, capsys, rng):
    network = LatentReconstructor(
        latent_channels=192, width=16, num_heads=2, num_intra_layers=1, num_inter_layers=1, num_body_tokens=8
    )
    network.save_pretrained(tmp_path / "run")
    out, size = tmp_path / "out", ["--image-size", 64, "--num-inputs", 4]
    assert export("--vae", tiny_weights / "vae", "--reconstructor", tmp_path / "run", *size, "--out", out) == 2
    assert "reads latents of 192 channels" in capsys.readouterr().err
    assert export("--reconstructor", tiny_weights / "reconstructor", *size, "--out", out) == 2
    assert export("--reconstructor", tmp_path / "run", *size, "--out", out) == 0
    found = find_weights(out)
    assert (found.space, found.num_inputs) == ("pixel", 4)
    reconstructor = Reconstructor.from_pretrained(out, "cpu")
    pictures = torch.rand(4, 4, 64, 64, generator=rng)
    assert reconstructor.encode(pictures).shape == (4, 192, 8, 8)
    with pytest.raises(UserError, match="latents of 4 views"):
        reconstructor("photo.jpg")
    (out / "config.json").write_text('{"image_size": 64, "num_inputs": 2}')
    (out / "SHA256SUMS").unlink()
    with pytest.raises(UserError, match="2 inputs in 'latent' space"):
        find_weights(out)


def test_halves_and_mixtures_and_missing_folders_are_refused(export, tmp_path, capsys):
    for arguments in (("--vae", "a"), ("--lifter", "a", "--vae", "b"), ()):
        with pytest.raises(SystemExit) as stopped:
            export(*arguments, "--out", tmp_path)
        assert stopped.value.code == 2
        assert "--lifter alone" in capsys.readouterr().err
    assert export("--lifter", tmp_path / "nowhere", "--out", tmp_path / "out") == 2
    assert "nowhere lacks config.json" in capsys.readouterr().err
