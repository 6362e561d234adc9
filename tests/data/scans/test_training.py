"""Prepared scans of every layout are trained on; here because it shares the scans that were prepared."""

from pathlib import Path

import numpy as np
import pytest
import torch

from humansplat.config import (
    AugmentConfig,
    DataConfig,
    OptimConfig,
    ReconstructionConfig,
    ReconstructorConfig,
    StreamConfig,
    TrainConfig,
)
from humansplat.data.people import BodyTemplate
from humansplat.data.samples import PeopleDataset, SampleOptions
from humansplat.data.shard_writing import make_shards
from humansplat.data.stream import PeopleStream
from humansplat.geometry.projection import project
from humansplat.models.autoencoder import build_autoencoder
from humansplat.training.people import load_body
from humansplat.training.reconstruction_task import ReconstructionTask

LAYOUTS = ("thuman2", "2k2k", "customhumans", "generic")
AUGMENT = AugmentConfig(mirror=0.5, crop_scale=0.05, crop_shift=0.02, background=0.5, jpeg=0.5)


@pytest.fixture(scope="module")
def task(tmp_path_factory: pytest.TempPathFactory) -> ReconstructionTask:
    folder = tmp_path_factory.mktemp("task")
    torch.manual_seed(0)
    build_autoencoder((16, 16, 16, 16)).save_pretrained(folder / "vae")
    model = ReconstructorConfig(
        width=32, num_heads=2, num_intra_layers=1, num_inter_layers=1, num_body_tokens=64, kept_cells=40
    )
    reconstruction = ReconstructionConfig(autoencoder=folder / "vae", model=model, num_targets=2, wrong_bodies=1.0)
    return ReconstructionTask(
        TrainConfig(
            task="reconstruction",
            num_steps=10,
            optim=OptimConfig(warmup_steps=1),
            data=DataConfig(image_size=32, augment=AUGMENT),
            reconstruction=reconstruction,
        )
    )


@pytest.fixture(scope="module")
def template() -> BodyTemplate:
    return BodyTemplate.of(load_body(DataConfig()))


@pytest.mark.parametrize("layout", LAYOUTS)
def test_prepared_scans_are_trained_on(
    prepared_folders: dict[str, Path],
    task: ReconstructionTask,
    template: BodyTemplate,
    tmp_path: Path,
    rng: torch.Generator,
    layout: str,
):
    make_shards(prepared_folders[layout], tmp_path / "shards")
    roots = {"stream": prepared_folders[layout], "shards": tmp_path / "shards"}
    kind = "shards" if layout == "generic" else "stream"
    config = StreamConfig(ring_inputs=0.5, verify=True)
    stream = PeopleStream(kind, [str(roots[kind])], template, config, image_size=32)
    torch.manual_seed(0)
    module = task.build_module()
    losses = task.training_loss(module, task.sample(stream, 2, rng), rng, 0)
    total = torch.stack([value for name, value in losses.items() if not name.startswith("_")]).sum()
    total.backward()
    assert total.isfinite()
    gradients = [parameter.grad for parameter in module.parameters() if parameter.grad is not None]
    assert all(gradient.isfinite().all() for gradient in gradients)
    assert sum(float(gradient.abs().sum()) for gradient in gradients) > 0


@pytest.mark.parametrize("layout", LAYOUTS)
def test_bodies_lie_where_the_pictures_of_all_rings_show_them(
    prepared_folders: dict[str, Path], template: BodyTemplate, layout: str
):
    options = SampleOptions(num_targets=12, num_inputs=4, ring_inputs=1.0)
    people = PeopleDataset([prepared_folders[layout]], template, options, seed=1)
    sample = people.sample(0, epoch=0)
    assert 4 <= int(sample.views[0]) < 8  # the photograph is one of the ring of whole bodies
    for pictures, cameras in ((sample.images, sample.cameras), (sample.targets, sample.target_cameras)):
        for picture, viewmat, K in zip(pictures, cameras.viewmats, cameras.Ks, strict=True):
            xy, depth = project(sample.body["vertices"], viewmat, K)
            inside = ((xy > 0) & (xy < cameras.width)).all(dim=1) & (depth > 0)
            column, row = xy[inside].floor().long().unbind(-1)
            assert np.mean((picture[row, column, 3] > 0).numpy()) > 0.8  # 64 px, and a fit that is centimetres off
