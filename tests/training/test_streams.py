"""Training on people that are read while it goes on."""

import os
import shutil
import signal
from dataclasses import replace
from pathlib import Path

import psutil
import pytest
import torch
from accelerate import Accelerator
from torch import Tensor

from humansplat.body.models import load_body_model
from humansplat.config import DataConfig, StreamConfig
from humansplat.data.dataset import PeoplePool
from humansplat.data.people import BodyTemplate
from humansplat.data.shard_writing import make_shards
from humansplat.data.stream import PeopleStream
from humansplat.errors import UserError
from humansplat.models.autoencoder import on_white
from humansplat.training.people import open_pools
from humansplat.training.trainer import Trainer

KINDS = ("stream", "shards")


@pytest.fixture(scope="module")
def roots(tmp_path_factory, write_painted_person) -> dict[str, str]:
    """The same six small SMPL-X people in a folder and in shards."""
    root = tmp_path_factory.mktemp("streams")
    for number in range(6):
        write_painted_person(root / "people", f"person-{number}", seed=number)
    make_shards(root / "people", root / "shards", shard_mib=0.2)
    return {"stream": str(root / "people"), "shards": str(root / "shards")}


@pytest.fixture(scope="module")
def template(smpl_folder) -> BodyTemplate:
    return BodyTemplate.of(load_body_model("smplx", folder=smpl_folder))


@pytest.fixture
def open_stream(roots, template):
    def open_stream(kind: str, **options) -> PeopleStream:
        return PeopleStream(kind, [roots[kind]], template, StreamConfig(shuffle_buffer=3), **({"seed": 2} | options))

    return open_stream


def picture_task(toy, number_of_targets: int = 2):
    """The toy task on pictures of people."""

    class PictureTask(toy.ToyTask):
        def sample(self, pool: PeopleStream, batch_size: int, generator: torch.Generator) -> Tensor:
            return on_white(pool.sample(batch_size, number_of_targets, generator).targets).flatten(0, 1)

    return PictureTask()


@pytest.mark.parametrize("kind", KINDS)
def test_resuming_a_stream_equals_not_stopping(toy, open_stream, tmp_path, kind):
    def run(folder: Path, **options: object) -> dict[int, float]:
        config = toy.toy_config(folder, num_steps=15, batch_size=4, validate_every=1000)
        trainer = Trainer(config, picture_task(toy), Accelerator(cpu=True), open_stream(kind))
        trainer.run(**options)
        return {line["step"]: line["total"] for line in toy.training_lines(folder)}

    whole = run(tmp_path / "whole")
    run(tmp_path / "broken", stop_after_minutes=0.0)
    run(tmp_path / "broken", resume=True, stop_after_minutes=0.0)
    assert run(tmp_path / "broken", resume=True) == whole
    assert len(set(whole.values())) == 3


def test_worker_processes_change_nothing_and_tell_mistakes_in_one_sentence(roots, template, tmp_path, rng):
    root = Path(shutil.copytree(roots["stream"], tmp_path / "people"))
    alone, helped = (
        PeopleStream("stream", [str(root)], template, StreamConfig(), num_workers=number) for number in (0, 1)
    )
    try:
        for _ in range(2):
            one, other = (stream.sample(2, 2, rng) for stream in (alone, helped))
            assert torch.equal(one.people, other.people)
            assert torch.equal(one.targets, other.targets)
            assert torch.equal(one.body.parameters["body_pose"], other.body.parameters["body_pose"])
            for worker in psutil.Process().children():  # as Ctrl-C in a terminal does: it goes on to its checkpoint
                if os.name == "posix" and "spawn_main" in " ".join(worker.cmdline()):
                    worker.send_signal(signal.SIGINT)
        for picture in root.glob("*/images/*.png"):
            picture.write_bytes(b"?")
        with pytest.raises(UserError, match=r"^[^\n]*person-[^\n]*cannot be read as a picture[^\n]*$"):
            draw_many(helped, rng)
    finally:
        helped.close()


def draw_many(stream: PeopleStream, rng: torch.Generator) -> None:
    """More batches than were read ahead."""
    for _ in range(6):
        stream.sample(2, 2, rng)


@pytest.mark.parametrize("kind", KINDS)
def test_streams_draw_as_pools_do(open_stream, roots, template, rng, kind):
    stream = open_stream(kind)
    batch = stream.sample(3, 2, rng, num_inputs=4, photo_weight=1.0)
    assert len(stream) == 6
    assert stream.position == 3
    assert batch.images.shape[:2] == (3, 4)
    assert ((batch.targets == batch.images[:, :1]).flatten(2).all(dim=2).sum(dim=1) == 1).all()
    pool = PeoplePool(Path(roots["stream"]), template, capacity=6)
    pool.load()
    same = pool.batch(batch.people, torch.zeros(3, 1, dtype=torch.long))
    if kind == "stream":  # shards number their people in their own order
        assert torch.equal(batch.body.vertices, same.body.vertices)
    assert batch.body.parameters.keys() == same.body.parameters.keys()
    changed = stream.sample(5, 1, rng)  # another size of batch goes on from the same position
    assert stream.position == 8
    assert len(changed.people) == 5


def test_configured_stream_is_opened_with_its_body_model(roots, smpl_folder, rng):
    data = DataConfig(
        source="stream", train=Path(roots["stream"]), validation=Path(roots["stream"]), validation_people=2,
        image_size=32, num_workers=0, max_views=5, body_model="smplx", body_models=smpl_folder,
    )  # fmt: skip
    with open_pools(data, Accelerator(cpu=True), seed=1) as (people, validation):
        assert isinstance(people, PeopleStream)
        batch = people.sample(2, 2, rng)
        assert (batch.body.model, batch.body.gender) == ("smplx", "neutral")
        assert batch.targets.shape == (2, 2, 4, 32, 32)
        assert validation is not None
        assert validation.num_views == 5
    with (
        pytest.raises(UserError, match="'smplx' without its faces"),
        open_pools(replace(data, body_gender="male"), Accelerator(cpu=True)) as (people, _),
    ):
        people.sample(2, 2, rng)


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"source": "stream", "watch": True}, "data.watch is for"),
        ({"stream": StreamConfig(roots=("a",))}, "data.stream.roots are for"),
        ({"max_views": 3}, "data.max_views"),
        ({"num_workers": 0}, "data.num_workers"),
    ],
)
def test_settings_that_do_not_go_together_are_refused(changes, complaint):
    with pytest.raises(UserError, match=complaint):
        DataConfig(**changes)


def test_settings_of_a_stream_are_checked():
    for wish in ({"weights": (1.0,)}, {"ring_inputs": 2.0}, {"shuffle_buffer": 0}):
        with pytest.raises(UserError, match=f"stream.{next(iter(wish))}"):
            StreamConfig(**wish)
