import hashlib
import json
import shutil

import pytest
import torch
from diffusers import AutoencoderKL
from safetensors.torch import load_file, save_file

from humansplat.errors import UserError
from humansplat.models.latent_reconstructor import LatentReconstructor
from humansplat.pipelines.weights import WEIGHT_FILE, find_weights, load_module, write_checksums


@pytest.fixture
def weights(tiny_weights, tmp_path):
    """A copy that may be spoilt."""
    return shutil.copytree(tiny_weights, tmp_path / "tiny")


def test_a_folder_is_found_with_its_sums(weights):
    found = find_weights(weights)
    assert found.image_size == 64
    assert sorted(found.sha256) == [f"reconstructor/{WEIGHT_FILE}", f"vae/{WEIGHT_FILE}"]
    content = (weights / "vae" / WEIGHT_FILE).read_bytes()
    assert found.sha256[f"vae/{WEIGHT_FILE}"] == hashlib.sha256(content).hexdigest()


def test_models_load_with_all_their_tensors(weights):
    network = load_module(LatentReconstructor, weights / "reconstructor")
    assert not network.training
    state = load_file(weights / "reconstructor" / WEIGHT_FILE)
    assert network.state_dict().keys() == state.keys()
    for name, tensor in network.state_dict().items():
        torch.testing.assert_close(tensor, state[name], atol=0, rtol=0)


def test_half_precision_files_load_as_float32(weights):
    path = weights / "vae" / WEIGHT_FILE
    save_file({name: tensor.half() for name, tensor in load_file(path).items()}, path)
    autoencoder = load_module(AutoencoderKL, weights / "vae")
    assert {parameter.dtype for parameter in autoencoder.parameters()} == {torch.float32}


def test_weights_that_do_not_fit_are_refused_with_the_names(weights):
    path = weights / "reconstructor" / WEIGHT_FILE
    state = load_file(path)
    state["stranger"] = state.pop("missing_token")
    state["embed.bias"] = torch.zeros(3)
    save_file(state, path)
    with pytest.raises(
        UserError, match=r"1 missing: missing_token; 1 unexpected: stranger; 1 .* embed\.bias \(3,\) instead"
    ):
        load_module(LatentReconstructor, weights / "reconstructor")


def test_a_config_of_another_version_is_refused(weights):
    path = weights / "reconstructor" / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"number_of_wings": 2}))
    with pytest.raises(UserError, match="LatentReconstructor has no number_of_wings"):
        load_module(LatentReconstructor, weights / "reconstructor")


@pytest.mark.parametrize("name", ["config.json", WEIGHT_FILE])
def test_missing_and_broken_files_are_refused(weights, name):
    (weights / "vae" / name).write_bytes(b"nonsense")
    with pytest.raises(UserError, match="broken"):
        load_module(AutoencoderKL, weights / "vae")
    (weights / "vae" / name).unlink()
    with pytest.raises(UserError, match=f"lacks {name}"):
        load_module(AutoencoderKL, weights / "vae")


def test_damage_is_found_by_the_checksums(weights):
    write_checksums(weights)
    assert find_weights(weights).image_size == 64
    (weights / "vae" / "config.json").write_text("{}")
    with pytest.raises(UserError, match=r"config\.json is damaged"):
        find_weights(weights)
    (weights / "vae" / "config.json").unlink()
    with pytest.raises(UserError, match="lacks vae/config.json"):
        find_weights(weights)


def test_a_folder_without_weights_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"holds no config\.json"):
        find_weights(tmp_path)
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(UserError, match="does not state the image_size"):
        find_weights(tmp_path)


def test_an_unknown_name_is_refused():
    with pytest.raises(UserError, match="no folder 'no-such-weights' exists, and the weights that ship are"):
        find_weights("no-such-weights")


def test_a_hub_name_that_cannot_be_had_is_refused(monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(UserError, match="hub did not give 'nobody/nothing'"):
        find_weights("nobody/nothing")
