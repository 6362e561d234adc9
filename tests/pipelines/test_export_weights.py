"""``tools/export_weights.py`` as it is called."""

import runpy
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from humansplat.models.latent_reconstructor import LatentReconstructor
from humansplat.models.lifter import MarkerLifter
from humansplat.pipelines.weights import WEIGHT_FILE, find_weights, load_module

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


def test_a_lifter_is_exported_to_a_folder_of_its_own(export, tmp_path):
    lifter = MarkerLifter(
        num_markers=4, num_phenotypes=2, image_size=32, fine_width=12, width=16, num_blocks=1, num_fine_blocks=1
    )
    lifter.save_pretrained(tmp_path / "run")
    assert export("--lifter", tmp_path / "run", "--out", tmp_path / "lifter" / "anny") == 0
    assert_halved(MarkerLifter, tmp_path / "run", tmp_path / "lifter" / "anny")


def test_halves_and_mixtures_and_missing_folders_are_refused(export, tmp_path, capsys):
    for arguments in (("--vae", "a"), ("--lifter", "a", "--vae", "b"), ()):
        with pytest.raises(SystemExit) as stopped:
            export(*arguments, "--out", tmp_path)
        assert stopped.value.code == 2
        assert "--lifter alone" in capsys.readouterr().err
    assert export("--lifter", tmp_path / "nowhere", "--out", tmp_path / "out") == 2
    assert "nowhere lacks config.json" in capsys.readouterr().err
