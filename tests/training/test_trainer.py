import json
import signal
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from humansplat.config import CheckpointConfig, OptimConfig, TrainConfig, load_config
from humansplat.errors import UserError
from humansplat.training.checkpoint import load_checkpoint
from humansplat.training.trainer import Trainer


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """Faster at this size."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def losses(folder: Path) -> dict[int, float]:
    """The mean loss of each reading; the last entry of a step counts."""
    lines = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    return {line["step"]: line["total"] for line in lines if line["group"] == "train"}


def same_weights(one: Path, other: Path) -> bool:
    first, second = load_file(one / "final" / "toy.safetensors"), load_file(other / "final" / "toy.safetensors")
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def test_training_overfits_and_leaves_what_it_promises(toy, tmp_path):
    config = toy.toy_config(tmp_path / "run", num_steps=120, validate_every=40)
    result = toy.toy_trainer(config).run()
    curve = losses(tmp_path / "run")
    assert result.finished
    assert result.step == 120
    assert curve[120] < 0.2 * curve[5]
    assert result.best == pytest.approx(max(result.best, result.metrics["psnr"]))
    names = {path.name for path in (tmp_path / "run").iterdir()}
    assert names == {"config.yaml", "log.jsonl", "tensorboard", "checkpoints", "best", "final"}
    assert load_config(TrainConfig, tmp_path / "run" / "config.yaml") == config
    lines = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    last = [line for line in lines if line["group"] == "train"][-1]
    assert {"total", "squared", "psnr", "grad_norm", "lr", "minutes", "bad_steps", "people"} <= last.keys()
    assert [line["step"] for line in lines if line["group"] == "validation"] == [40, 80, 120]


def test_resuming_equals_not_stopping(toy, tmp_path):
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    toy.toy_trainer(toy.toy_config(whole)).run()
    first = toy.toy_trainer(toy.toy_config(broken)).run(stop_after_minutes=0.0)
    assert (first.step, first.finished) == (5, False)
    toy.toy_trainer(toy.toy_config(broken)).run(resume=True, stop_after_minutes=0.0)
    last = toy.toy_trainer(toy.toy_config(broken)).run(resume=True)
    assert last.finished
    assert losses(whole) == losses(broken)
    assert same_weights(whole, broken)


def test_stop_signal_leaves_a_checkpoint(toy, tmp_path):
    class Stopping(toy.ToyTask):
        def training_loss(self, module, batch, generator, step):
            if step == 7:
                signal.raise_signal(signal.SIGINT)
            return super().training_loss(module, batch, generator, step)

    result = toy.toy_trainer(toy.toy_config(tmp_path), Stopping()).run()
    assert (result.step, result.finished) == (10, False)  # at the next reading
    assert load_checkpoint(tmp_path).step == 10


def test_steps_that_are_not_finite_are_left_out(toy, tmp_path):
    config = toy.toy_config(tmp_path / "a", num_steps=30, validate_every=1000)
    trainer = toy.toy_trainer(config, toy.ToyTask(poison=[3, 4, 11]))
    assert trainer.run().finished
    assert all(p.isfinite().all() for p in trainer.module.parameters())
    lines = [json.loads(line) for line in (tmp_path / "a" / "log.jsonl").read_text().splitlines()]
    assert [line["bad_steps"] for line in lines if line["group"] == "train"] == [2, 2, 3, 3, 3, 3]
    assert all(line["total"] > 0 for line in lines if line["group"] == "train")  # the means leave them out


def test_bad_step_changes_neither_weights_nor_moments(toy, tmp_path):
    config = toy.toy_config(tmp_path, num_steps=10, log_every=1)
    trainer = toy.toy_trainer(config, toy.ToyTask(poison=[1]))
    trainer.run(stop_after_minutes=0.0)
    after_one = load_checkpoint(tmp_path)
    trainer = toy.toy_trainer(config, toy.ToyTask(poison=[1]))
    trainer.run(resume=True, stop_after_minutes=0.0)
    after_two = load_checkpoint(tmp_path)
    assert after_two.step == 2
    for group in ("weights", "moments"):
        before, after = getattr(after_one, group), getattr(after_two, group)
        assert before.keys() == after.keys()
        assert all(torch.equal(before[name], after[name]) for name in before)


def test_run_ends_when_steps_stay_bad(toy, tmp_path):
    optim = OptimConfig(lr=1e-2, warmup_steps=5, max_bad_steps=4)
    config = toy.toy_config(tmp_path, optim=optim)
    with pytest.raises(FloatingPointError, match="10: the gradient was not finite 5 times in a row"):
        toy.toy_trainer(config, toy.ToyTask(poison=range(5, 40))).run()


def test_activations_are_computed_anew_where_the_module_can(toy, tmp_path):
    class Able(torch.nn.Sequential):
        asked = False

        def enable_gradient_checkpointing(self) -> None:
            self.asked = True

    class AbleTask(toy.ToyTask):
        def build_module(self):
            return Able(*super().build_module())

    config = toy.toy_config(tmp_path, gradient_checkpointing=True)
    assert toy.toy_trainer(config, AbleTask()).module.asked
    with pytest.raises(UserError, match="Sequential cannot compute activations anew: set gradient_checkpointing"):
        toy.toy_trainer(config)


def test_loss_scale_is_found_and_kept_and_only_hopeless_steps_are_bad(toy, tmp_path):
    """Half precision: the first steps overflow by a scale that is too large, which is no mistake."""
    fresh = {"mixed_precision": "fp16", "optim": OptimConfig(lr=1e-2, warmup_steps=5, max_bad_steps=3)}
    huge = {"value": torch.tensor(2.0**40), "good_steps": torch.tensor(0.0)}

    def trainer(folder: Path, **task: object) -> Trainer:
        made = toy.toy_trainer(toy.toy_config(folder, **fresh), toy.ToyTask(**task))
        made.learner.scale.load_state_dict(huge)
        return made

    whole, broken = trainer(tmp_path / "whole"), trainer(tmp_path / "broken")
    assert whole.run().finished
    lines = [json.loads(line) for line in (tmp_path / "whole" / "log.jsonl").read_text().splitlines()]
    assert {line["bad_steps"] for line in lines if line["group"] == "train"} == {0.0}
    assert 2.0**8 < float(whole.learner.scale.value) < 2.0**40
    assert losses(tmp_path / "whole")[40] < 0.7 * losses(tmp_path / "whole")[25]
    broken.run(stop_after_minutes=0.0)
    toy.toy_trainer(toy.toy_config(tmp_path / "broken", **fresh)).run(resume=True)
    assert same_weights(tmp_path / "whole", tmp_path / "broken")
    with pytest.raises(FloatingPointError, match="in a row"):
        toy.toy_trainer(toy.toy_config(tmp_path / "c", **fresh), toy.ToyTask(poison=range(40))).run()


def test_time_budget_ends_the_schedule(toy, tmp_path):
    config = toy.toy_config(tmp_path, num_steps=1_000_000, max_minutes=0.02, validate_every=10**9)
    result = toy.toy_trainer(config).run()
    assert result.finished
    lines = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    rates = [line["lr"] for line in lines if line["group"] == "train"]
    assert max(rates) > 0.5 * config.optim.lr
    assert rates[-1] < 0.2 * config.optim.lr  # the cosine has come down with the clock


def test_mixed_precision_and_compact_checkpoints_train_and_resume(toy, tmp_path):
    compact = CheckpointConfig(weights="float16", moments="bfloat16", max_part_mib=1.0)
    config = toy.toy_config(tmp_path, mixed_precision="bf16", checkpoint=compact)
    toy.toy_trainer(config).run(stop_after_minutes=0.0)
    saved = load_checkpoint(tmp_path)
    assert {tensor.dtype for tensor in saved.averages.values()} == {torch.float16}
    result = toy.toy_trainer(config).run(resume=True)
    assert result.finished
    assert losses(tmp_path)[40] < losses(tmp_path)[5]


def test_people_are_drawn_in_full_precision(toy, tmp_path):
    precise: dict[str, list[bool]] = {"sample": [], "loss": []}

    class Watched(toy.ToyTask):
        def sample(self, pool, batch_size, generator):
            precise["sample"].append(not torch.is_autocast_enabled("cpu"))
            return super().sample(pool, batch_size, generator)

        def training_loss(self, *inputs):
            precise["loss"].append(not torch.is_autocast_enabled("cpu"))
            return super().training_loss(*inputs)

    config = toy.toy_config(tmp_path, mixed_precision="bf16", num_steps=6, validate_every=3)
    toy.toy_trainer(config, Watched()).run()
    assert precise == {"sample": [True] * 8, "loss": [False] * 6}


def test_run_can_start_from_another_runs_averages(toy, tmp_path):
    toy.toy_trainer(toy.toy_config(tmp_path / "a")).run()
    config = toy.toy_config(tmp_path / "b", init_from=tmp_path / "a", validate_every=5, num_steps=6)
    toy.toy_trainer(config).run()
    assert losses(tmp_path / "b")[5] < 0.5 * losses(tmp_path / "a")[5]


def test_run_can_start_from_a_saved_model_in_half_precision(toy, tmp_path):
    toy.toy_trainer(toy.toy_config(tmp_path / "a")).run()
    (tmp_path / "saved").mkdir()
    state = load_checkpoint(tmp_path / "a").averages
    halves = {name: tensor.half() for name, tensor in state.items()}
    save_file(halves, tmp_path / "saved" / "diffusion_pytorch_model.safetensors")
    config = toy.toy_config(tmp_path / "b", init_from=tmp_path / "saved", validate_every=5, num_steps=6)
    toy.toy_trainer(config).run()
    assert losses(tmp_path / "b")[5] < 0.5 * losses(tmp_path / "a")[5]
    save_file({"other.weight": torch.zeros(1)}, tmp_path / "saved" / "diffusion_pytorch_model.safetensors")
    with pytest.raises(UserError, match=r"1 unexpected: other.weight"):
        toy.toy_trainer(toy.toy_config(tmp_path / "c", init_from=tmp_path / "saved")).run()


def test_run_can_start_from_a_saved_model_that_the_training_module_wraps(toy, tmp_path):
    class Wrapping(toy.ToyTask):
        def build_module(self):
            return torch.nn.Sequential(OrderedDict(model=super().build_module()))

    toy.toy_trainer(toy.toy_config(tmp_path / "a")).run()
    (tmp_path / "saved").mkdir()
    save_file(load_checkpoint(tmp_path / "a").averages, tmp_path / "saved" / "diffusion_pytorch_model.safetensors")
    config = toy.toy_config(tmp_path / "b", init_from=tmp_path / "saved", validate_every=5, num_steps=6)
    toy.toy_trainer(config, Wrapping()).run()
    assert losses(tmp_path / "b")[5] < 0.5 * losses(tmp_path / "a")[5]


def test_what_cannot_be_resumed_is_refused(toy, tmp_path):
    config = toy.toy_config(tmp_path / "run")
    with pytest.raises(UserError, match="holds no checkpoint"):
        toy.toy_trainer(config).run(resume=True)
    toy.toy_trainer(config).run()
    with pytest.raises(UserError, match="holds a run already"):
        toy.toy_trainer(config).run()

    class Wider(toy.ToyTask):
        def build_module(self):
            return torch.nn.Sequential(torch.nn.Conv2d(3, 8, 4, stride=4), torch.nn.ConvTranspose2d(8, 3, 4, stride=4))

    with pytest.raises(UserError, match=r"2 unexpected: 4.bias, 4.weight; 4 of another shape: 0.bias"):
        toy.toy_trainer(replace(config, num_steps=50), Wider()).run(resume=True)


def test_a_figure_that_is_not_validated_decides_nothing(toy, tmp_path):
    class Announcing(toy.ToyTask):
        figures = ("psnr",)

    config = toy.toy_config(tmp_path, best_metric="ssim", num_steps=6, validate_every=6)
    with pytest.raises(UserError, match=r"best_metric .ssim. is not validated here; there are psnr"):
        toy.toy_trainer(config, Announcing())
    trainer = toy.toy_trainer(config)  # nobody knows before
    with pytest.raises(UserError, match=r"best_metric .ssim. is not validated here; there are psnr"):
        trainer.run()
    assert not (tmp_path / "best").exists()


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_step_never_waits_for_the_device(toy, tmp_path, precision):
    class Watched(toy.ToyTask):
        """From the third step on, between two readings, whatever waits for the device is an error."""

        def sample(self, pool, batch_size, generator):
            torch.cuda.set_sync_debug_mode(
                "error" if trainer.step % 5 not in (0, 4) and trainer.step > 5 else "default"
            )
            return super().sample(pool, batch_size, generator)

    trainer = toy.toy_trainer(toy.toy_config(tmp_path, mixed_precision=precision), Watched(), cpu=False)
    try:
        assert trainer.run().finished
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert losses(tmp_path)[40] < losses(tmp_path)[5]
