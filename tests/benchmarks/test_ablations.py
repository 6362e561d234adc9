"""The runner of the ablations, without training anything."""

import importlib
import json
import math
import sys
import time
from pathlib import Path
from types import ModuleType

import pytest

from humansplat.config import ReconstructionConfig, TrainConfig, load_config


@pytest.fixture(scope="module")
def ablations() -> ModuleType:
    sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))
    return importlib.import_module("ablations")


@pytest.fixture
def arguments(ablations, tmp_path):
    return ablations.parse([str(tmp_path / "a b"), str(tmp_path / "v"), "--out", str(tmp_path / "o"), "--gpus", "0"])


def test_each_row_is_a_run_that_differs_in_what_it_names(ablations, arguments, tmp_path):
    jobs = ablations.training_jobs(ablations.ROWS, arguments, 7)
    assert len({job.name for job in jobs}) == len(jobs) == sum(len(row.seeds) for row in ablations.ROWS)
    assert [job.name for job in jobs[:2]] == ["main-0", "nobody-0"]
    configs = {}
    for job in jobs:
        settings = [value for flag, value in zip(job.command, job.command[1:], strict=False) if flag == "--set"]
        configs[job.name] = load_config(TrainConfig, ablations.CONFIG, settings)
    main = configs["main-0"]
    assert main.data.train == tmp_path / "a b"
    assert main.data.capacity == 7
    assert main.reconstruction.model.window == 2
    assert configs["unlimited-0"].reconstruction.model.window == math.inf
    assert configs["nobody-2"].reconstruction.model.body == "none"
    weights = {name: config.reconstruction.hierarchical.weight for name, config in configs.items()}
    assert {name: weight for name, weight in weights.items() if weight > 0} == {"parts-0": 1.0, "parts_light-0": 0.2}
    assert isinstance(configs["pixels-0"].reconstruction, ReconstructionConfig)
    equal = ("num_steps", "batch_size", "data", "optim", "init_from", "mixed_precision")
    for config in configs.values():
        assert [getattr(config, name) for name in equal] == [getattr(main, name) for name in equal]
        assert config.reconstruction.wrong_bodies == main.reconstruction.wrong_bodies


def test_the_table_shows_what_is_there(ablations, tmp_path):
    def wrote(path: Path, values: dict) -> None:
        path.parent.mkdir(parents=True)
        path.write_text(json.dumps(values))

    for seed, psnr in enumerate((24.0, 25.0)):
        wrote(tmp_path / f"main-{seed}" / "final" / "metrics.json", {"step": 9, "metrics": {"psnr": psnr}})
    figures = {"psnr": 22.0, "psnr_head": 20.125, "ssim": 0.91234, "psnr_box_back": 18.0}
    wrote(tmp_path / "nobody-0" / "final" / "metrics.json", {"step": 9, "metrics": figures})
    sides = {"front": {}, "side": {}, "back": {"psnr_box": 19.0}}
    wrote(tmp_path / "bodies-fitted" / "metrics.json", {"mean": {"psnr": 23.5}, **sides})
    lines = ablations.table(ablations.collect(tmp_path, ablations.ROWS), ablations.ROWS).splitlines()
    rows = {line.split("|")[1].strip(" `"): [cell.strip() for cell in line.split("|")[3:-1]] for line in lines}
    assert rows["main"] == ["24.50 ± 0.71", "", "", "", "", "", "", "24.29", ""]
    assert rows["nobody"] == ["22.00", "", "18.00", "20.12", "0.9123", "", "-2.50", "22.64", "-1.66"]
    assert rows["bodies-fitted"] == ["23.50", "", "19.00", "", "", "", "-1.00", "24.29", "+0.00"]
    assert rows["unlimited"] == [""] * 9


def test_jobs_wait_for_others_and_failures_are_told(ablations, tmp_path, capsys):
    def job(name: str, code: str, after: Path | None = None):
        return ablations.Job(name=name, command=(sys.executable, "-c", code), done=tmp_path / name, after=after)

    def touch(name: str) -> str:
        return f"import pathlib; pathlib.Path({str(tmp_path / name)!r}).touch()"

    (tmp_path / "known").touch()
    jobs = [
        job("second", touch("second"), after=tmp_path / "first"),
        job("known", "raise SystemExit(1)"),
        job("first", touch("first")),
        job("bad", "raise SystemExit('no such thing')"),
        job("never", touch("never"), after=tmp_path / "bad"),
    ]
    queue = ablations.Queue(jobs, ["", ""], tmp_path, 1, time.monotonic() + 60)
    assert queue.run()
    assert queue.failed == {"bad": "no such thing"}
    assert [job.name for job in queue.waiting] == ["never"]
    assert (tmp_path / "second").is_file()
    queue = ablations.Queue([job("late", touch("late"))], [""], tmp_path, 1, 0.0)
    assert not queue.run()  # no time: stopped
    assert "late: stopped" in capsys.readouterr().out
