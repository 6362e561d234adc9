import json

import pytest
import torch
from safetensors.torch import load_file, save_file

from humansplat.errors import UserError
from humansplat.models.autoencoder import build_autoencoder, encode_images, load_autoencoder


def test_the_autoencoder_of_a_pipeline_is_found_and_its_scale_is_stable_diffusions_by_default(tmp_path, rng):
    ours = build_autoencoder(channels=(16, 16, 16, 16))
    ours.save_pretrained(tmp_path / "pipeline" / "vae")
    config = tmp_path / "pipeline" / "vae" / "config.json"
    values = json.loads(config.read_text())
    del values["scaling_factor"]
    config.write_text(json.dumps(values))
    images = torch.rand(1, 3, 32, 32, generator=rng)
    with torch.no_grad():
        latents = [encode_images(vae, images) for vae in (ours.eval(), load_autoencoder(tmp_path / "pipeline"))]
    torch.testing.assert_close(0.18215 * latents[0], latents[1])


def test_folders_without_an_autoencoder_of_these_cells_are_refused(tmp_path):
    with pytest.raises(UserError, match="holds no autoencoder"):
        load_autoencoder(tmp_path / "sd-vae")
    ours = build_autoencoder(channels=(16, 16, 16, 16))
    type(ours)(
        block_out_channels=(16, 16),
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        norm_num_groups=16,
    ).save_pretrained(tmp_path)
    with pytest.raises(UserError, match="cells are 2 pixels on a side, 8 are needed"):
        load_autoencoder(tmp_path)


def test_a_tensor_that_is_missing_or_of_another_shape_is_named_instead_of_drawn_at_random(tmp_path):
    build_autoencoder(channels=(16, 16, 16, 16)).save_pretrained(tmp_path)
    file = tmp_path / "diffusion_pytorch_model.safetensors"
    state, name = load_file(file), "encoder.conv_in.bias"
    save_file({**state, name: state[name][:8]}, file)
    with pytest.raises(UserError, match=r"of another shape: encoder\.conv_in\.bias \(8,\) instead of \(16,\)"):
        load_autoencoder(tmp_path)
    save_file({key: value for key, value in state.items() if key != name}, file)
    with pytest.raises(UserError, match=r"missing: encoder\.conv_in\.bias"):
        load_autoencoder(tmp_path)
    file.unlink()
    with pytest.raises(UserError, match="does not load"):
        load_autoencoder(tmp_path)


def test_even_untrained_latents_tell_colours_of_one_shade_apart():
    colors = torch.tensor([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]])
    pictures = colors[:, :, None, None].expand(-1, -1, 64, 64).contiguous()

    def told_apart(norm_groups: int) -> float:
        torch.manual_seed(0)
        autoencoder = build_autoencoder((32, 32, 32, 32), norm_groups=norm_groups).eval()
        with torch.no_grad():
            latents = encode_images(autoencoder, pictures)[:, :, 3:5, 3:5].mean(dim=(2, 3))  # away from the edges
        return latents.std(dim=0).mean().item()

    assert told_apart(4) > 0.06
    assert told_apart(4) > 1.5 * told_apart(32)  # a group for each channel takes its mean away, all but at the edges
