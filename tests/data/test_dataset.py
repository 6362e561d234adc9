import json
import shutil
import threading

import numpy as np
import pytest
import torch
from PIL import Image

from humansplat.config import AugmentConfig
from humansplat.data.dataset import PeoplePool
from humansplat.errors import UserError

SIZE = 32  # of the toy people's pictures, see conftest.py


@pytest.fixture
def root(tmp_path, write_person):
    for seed in range(5):
        write_person(tmp_path, f"p{seed}", seed)
    return tmp_path


@pytest.fixture
def open_pool(template):
    def open_pool(root, **options) -> PeoplePool:
        return PeoplePool(root, template, **({"capacity": 8, "num_workers": 2} | options))

    return open_pool


def test_pool_holds_the_pictures_of_the_files(root, open_pool):
    pool = open_pool(root)
    pool.load()
    assert len(pool) == 5
    assert pool.names == [f"p{seed}" for seed in range(5)]
    assert pool.num_views == 7
    batch = pool.batch(torch.tensor([3]), torch.tensor([[6, 2]]), num_inputs=4)
    for tensor, view in ((batch.targets[0, 0], 6), (batch.targets[0, 1], 2), (batch.images[0, 3], 3)):
        stored = np.asarray(Image.open(root / "p3" / "images" / f"{view:03d}.png")).transpose(2, 0, 1)
        np.testing.assert_array_equal((tensor * 255).round().byte().numpy(), stored)
    with np.load(root / "p3" / "body.npz") as body:
        np.testing.assert_array_equal(batch.body.vertices[0].numpy(), body["vertices"])
        np.testing.assert_array_equal(batch.body.parameters["rotations"][0].numpy(), body["rotations"])


def test_targets_of_a_person_are_different_views(root, open_pool, rng):
    pool = open_pool(root)
    pool.load()
    batch = pool.sample(16, 7, rng)
    cameras = batch.target_cameras.viewmats.flatten(2)
    distances = torch.cdist(cameras, cameras) + torch.eye(7)
    assert distances.min() > 1e-3
    assert batch.images.shape == (16, 1, 4, SIZE, SIZE)
    assert batch.cameras.viewmats.shape == (16, 4, 4, 4)
    with pytest.raises(ValueError, match="num_targets"):
        pool.sample(2, 8, rng)


def test_the_photograph_comes_as_often_as_its_weight_says(root, open_pool, rng):
    pool = open_pool(root)
    pool.load()
    for weight, expected in ((0.0, 2 / 7), (0.5, 0.5 + 0.5 * 2 / 7), (1.0, 1.0)):
        batch = pool.sample(400, 2, rng, photo_weight=weight)
        shown = (batch.target_cameras.viewmats == batch.cameras.viewmats[:, :1]).flatten(2).all(dim=2).sum(dim=1)
        assert shown.max() == 1  # targets stay different views
        assert shown.float().mean().item() == pytest.approx(expected, abs=0.08)


def test_same_generator_gives_the_same_batch(root, open_pool):
    pool = open_pool(root)
    pool.load()
    first, second = (pool.sample(4, 2, torch.Generator().manual_seed(7)) for _ in range(2))
    assert torch.equal(first.targets, second.targets)
    assert torch.equal(first.people, second.people)


def test_processes_share_the_people_without_overlap(root, open_pool):
    pools = [open_pool(root, rank=rank, world_size=2) for rank in range(2)]
    for pool in pools:
        pool.load()
    assert [pool.names for pool in pools] == [["p0", "p2", "p4"], ["p1", "p3"]]


def test_smaller_pictures_come_with_smaller_intrinsics(root, open_pool):
    full, half = open_pool(root), open_pool(root, image_size=SIZE // 2)
    full.load()
    half.load()
    index, views = torch.tensor([1]), torch.tensor([[0, 5]])
    large, small = full.batch(index, views), half.batch(index, views)
    expected = large.target_cameras.resized(SIZE // 2, SIZE // 2)
    torch.testing.assert_close(small.target_cameras.Ks, expected.Ks)
    assert small.target_cameras.width == SIZE // 2
    premultiplied = large.targets[..., :3, :, :] * large.targets[..., 3:, :, :]
    pooled = torch.nn.functional.avg_pool2d(premultiplied[0], 2)
    small_premultiplied = small.targets[..., :3, :, :] * small.targets[..., 3:, :, :]
    assert (small_premultiplied[0] - pooled).abs().max() < 2.5 / 255


def test_full_pool_replaces_its_oldest(root, open_pool, write_person):
    pool = open_pool(root, capacity=3)
    pool.load()
    assert sorted(pool.names) == ["p2", "p3", "p4"]
    write_person(root, "p5", 5)
    pool.load()
    assert sorted(pool.names) == ["p3", "p4", "p5"]
    place = pool.names.index("p5")
    with np.load(root / "p5" / "body.npz") as body:
        stored = pool.batch(torch.tensor([place]), torch.tensor([[0]])).body.vertices[0]
        np.testing.assert_array_equal(stored.numpy(), body["vertices"])


def test_people_that_come_later_are_added_in_the_background(tmp_path, rng, open_pool, write_person):
    write_person(tmp_path, "p0", 0)
    pool = open_pool(tmp_path)
    pool.load()
    arrived = threading.Event()
    pool.watch(poll_seconds=0.01, on_arrival=lambda count: arrived.set())
    try:
        shutil.copytree(tmp_path / "p0", tmp_path / "broken")
        (tmp_path / "broken" / "images" / "002.png").write_bytes(b"no picture")
        with (tmp_path / "manifest.jsonl").open("a") as manifest:
            manifest.write(json.dumps({"name": "broken"}) + "\n")
        write_person(tmp_path, "p1", 1)
        assert arrived.wait(20)
    finally:
        pool.close()
    assert pool.names == ["p0", "p1"]  # the broken one is left out, training goes on
    assert pool.sample(8, 2, rng).people.max() == 1


def test_half_written_line_is_not_read(root, open_pool):
    text = (root / "manifest.jsonl").read_text()
    (root / "manifest.jsonl").write_text(text[:-20])
    pool = open_pool(root)
    pool.load()
    assert len(pool) == 4


def test_bad_folders_are_refused_with_the_reason(root, open_pool, write_person):
    with pytest.raises(UserError, match="6 are needed"):
        open_pool(root).load(minimum=6)
    with pytest.raises(UserError, match="holds 0 people"):
        open_pool(root / "nowhere").load()
    write_person(root, "more_views", 9, num_novel=4)
    with pytest.raises(UserError, match="more_views differs.*images"):
        open_pool(root).load()


def test_broken_person_is_named(root, open_pool):
    (root / "p2" / "body.npz").unlink()
    with pytest.raises(UserError, match="p2"):
        open_pool(root).load()


def test_body_of_another_model_is_refused(root, template):
    other = template.map(lambda tensor: tensor[:6] if tensor.shape[0] == 7 else tensor)
    with pytest.raises(UserError, match="'toy'"):
        PeoplePool(root, other, capacity=2).load()


@pytest.mark.parametrize("damage", ["gone", "no picture", "another size"])
def test_broken_picture_is_named(root, open_pool, damage):
    path = root / "p1" / "images" / "004.png"
    path.unlink()
    if damage == "no picture":
        path.write_bytes(b"no picture")
    if damage == "another size":
        Image.new("RGBA", (8, 8)).save(path)
    with pytest.raises(UserError, match="004.png"):
        open_pool(root).load()


def test_folders_without_people_are_waited_for_only_on_demand(tmp_path, open_pool, write_person):
    with pytest.raises(UserError, match="holds 0 people"):
        open_pool(tmp_path).load()
    pool = open_pool(tmp_path)
    waiting = threading.Thread(target=lambda: pool.load(wait=True))
    waiting.start()
    write_person(tmp_path, "p0", 0)
    waiting.join(20)
    assert len(pool) == 1


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_drawing_never_waits_for_the_device(root, open_pool):
    pool = open_pool(root, device="cuda")
    pool.load()
    generator = torch.Generator("cuda").manual_seed(0)
    config = AugmentConfig(mirror=0.5, gain=0.2, permute=0.5)
    pool.sample(4, 3, generator, num_inputs=4, augment=config)  # the first call loads kernels
    torch.cuda.set_sync_debug_mode("error")
    try:
        batch = pool.sample(4, 3, generator, num_inputs=4, augment=config)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert batch.targets.is_cuda
    assert batch.targets.isfinite().all()
