"""Two processes train as one does with the same global batch, whichever way they share the work."""

import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from humansplat.training.checkpoint import load_checkpoint

PAIR = Path(__file__).with_name("pair.py")


@pytest.fixture(scope="module")
def root(pair, smpl_folder, write_painted_person, tmp_path_factory) -> Path:
    """All runs of ``pair.py`` in two processes, and those of one process that they are compared with."""
    root = tmp_path_factory.mktemp("runs")
    people = root / "people"
    for number in range(3):
        write_painted_person(people, f"person-{number}", seed=number)
    folders = (root, people, smpl_folder)
    before = torch.get_num_threads()
    torch.set_num_threads(1)

    pair.train(pair.plan(*folders, "pool-one", batch_size=4, kept=True))
    keep_until(root / "pool-one", root / "resumed-two", step=3)
    command = [sys.executable, str(PAIR)]
    arguments = [str(path) for path in (root / "store", *folders)]
    environment = os.environ | {"PYTHONPATH": str(PAIR.parents[2]), "OMP_NUM_THREADS": "1"}
    pipes = ({}, {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE})
    processes = [
        subprocess.Popen([*command, str(rank), *arguments], env=environment, **pipes[rank]) for rank in range(2)
    ]
    pair.train(pair.plan(*folders, "stream-one", "stream", batch_size=4))
    pair.train(pair.plan(*folders, "shares-one", batch_size=4), pair.PeopleTask(poison=[3]))
    pair.train(replace(pair.plan(*folders, "started-one", batch_size=4), init_from=root / "pool-one"))
    assert processes[0].wait() == 0
    kill_after_steps(processes[1], 13)
    assert 5 <= load_checkpoint(root / "killed").step < pair.LONG_STEPS
    keep_until(root / "shares-two", root / "resumed-one", step=4)
    pair.train(pair.plan(*folders, "resumed-one", batch_size=4), pair.PeopleTask(poison=[3]), resume=True)
    long = replace(pair.plan(*folders, "whole", batch_size=4, kept=True), num_steps=pair.LONG_STEPS, log_every=5)
    pair.train(long)
    pair.train(replace(long, output_dir=root / "killed"), resume=True)
    torch.set_num_threads(before)
    return root


def kill_after_steps(process: subprocess.Popen[bytes], steps: int) -> None:
    """SIGKILL, wherever the process is when it has begun so many steps and this one has heard of it."""
    assert process.stdin is not None
    assert process.stdout is not None
    with process:
        process.stdin.write(b"go\n")
        process.stdin.flush()
        begun = 0
        for line in process.stdout:
            begun += line == b"step\n"
            if begun == steps:
                process.kill()
    assert begun >= steps


def keep_until(run: Path, copy: Path, step: int) -> None:
    """What was there of a run after ``step``."""
    name = f"checkpoint-{step:08d}"
    shutil.copytree(run / "checkpoints" / name, copy / "checkpoints" / name)


def losses(run: Path) -> list[list[float]]:
    lines = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    return [[line["total"], line["grad_norm"], line["bad_steps"]] for line in lines if line["group"] == "train"]


def last_losses(run: Path) -> dict[int, float]:
    """The last entry of a step counts."""
    lines = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    return {line["step"]: line["total"] for line in lines if line["group"] == "train"}


def close(run: Path, other: Path) -> None:
    """The same loss and gradient after each step, and in the end the same weights, averages and moments."""
    ours, theirs = torch.tensor(losses(run))[:, :2], torch.tensor(losses(other))[:, :2]
    common = min(len(ours), len(theirs))  # one of them may have been resumed
    torch.testing.assert_close(ours[-common:], theirs[-common:], rtol=2e-5, atol=1e-6, equal_nan=True)
    one, two = load_checkpoint(run), load_checkpoint(other)
    assert one.position == two.position
    for group in ("weights", "averages", "moments"):
        torch.testing.assert_close(getattr(one, group), getattr(two, group), rtol=1e-3, atol=2e-5)


def test_losses_and_weights_do_not_depend_on_the_number_of_processes(root):
    close(root / "pool-two", root / "pool-one")
    close(root / "stream-two", root / "stream-one")
    first, last = losses(root / "pool-one")[0][0], losses(root / "pool-one")[-1][0]
    assert last < 0.9 * first  # something was learned


def test_accumulated_parts_are_one_batch(root):
    close(root / "parts-two", root / "pool-one")


def test_gradients_exchanged_after_the_backward_pass_train_alike(root):
    close(root / "graphs-two", root / "shares-one")
    assert [bad for _, _, bad in losses(root / "graphs-two")] == [0, 0, 0, 1, 1, 1]


def test_gradients_are_averaged_whoever_has_them(root):
    expected = {"start": 0.0, "both": [2.5], "second": [2.5], "neither": None, "frozen": None}
    for rank in range(2):
        found = json.loads((root / f"exchanged-{rank}.json").read_text())
        assert expected.items() <= found.items()
        assert found["laid out alike"]
        assert not found["finite"]
        assert found["refused"] == "neither has a gradient, which it had in no process in the first step"


def test_shared_out_parameters_train_alike_and_bad_steps_are_left_out(root):
    close(root / "shares-two", root / "shares-one")
    assert [bad for _, _, bad in losses(root / "shares-two")] == [0, 0, 0, 1, 1, 1]


def test_runs_go_on_in_other_numbers_of_processes(root):
    close(root / "resumed-two", root / "pool-one")
    close(root / "resumed-one", root / "shares-two")
    close(root / "started-two", root / "started-one")


def test_a_killed_run_loses_only_the_steps_since_its_checkpoint(root):
    killed, whole = (last_losses(root / name) for name in ("killed", "whole"))
    assert killed == whole
    one, two = load_checkpoint(root / "killed"), load_checkpoint(root / "whole")
    assert all(torch.equal(tensor, two.weights[name]) for name, tensor in one.weights.items())


def test_what_is_not_done_is_refused(root):
    for rank in range(2):
        assert "no recording gathers parameters that FSDP shares out" in (root / f"graphs-{rank}.txt").read_text()
        assert "use gradient_checkpointing" in (root / f"refused-{rank}.txt").read_text()
        assert "(ssim) is not validated here; there are psnr" in (root / f"undecided-{rank}.txt").read_text()


def test_what_is_exported_is_whole(root):
    for folder in ("best", "final"):
        assert (root / "shares-two" / folder / "metrics.json").is_file()
    metrics = [
        json.loads((root / name / "final" / "metrics.json").read_text()) for name in ("shares-one", "shares-two")
    ]
    assert metrics[0]["metrics"]["psnr"] == pytest.approx(metrics[1]["metrics"]["psnr"], abs=1e-4)
