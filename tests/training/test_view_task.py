import pytest
import torch

from humansplat.config import AugmentConfig, DataConfig, OptimConfig, SV3DConfig, SV3DModelConfig, TrainConfig
from humansplat.draws import BatchGenerator
from humansplat.errors import UserError
from humansplat.models.autoencoder import build_autoencoder
from humansplat.models.sv3d import load_sv3d
from humansplat.training.view_task import ViewTask

SIZES = SV3DModelConfig(
    widths=(32, 32),
    norm_groups=16,
    noise_width=16,
    angle_width=16,
    embedding_width=16,
    encoder_width=16,
    encoder_layers=1,
    encoder_heads=2,
    encoder_image=32,
)


@pytest.fixture
def make_task(tmp_path):
    torch.manual_seed(0)
    build_autoencoder((16, 16, 16, 16)).save_pretrained(tmp_path / "vae")

    def make(**options: object) -> ViewTask:
        return ViewTask(
            TrainConfig(
                task="sv3d",
                num_steps=10,
                optim=OptimConfig(warmup_steps=1),
                data=DataConfig(image_size=64, augment=AugmentConfig()),
                sv3d=SV3DConfig(autoencoder=tmp_path / "vae", model=SIZES, validation_steps=1, **options),
            )
        )

    return make


def test_it_learns_and_leaves_what_the_library_loads(make_task, pool, tmp_path):
    task = make_task(sigma_mean=1.0, sigma_std=0.2, view_jitter=0.5)
    module = task.build_module()
    task.autoencoder.requires_grad_(False)
    optimizer = torch.optim.AdamW(module.parameters(), lr=5e-3)
    totals = []
    for step in range(3):  # the same people, noise and levels each time
        generator = torch.Generator().manual_seed(0)
        terms = task.training_loss(module, task.sample(pool, 2, generator), generator, step)
        optimizer.zero_grad()
        terms["denoising"].backward()
        optimizer.step()
        totals.append(terms["denoising"].item())
    assert totals[-1] < 0.8 * totals[0], totals

    module.eval()
    with torch.no_grad():
        figures = task.validate(module, pool)
        sheet = task.pictures(module, task.sample(pool, 2, generator))
    assert {"psnr", "ssim_back", "psnr_box_left", "neighbour_color", "psnr_one_step", "psnr_decoded"} <= set(figures)
    assert all(torch.tensor(value).isfinite() for value in figures.values())
    assert sheet.shape == (3, 4 * 64, 4 * 64)

    task.save_pretrained(module, tmp_path / "out")
    patterns = ("temporal_transformer_blocks[-30:]", "add_embedding")
    again = make_task(weights=tmp_path / "out", trainable=patterns).build_module()
    trained = [name for name, parameter in again.named_parameters() if parameter.requires_grad]
    temporal = [name for name, _ in again.named_parameters() if "temporal_transformer_blocks" in name]
    assert [name for name in trained if "add_embedding" not in name] == temporal[-30:]
    assert len(trained) == 34
    state = module.model.state_dict()
    assert all(torch.equal(tensor, state[name]) for name, tensor in load_sv3d(tmp_path / "out").state_dict().items())


def test_mistakes_are_refused(make_task):
    with pytest.raises(UserError, match=r"sv3d\.trainable: 'nothing\[-3:\]' is in no parameter's name"):
        make_task(trainable=("add_embedding", "nothing[-3:]")).build_module()
    with pytest.raises(UserError, match="multiples of 32"):
        SV3DConfig(model=SV3DModelConfig(widths=(32, 40)))
    with pytest.raises(UserError, match=r"sv3d\.drop"):
        SV3DConfig(drop=1.0)
    with pytest.raises(UserError, match="must divide all widths"):
        SV3DConfig(model=SV3DModelConfig(norm_groups=24))


def test_a_step_is_the_same_in_parts(make_task, pool):
    """What is drawn of a person depends on the place in the whole batch alone, jitter and dropped conditions too."""
    task = make_task(view_jitter=0.5, drop=0.5, drop_both=0.3)
    module = task.build_module().eval()

    def loss(part: int, num_parts: int) -> torch.Tensor:
        generator = BatchGenerator()
        generator.begin(7, 3, part=part, num_parts=num_parts, size=4 // num_parts)
        batch = task.sample(pool, 4 // num_parts, generator)
        with torch.no_grad():
            return task.training_loss(module, batch, generator, 0)["denoising"]

    torch.testing.assert_close((loss(0, 2) + loss(1, 2)) / 2, loss(0, 1), rtol=1e-4, atol=0)
