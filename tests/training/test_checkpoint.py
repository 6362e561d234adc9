from dataclasses import replace

import pytest
import torch
from torch import nn

from humansplat.config import CheckpointConfig
from humansplat.errors import UserError
from humansplat.training.checkpoint import (
    MIB,
    Checkpoint,
    check_part_size,
    list_checkpoints,
    load_checkpoint,
    pack,
    save_checkpoint,
)


@pytest.fixture
def checkpoint(rng):
    weights = {"a": torch.randn(300, 300, generator=rng), "b": torch.randn(7, generator=rng), "count": torch.tensor(5)}
    parameters = {name: weights[name] + 1 for name in ("a", "b")}
    return Checkpoint(
        step=12,
        weights=weights,
        averages=parameters,
        moments={"exp_avg.a": 2 * weights["a"], "step.a": torch.tensor(300.0)},
        loss_scale={},
        position=None,
        minutes_used=1.5,
        metrics={"psnr": 20.0},
        best=None,
        config={"task": "autoencoder"},
    )


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize("max_part_mib", [None, 0.5])
def test_checkpoint_comes_back_bit_for_bit(checkpoint, tmp_path, max_part_mib):
    folder = save_checkpoint(checkpoint, tmp_path, CheckpointConfig(max_part_mib=max_part_mib))
    loaded = load_checkpoint(folder)
    for group in ("weights", "averages", "moments"):
        assert same(getattr(loaded, group), getattr(checkpoint, group))
    for name in ("step", "position", "minutes_used", "metrics", "best", "config"):
        assert getattr(loaded, name) == getattr(checkpoint, name)
    parts = sorted(folder.glob("part-*.safetensors"))
    assert len(parts) == (1 if max_part_mib is None else 3)
    if max_part_mib is not None:
        assert all(part.stat().st_size <= max_part_mib * MIB for part in parts)


def test_compact_checkpoint_keeps_what_must_be_exact(checkpoint, tmp_path):
    config = CheckpointConfig(weights="float16", moments="bfloat16")
    loaded = load_checkpoint(save_checkpoint(checkpoint, tmp_path, config))
    assert loaded.weights["a"].dtype == torch.float16
    torch.testing.assert_close(loaded.weights["a"].float(), checkpoint.weights["a"], rtol=1e-3, atol=1e-6)
    assert loaded.moments["exp_avg.a"].dtype == torch.bfloat16
    assert loaded.moments["step.a"] == 300  # bfloat16 has no 300
    assert loaded.weights["count"] == 5
    without = save_checkpoint(replace(checkpoint, step=13), tmp_path, replace(config, moments="none"))
    assert load_checkpoint(without).moments == {}


def test_only_the_newest_are_kept_and_the_newest_is_taken(checkpoint, tmp_path):
    for step in (5, 100, 20_000):
        save_checkpoint(replace(checkpoint, step=step), tmp_path, CheckpointConfig(keep=2))
    assert [path.name for path in list_checkpoints(tmp_path)] == ["checkpoint-00000100", "checkpoint-00020000"]
    assert load_checkpoint(tmp_path).step == 20_000


def test_what_a_killed_writer_left_is_not_a_checkpoint(checkpoint, tmp_path):
    save_checkpoint(checkpoint, tmp_path, CheckpointConfig())
    unfinished = tmp_path / "checkpoint-00000099.tmp"
    unfinished.mkdir()
    (unfinished / "part-00.safetensors").write_bytes(b"half")
    assert load_checkpoint(tmp_path).step == 12
    save_checkpoint(replace(checkpoint, step=99), tmp_path, CheckpointConfig())
    assert load_checkpoint(tmp_path).step == 99
    assert not unfinished.exists()


def test_missing_part_is_named(checkpoint, tmp_path):
    folder = save_checkpoint(checkpoint, tmp_path, CheckpointConfig(max_part_mib=0.5))
    (folder / "part-01.safetensors").unlink()
    with pytest.raises(UserError, match=r"lacks \['part-01.safetensors'\]: bring all 3 parts"):
        load_checkpoint(folder)
    with pytest.raises(UserError, match="holds no checkpoint"):
        load_checkpoint(tmp_path / "nowhere")


def test_tied_weights_are_stored(tmp_path, checkpoint):
    tied = torch.ones(4, 4)
    loaded = load_checkpoint(
        save_checkpoint(replace(checkpoint, weights={"x": tied, "y": tied}), tmp_path, CheckpointConfig())
    )
    assert same(loaded.weights, {"x": tied, "y": tied})


def test_parts_hold_everything_once():
    sizes = {f"t{i}": (i * 37 % 101) * 10_000 for i in range(60)}
    parts = pack(sizes, max_part_mib=2.0)
    assert sorted(name for part in parts for name in part) == sorted(sizes)
    assert max(sum(sizes[name] for name in part) for part in parts) < 2 * MIB
    assert len(parts) <= 1.2 * sum(sizes.values()) / (2 * MIB) + 1


def test_tensor_larger_than_a_part_is_refused_before_training():
    with pytest.raises(UserError, match="max_part_mib .0.1. is too small for weight of 0.2 MiB"):
        check_part_size(nn.Linear(200, 300), CheckpointConfig(max_part_mib=0.1))
