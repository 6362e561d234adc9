import json
import shutil
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from humansplat.config import AugmentConfig, DataConfig, OptimConfig, SV3DConfig, SV3DModelConfig, TrainConfig
from humansplat.data.augment import mirror
from humansplat.data.dataset import PeoplePool
from humansplat.data.people import BodyTemplate, PeopleBatch
from humansplat.draws import BatchGenerator
from humansplat.errors import UserError
from humansplat.models.autoencoder import build_autoencoder, on_white
from humansplat.models.sv3d import load_sv3d, resize_photo
from humansplat.training.kept_latents import KeptPeople
from humansplat.training.view_task import ViewTask

SIZES = SV3DModelConfig(
    widths=(32, 32),
    attention=(True, False),
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

    def make(augment: AugmentConfig | None = None, **options: object) -> ViewTask:
        return ViewTask(
            TrainConfig(
                task="sv3d",
                num_steps=10,
                optim=OptimConfig(warmup_steps=1),
                data=DataConfig(image_size=64, augment=augment or AugmentConfig()),
                sv3d=SV3DConfig(**{"autoencoder": tmp_path / "vae", "model": SIZES, "validation_steps": 1} | options),
                mixed_precision="no",
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
    assert set(figures) == set(task.figures)
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
    with pytest.raises(UserError, match=r"set sv3d\.view_jitter to 0"):
        SV3DConfig(keep_latents=True, view_jitter=0.1)
    with pytest.raises(UserError, match=r"sv3d\.keep_latents needs .* set data\.augment\.jpeg to 0"):
        make_task(AugmentConfig(jpeg=0.1), keep_latents=True)
    with pytest.raises(UserError, match=r"sv3d\.keep_latents needs people in memory"):
        TrainConfig(task="sv3d", data=DataConfig(source="stream"), sv3d=SV3DConfig(keep_latents=True))
    for share in (-0.1, 1.1):
        with pytest.raises(UserError, match=r"sv3d\.turn .* is a share"):
            SV3DConfig(turn=share)


def test_kept_people_are_those_of_the_pictures(make_task, pool):
    """Mirrored or not as they are; in other colours all views of one draw, and the photo that the network is told."""
    task = make_task(AugmentConfig(mirror=0.5, gain=0.0), keep_latents=True)
    task.build_module()
    batch = task.sample(pool, 8, torch.Generator().manual_seed(0))
    people = torch.tensor([0, 1, 0, 1])
    mirrored = torch.tensor([True, True, False, False])
    truth = pool.batch(people, people[:, None] * 0, num_inputs=4)
    truth = task._encoded(mirror(truth, mirrored, pool.template), torch.Generator())
    kept = task._kept.of(people, mirrored)
    torch.testing.assert_close(kept[0], truth.latents, rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(kept[1][:, 0] / 255, resize_photo(truth.photo, 32).clamp(0, 1), rtol=0, atol=0.0021)
    assert torch.equal(kept[2], truth.elevations)
    assert torch.equal(batch.azimuths, truth.azimuths[:1].expand(8, -1))
    assert all((latents == kept[0]).flatten(1).all(dim=1).any() for latents in batch.latents)

    whole = replace(SIZES, encoder_image=64)  # the photo as it is
    task = make_task(AugmentConfig(gain=0.5), keep_latents=True, keep_variants=2, model=whole)
    module = task.build_module()
    batch = task.sample(pool, 8, torch.Generator().manual_seed(0))
    torch.testing.assert_close(task._latents_of(batch.photo), batch.latents[:, 0], rtol=2e-2, atol=2e-2)
    assert len(batch.photo.mean(dim=(2, 3)).unique(dim=0)) >= 4  # two people in two colours
    terms = task.training_loss(module, batch, torch.Generator().manual_seed(0), 0)
    assert terms["denoising"].isfinite()


def test_a_turned_person_is_that_of_the_pictures_rolled(make_task, pool, monkeypatch):
    """Encoded in the step or kept: the view after the photo, a quarter further, comes first, the photo last."""
    rig = pool.batch(torch.tensor([0, 1]), torch.zeros(2, 1, dtype=torch.long), num_inputs=4)
    plain = make_task()
    plain.build_module()
    first = rig.cameras.viewmats.roll(-1, dims=1), rig.cameras.Ks.roll(-1, dims=1)
    rolled = replace(
        rig, images=rig.images.roll(-1, dims=1), cameras=replace(rig.cameras, viewmats=first[0], Ks=first[1])
    )
    expected = plain._encoded(rolled, torch.Generator())

    monkeypatch.setattr(ViewTask, "_turns", lambda self, count, generator: torch.ones(count).long())
    turned = make_task(turn=1.0)._encoded(rig, torch.Generator())
    task = make_task(AugmentConfig(mirror=0.0, gain=0.0), turn=1.0, keep_latents=True)
    task.build_module()
    kept = task.sample(pool, 8, torch.Generator().manual_seed(0))
    of = (kept.latents[:, None] - expected.latents).abs().flatten(2).mean(dim=2).argmin(dim=1)
    assert set(of.tolist()) == {0, 1}
    for name, rounding in (("latents", 1e-3), ("azimuths", 0.0), ("elevations", 0.0)):
        torch.testing.assert_close(getattr(turned, name), getattr(expected, name), rtol=0, atol=0)
        torch.testing.assert_close(getattr(kept, name), getattr(expected, name)[of], rtol=1e-3, atol=rounding)
    torch.testing.assert_close(turned.photo, expected.photo, rtol=0, atol=0)
    small = resize_photo(expected.photo, 32).clamp(0, 1)
    torch.testing.assert_close(kept.photo, small[of], rtol=0, atol=0.0021)


def test_each_other_view_is_the_photo_as_often_but_of_jittered_people(make_task, pool):
    turns = make_task(turn=0.6)._turns(4000, torch.Generator().manual_seed(0))
    torch.testing.assert_close(torch.bincount(turns) / 4000, torch.tensor([0.4, 0.2, 0.2, 0.2]), atol=0.03, rtol=0)
    task = make_task(turn=1.0, view_jitter=1.0)
    batch = task.sample(pool, 4, torch.Generator().manual_seed(0))
    assert torch.equal(task._views(batch, torch.Generator()).pictures[:, 0], on_white(batch.images[:, 0]))


def test_who_comes_later_is_encoded_and_drawn(body, pool, tmp_path):
    """So many together, and what was kept of a place holds until it is encoded anew."""
    source, pool = pool, PeoplePool(tmp_path, BodyTemplate.of(body), capacity=3, num_workers=1)

    def add(*people: int) -> None:
        for number in people:
            shutil.copytree(source.root / f"person-{number % 2}", tmp_path / f"p{number}")
            with (tmp_path / "manifest.jsonl").open("a", encoding="utf-8") as manifest:
                manifest.write(json.dumps({"name": f"p{number}"}) + "\n")
        pool.load()

    def encode(batch: PeopleBatch) -> tuple[Tensor]:
        return (batch.body.vertices,)

    def drawable() -> list[bool]:
        """Whether what is kept is of the people who are there now."""
        places = torch.arange(len(kept))
        [vertices] = kept.of(places, torch.zeros_like(places).bool())
        now = pool.batch(places, places[:, None] * 0).body.vertices
        return (vertices == now).flatten(1).all(dim=1).tolist()

    add(0)
    kept = KeptPeople(pool, encode, num_inputs=4, at_once=2)
    assert drawable() == [True]
    add(1)
    kept.follow()  # too few
    assert drawable() == [True]
    add(2)
    kept.follow()
    assert drawable() == [True] * 3
    add(3, 4)
    assert drawable() == [False, False, True]
    kept.follow()
    kept.follow()
    assert drawable() == [True] * 3
    assert len(kept) == 3


def test_a_step_is_the_same_in_parts(make_task, pool):
    """What is drawn of a person depends on the place in the whole batch alone, jitter and dropped conditions too."""
    task = make_task(view_jitter=0.5, turn=0.5, drop=0.5, drop_both=0.3)
    module = task.build_module().eval()

    def loss(part: int, num_parts: int) -> torch.Tensor:
        generator = BatchGenerator()
        generator.begin(7, 3, part=part, num_parts=num_parts, size=4 // num_parts)
        batch = task.sample(pool, 4 // num_parts, generator)
        with torch.no_grad():
            return task.training_loss(module, batch, generator, 0)["denoising"]

    torch.testing.assert_close((loss(0, 2) + loss(1, 2)) / 2, loss(0, 1), rtol=1e-4, atol=0)
