"""What synthesize and prepare share: processes that may die, manifests that are gone on with and merged."""

import json
import sys
from pathlib import Path

import pytest

from humansplat.data.production import (
    DIED,
    Production,
    claim,
    merge_manifests,
    produce,
    refuse_beside_shards,
    remove_leftovers,
)
from humansplat.errors import UserError

sys.path.insert(0, str(Path(__file__).parent))  # here too, because worker processes inherit the path
import toy_makers


def run(out: Path, items: list[str], workers: int = 0, **options: object) -> dict[str, str | None]:
    production = Production(load=toy_makers.load, arguments=(out,), workers=workers)
    return dict(produce(out, {item: item for item in items}, production, progress=False, **options))  # type: ignore[arg-type]


def names(out: Path, manifest: str = "manifest.jsonl") -> list[str]:
    return [json.loads(line)["name"] for line in (out / manifest).read_text().splitlines()]


@pytest.mark.skipif(sys.platform == "win32", reason="processes are killed otherwise there")
def test_a_process_that_dies_costs_one_person(tmp_path: Path):
    made = run(tmp_path, ["a", "kill", "b", "fail", "c"], workers=1)
    assert made == {"a": None, "kill": DIED, "b": None, "fail": "it had to", "c": None}
    assert names(tmp_path) == ["a", "b", "c"]


def test_several_processes_leave_people_in_order(tmp_path: Path):
    people = list("hgfedcba")
    assert list(run(tmp_path, people, workers=2)) == people
    assert names(tmp_path) == people


def test_the_manifest_is_in_order_whatever_failed_before(tmp_path: Path):
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "meta.json").write_text('{"split": "train", "seed": 1, "flags": ["b"]}\n')
    assert run(tmp_path, ["a", "b", "c"]) == {"a": None, "c": None}
    assert names(tmp_path) == ["a", "b", "c"]
    assert run(tmp_path, ["c"]) == {}
    assert names(tmp_path) == ["c", "a", "b"]  # others are kept
    (tmp_path / "manifest.jsonl").write_text("\0\0\n")
    with pytest.raises(UserError, match="delete it"):
        run(tmp_path, ["a", "b", "c"])
    (tmp_path / "manifest.jsonl").unlink()
    assert run(tmp_path, ["a", "b", "c"]) == {}
    assert names(tmp_path) == ["a", "b", "c"]


def test_merging_shards_takes_each_person_once_and_forgets_nobody(tmp_path: Path):
    run(tmp_path, ["b", "d"], manifest="manifest.1-of-2.jsonl")
    run(tmp_path, ["a"], manifest="manifest.2-of-2.jsonl")
    assert merge_manifests(tmp_path) == {"a": ("a",), "b": ("b",), "d": ("d",)}
    assert names(tmp_path) == ["a", "b", "d"]
    run(tmp_path, ["a", "c"], manifest="manifest.2-of-2.jsonl")
    with (tmp_path / "manifest.2-of-2.jsonl").open("a") as manifest:
        manifest.write('{"name": "e')  # being written
    merge_manifests(tmp_path)
    assert names(tmp_path) == ["a", "b", "c", "d"]


def test_a_shard_leaves_the_leftovers_of_others(tmp_path: Path):
    for name in ("a", "b"):
        (tmp_path / f".0123abcd.{name}").mkdir()
    (tmp_path / ".keep").mkdir()
    remove_leftovers(tmp_path, ["a"])
    assert sorted(path.name for path in tmp_path.iterdir()) == [".0123abcd.b", ".keep"]
    remove_leftovers(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [".keep"]


def test_a_whole_run_stays_out_of_what_shards_make(tmp_path: Path):
    refuse_beside_shards(tmp_path)
    (tmp_path / "manifest.1-of-2.jsonl").touch()
    with pytest.raises(UserError, match=r"manifest\.1-of-2\.jsonl.*--shard"):
        refuse_beside_shards(tmp_path)


def test_a_folder_belongs_to_one_data_set(tmp_path: Path):
    out = tmp_path / "out"
    claim(out, {"size": 1})
    claim(out, {"size": 1})
    with pytest.raises(UserError, match="size 1, now 2"):
        claim(out, {"size": 2})
    with pytest.raises(UserError, match="not empty"):
        claim(tmp_path, {"size": 1})
    with pytest.raises(UserError, match="is a file"):
        claim(out / "dataset.json", {"size": 1})
