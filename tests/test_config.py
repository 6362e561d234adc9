from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import pytest

from humansplat.config import TrainConfig, as_plain, load_config, save_config
from humansplat.errors import UserError

CONFIGS = Path(__file__).parents[1] / "configs"


@dataclass(frozen=True, kw_only=True)
class Inner:
    rate: float = 1.0
    sizes: tuple[int, ...] = (1, 2)


@dataclass(frozen=True, kw_only=True)
class Outer:
    name: Literal["a", "b"]
    count: int = 3
    flag: bool = False
    where: Path | None = None
    inner: Inner = field(default_factory=Inner)


def write(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "run.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def test_file_holds_only_differences(tmp_path):
    config = load_config(Outer, write(tmp_path, "name: b\nwhere: some/folder\ninner: {rate: 2, sizes: [4]}\n"))
    assert config == Outer(name="b", where=Path("some/folder"), inner=Inner(rate=2.0, sizes=(4,)))
    assert isinstance(config.inner.rate, float)


def test_saved_configuration_is_read_back(tmp_path):
    config = Outer(name="a", where=Path("x"), inner=Inner(rate=1e-4))
    save_config(config, tmp_path / "saved.yaml")
    assert load_config(Outer, tmp_path / "saved.yaml") == config
    assert as_plain(config)["inner"] == {"rate": 1e-4, "sizes": [1, 2]}


def test_compile_is_a_word_or_as_before_yes_or_no(tmp_path):
    path = write(tmp_path, "task: reconstruction\ncompile: true\n")
    compiled = [load_config(TrainConfig, path, [f"compile={word}"]).compile for word in ("blocks", "false", "no")]
    assert [load_config(TrainConfig, path).compile, *compiled] == ["whole", "blocks", "no", "no"]
    assert load_config(TrainConfig, path, ["mixed_precision=no"]).mixed_precision == "no"


def test_overrides_come_after_the_file(tmp_path):
    path = write(tmp_path, "name: b\ncount: 5\n")
    config = load_config(Outer, path, ["count=7", "inner.rate=1.0e-3", "where=null", "inner.sizes=[9, 8]"])
    assert (config.count, config.inner.rate, config.where, config.inner.sizes) == (7, 1e-3, None, (9, 8))


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("count: 3", r"Outer needs a value for \['name'\]"),
        ("name: c", r"name = 'c' is not one of \['a', 'b'\]"),
        ("name: a\nnumber: 3", r"Outer has no \['number'\]; it has .*'count'"),
        ("name: a\ninner: {speed: 3}", r"Inner has no \['speed'\]"),
        ("name: a\ncount: 3.0", "count = 3.0 is not int"),
        ("name: a\ncount: true", "count = True is not int"),
        ("name: a\nflag: 1", "flag = 1 is not bool"),
        ("name: a\ninner: {rate: 1e-4}", r"inner.rate = '1e-4' is not float; .* write 1.0e-4"),
        ("name: a\ninner: {sizes: [1, x]}", r"inner.sizes\[1\] = 'x' is not int"),
        ("name: a\ninner: {sizes: 3}", "inner.sizes = 3 is not a list"),
        ("name: a\ninner: 3", "inner must be a mapping"),
        ("- a\n- b", "must be a mapping"),
        ("name: [a", "is not YAML"),
    ],
)
def test_bad_files_are_refused_with_the_reason(tmp_path, text, complaint):
    with pytest.raises(UserError, match=complaint):
        load_config(Outer, write(tmp_path, text))


@pytest.mark.parametrize(
    ("override", "complaint"),
    [
        ("count", "name=value"),
        ("count.more=1", "single value"),
        ("inner.rat=1.0", r"no \['rat'\]"),
        ("count=[", "YAML"),
    ],
)
def test_bad_overrides_are_refused(tmp_path, override, complaint):
    with pytest.raises(UserError, match=complaint):
        load_config(Outer, write(tmp_path, "name: a\ncount: 1\n"), [override])


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("num_steps: 100", "warmup_steps"),  # each value fine, together nonsense
        ("batch_size: 0", "batch_size"),
        ("max_minutes: -1", "max_minutes"),
        ("optim: {betas: [0.9]}", "betas"),
        ("optim: {ema_decay: 1.0}", "ema_decay"),
        ("optim: {lr: 0}", "optim.lr"),
        ("checkpoint: {keep: 0}", "checkpoint.keep"),
        ("data: {capacity: 10, min_people: 20}", "min_people"),
        ("data: {num_workers: 0}", "num_workers"),
        ("data: {augment: {mirror: 2}}", "mirror"),
        ("data: {augment: {gain: 1}}", "gain"),
        ("reconstruction: {photo_weight: 1.5}", "reconstruction.photo_weight"),
        ("reconstruction: {noise: {root_lean: -1}}", "noise.root_lean"),
    ],
)
def test_nonsense_is_refused_before_anything_is_loaded(tmp_path, text, complaint):
    with pytest.raises(UserError, match=complaint):
        load_config(TrainConfig, write(tmp_path, f"task: autoencoder\n{text}\n"))


@pytest.mark.parametrize(("size", "complaint"), [(250, "multiple of 16"), (384, "power of two"), ("null", "is null")])
def test_pictures_that_no_reconstructor_takes_are_refused(tmp_path, size, complaint):
    text = f"task: reconstruction\ndata: {{image_size: {size}}}\nreconstruction: {{model: {{patch: 2}}}}\n"
    with pytest.raises(UserError, match=complaint):
        load_config(TrainConfig, write(tmp_path, text))


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("*.yaml")), ids=lambda path: path.stem)
def test_shipped_configurations_load(path):
    config = load_config(TrainConfig, path)
    assert path.stem.startswith(config.task)
