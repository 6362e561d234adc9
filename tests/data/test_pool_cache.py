import json

import pytest
import torch

from humansplat.data import pool_cache
from humansplat.data.dataset import PeoplePool
from humansplat.data.person_files import load_person
from humansplat.errors import UserError


@pytest.fixture
def root(tmp_path, write_person):
    for seed in range(3):
        write_person(tmp_path / "people", f"p{seed}", seed)
    return tmp_path / "people"


def loaded(root, template, **options) -> PeoplePool:
    pool = PeoplePool(root, template, **({"capacity": 8, "num_workers": 2} | options))
    pool.load()
    return pool


def test_a_pool_from_a_cache_is_the_pool(root, template, tmp_path):
    plain = loaded(root, template)
    cache = tmp_path / "cache"
    written = loaded(root, template, cache=cache)
    stamp = (cache / "index.json").stat().st_mtime_ns
    (root / "p1" / "images" / "000.png").unlink()  # nobody looks
    read = loaded(root, template, cache=cache)
    assert (cache / "index.json").stat().st_mtime_ns == stamp
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith("cache")] == ["cache"]
    for pool in (written, read):
        assert pool.names == plain.names == ["p0", "p1", "p2"]
        assert pool._size == plain._size
        for name, slot in plain._slots.items():
            torch.testing.assert_close(pool._slots[name][:3], slot[:3], rtol=0, atol=0)
    assert loaded(root, template, cache=cache, capacity=2).names == ["p1", "p2"]


def test_a_slower_run_takes_the_cache_that_a_faster_one_wrote_meanwhile(root, template, tmp_path, monkeypatch):
    cache, written = tmp_path / "cache", []

    def load_late(*arguments, **options):
        monkeypatch.undo()
        loaded(root, template, cache=cache)
        written.append((cache / "index.json").stat().st_mtime_ns)
        return load_person(*arguments, **options)

    monkeypatch.setattr(pool_cache, "load_person", load_late)
    assert len(loaded(root, template, cache=cache)) == 3
    assert [(cache / "index.json").stat().st_mtime_ns] == written
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith("cache")] == ["cache"]


def test_a_cache_stays_where_nothing_can_take_its_place(tmp_path):
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache" / "index.json").touch()
    with pytest.raises(FileNotFoundError):
        pool_cache._replace(tmp_path / "cache", tmp_path / "no")
    assert (tmp_path / "cache" / "index.json").is_file()


def test_a_folder_of_other_files_is_left_alone(root, template):
    with pytest.raises(UserError, match="holds no cache"):
        loaded(root, template, cache=root)
    assert len(loaded(root, template)) == 3


def test_a_cache_of_another_state_is_written_anew(root, template, tmp_path, write_person):
    cache = tmp_path / "cache"
    loaded(root, template, cache=cache)
    assert loaded(root, template, cache=cache, image_size=16).batch(
        torch.tensor([0]), torch.tensor([[0]])
    ).images.shape == (1, 1, 4, 16, 16)
    write_person(root, "p3", 3)
    assert loaded(root, template, cache=cache).names == ["p0", "p1", "p2", "p3"]
    (cache / "index.json").write_text("{")
    assert len(loaded(root, template, cache=cache)) == 4
    assert json.loads((cache / "index.json").read_text())["names"] == ["p0", "p1", "p2", "p3"]
    (root / "p2" / "body.npz").unlink()
    with pytest.raises(UserError, match="body"):
        loaded(root, template, cache=cache, max_views=5)
    assert len(loaded(root, template, cache=cache)) == 4  # what was there is still there
