import importlib.util
import json
import shutil
import sys
import tarfile
from io import BytesIO
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch

from humansplat.data.samples import PeopleDataset, SampleOptions
from humansplat.data.shard_writing import make_shards
from humansplat.data.shards import ShardDataset
from humansplat.data.tar_stream import TarStream, member_name, person_and_file, read_index
from humansplat.errors import UserError

ROOT = Path(__file__).parents[2]
OPTIONS = SampleOptions(num_targets=2)


@pytest.fixture(scope="module")
def made(tmp_path_factory, make_toy_person):
    """Six people and their shards; not to be changed."""
    folder = tmp_path_factory.mktemp("people")
    for seed in range(6):
        make_toy_person(folder / "data", f"p.{seed}", seed)
    make_shards(folder / "data", folder / "shards", shard_mib=0.05)
    return folder


@pytest.fixture
def root(made, tmp_path):
    return Path(shutil.copytree(made / "data", tmp_path / "data"))


@pytest.fixture
def shards(made, tmp_path):
    return Path(shutil.copytree(made / "shards", tmp_path / "shards"))


@pytest.fixture
def open_shards(shards, template):
    def open_shards(**options) -> ShardDataset:
        return ShardDataset([str(shards)], template, OPTIONS, **({"seed": 3, "buffer": 3} | options))

    return open_shards


def drawn(dataset, number):
    return list(islice(iter(dataset), number))


def test_every_epoch_has_the_samples_of_the_folders(root, open_shards, template):
    people = PeopleDataset([root], template, OPTIONS, seed=3)
    names = [
        name for shard in read_index(str(open_shards().sets[0][0].url).rpartition("/")[0]) for name in shard.people
    ]
    places = {person.name: place for place, person in enumerate(people.people)}
    samples = drawn(open_shards(), 12)
    for epoch in range(2):
        of_epoch = samples[6 * epoch : 6 * epoch + 6]
        assert sorted(int(sample.people) for sample in of_epoch) == list(range(6))
        for sample in of_epoch:
            expected = people.sample(places[names[int(sample.people)]], epoch)
            for field in ("views", "images", "targets"):
                assert torch.equal(getattr(sample, field), getattr(expected, field))
            assert torch.equal(sample.target_cameras.Ks, expected.target_cameras.Ks)
            assert all(torch.equal(sample.body[name], expected.body[name]) for name in expected.body)
    orders = [[int(sample.people) for sample in samples[6 * epoch :][:6]] for epoch in range(2)]
    assert orders[0] != orders[1]


def test_shards_are_of_the_size_asked_for_and_hold_everybody(root, shards):
    index = json.loads((shards / "shards.json").read_text())
    assert index["people"] == 6
    assert len(index["shards"]) > 1
    assert all(shard["bytes"] <= 0.05 * 2**20 + 10_240 for shard in index["shards"])
    assert sorted(name for shard in index["shards"] for name in shard["people"]) == [f"p.{seed}" for seed in range(6)]


def test_the_same_data_make_the_same_bytes(root, shards, tmp_path):
    again = make_shards(root, tmp_path / "again", shard_mib=0.05)
    for path in (*again, tmp_path / "again" / "shards.json"):
        assert path.read_bytes() == (shards / path.name).read_bytes()


def test_broken_off_packing_goes_on(root, shards, tmp_path):
    before = {path.name: path.read_bytes() for path in shards.iterdir()}
    (shards / "shards.json").unlink()
    (shards / "shard-000001.tar").unlink()
    kept = (shards / "shard-000000.tar").stat().st_mtime_ns
    told = []
    make_shards(root, shards, shard_mib=0.05, progress=lambda done, known: told.append((done, known)))
    assert {path.name: path.read_bytes() for path in shards.iterdir()} == before
    assert (shards / "shard-000000.tar").stat().st_mtime_ns == kept
    assert told[-1] == (6, 6)
    assert told == sorted(told)


def test_folder_of_other_shards_is_refused(root, shards, tmp_path, write_person):
    with pytest.raises(UserError, match="another size: give an empty folder"):
        make_shards(root, shards, shard_mib=9.0)
    (tmp_path / "foreign").mkdir()
    (tmp_path / "foreign" / "shard-000000.tar").write_bytes(b"")
    with pytest.raises(UserError, match="not made here"):
        make_shards(root, tmp_path / "foreign")


def test_changed_and_flagged_people_are_not_packed(root, tmp_path, write_person):
    write_person(root, "wrong", 9, flags=("it is mirrored",))
    paths = make_shards(root, tmp_path / "out")
    assert len(paths) == 1
    assert "wrong" not in read_index(str(tmp_path / "out"))[0].people
    (root / "p.2" / "body.npz").write_bytes(b"")
    with pytest.raises(UserError, match=r"p.2.*body.npz is not what the manifest says"):
        make_shards(root, tmp_path / "other")
    assert not list((tmp_path / "other").glob("*.tar"))


def test_what_cannot_be_packed_is_told(root, tmp_path):
    with pytest.raises(UserError, match=r"shard_mib \(0\) must be positive"):
        make_shards(root, tmp_path / "out", shard_mib=0)
    path = root / "manifest.jsonl"
    path.write_text(path.read_text().replace('"bytes"', '"size"'))
    with pytest.raises(UserError, match="lacks sizes or checksums"):
        make_shards(root, tmp_path / "out")


def test_webdataset_reads_the_same_files(root, shards):
    wds = pytest.importorskip("webdataset", reason="webdataset is not installed")
    urls = [str(path) for path in sorted(shards.glob("*.tar"))]
    samples = {sample["__key__"]: sample for sample in wds.WebDataset(urls, shardshuffle=False)}
    assert sorted(samples) == [f"p%2E{seed}" for seed in range(6)]
    for key, sample in samples.items():
        name, _ = person_and_file(f"{key}.")
        assert sample["images.003.png"] == (root / name / "images" / "003.png").read_bytes()
        assert sample["body.npz"] == (root / name / "body.npz").read_bytes()
        assert not [file for file in sample if file.startswith("parts")]


def test_names_come_back():
    for person, file in (("a", "body.npz"), ("a.b/c%d", "images/000.png"), ("ü 1", "cameras.json")):
        member = member_name(person, file)
        assert person_and_file(member) == (person, file)
        assert member.partition(".")[2] == file.replace("/", ".")


def test_processes_share_the_people_without_overlap(open_shards):
    for world_size in (2, 5):  # fewer and more than there are shards
        counts = np.zeros(6, int)
        rows = [open_shards(rank=rank, world_size=world_size) for rank in range(world_size)]
        sizes = [sum(len(names) for _, names in row._parts(0, 0, rank, world_size)) for rank, row in enumerate(rows)]
        assert sum(sizes) == 6
        for row, size in zip(rows, sizes, strict=True):
            for sample in drawn(row, size):
                counts[int(sample.people)] += 1
        assert (counts == 1).all()
    with pytest.raises(UserError, match="fewer people than 7 processes"):
        drawn(open_shards(rank=6, world_size=7), 1)


def test_broken_off_row_goes_on(open_shards):
    whole = drawn(open_shards(batch_size=2), 20)
    for position in (2, 8, 16):
        rest = drawn(open_shards(batch_size=2, position=position), 4)
        for one, other in zip(rest, whole[position:], strict=False):
            assert torch.equal(one.people, other.people)
            assert torch.equal(one.views, other.views)


def test_sets_are_mixed_by_weight(shards, template, tmp_path, write_person):
    for seed in range(3):
        write_person(tmp_path / "more", f"q{seed}", seed)
    make_shards(tmp_path / "more", tmp_path / "more_shards")
    roots = [str(shards), str(tmp_path / "more_shards")]

    def mixed(position: int = 0) -> ShardDataset:
        return ShardDataset(roots, template, OPTIONS, seed=1, weights=(1, 2), buffer=2, position=position)

    people = [int(sample.people) for sample in drawn(mixed(), 48)]
    assert np.mean(np.array(people) >= 6) == pytest.approx(2 / 3, abs=0.15)
    assert set(people) == set(range(9))
    assert [int(sample.people) for sample in drawn(mixed(44), 4)] == people[44:]


def test_shards_come_through_any_file_system_that_fsspec_knows(shards, open_shards, template):
    fsspec = pytest.importorskip("fsspec")
    memory = fsspec.filesystem("memory")
    for path in shards.iterdir():
        memory.pipe(f"/people/{path.name}", path.read_bytes())
    remote = ShardDataset(["memory://people"], template, OPTIONS, seed=3, buffer=3, verify=True)
    for one, other in zip(drawn(remote, 6), drawn(open_shards(), 6), strict=True):
        assert torch.equal(one.targets, other.targets)
    with pytest.raises(UserError, match="memory://nobody/shards.json cannot be read"):
        ShardDataset(["memory://nobody"], template, OPTIONS)
    with pytest.raises(UserError, match="nonsense://x/shards.json"):
        ShardDataset(["nonsense://x"], template, OPTIONS)


def test_pipe_is_read_without_going_back(shards):
    class Pipe(BytesIO):
        def seekable(self) -> bool:
            return False

        def seek(self, *_: object) -> int:
            raise AssertionError("a pipe cannot seek")

    path = sorted(shards.glob("*.tar"))[0]
    stream = TarStream(Pipe(path.read_bytes()), "pipe")
    found = {member.name: stream.read() for member in stream if member.name.endswith(".npz")}
    with tarfile.open(path) as tar:
        names = [name for name in tar.getnames() if name.endswith(".npz")]
        assert found == {name: tar.extractfile(name).read() for name in names}


@pytest.mark.parametrize("damage", ["cut", "noise", "gone", "changed", "no index", "link", "size"])
def test_broken_shards_are_named(shards, open_shards, damage):
    path = sorted(shards.glob("*.tar"))[0]
    content = path.read_bytes()
    complaint = {
        "cut": "ends too early",
        "noise": "not a tar file",
        "gone": "cannot be read",
        "changed": "not what shards.json says",
        "no index": "not an index",
        "link": "a tar entry of the kind",
        "size": "a tar entry of unreadable size",
    }[damage]
    if damage == "cut":
        path.write_bytes(content[: len(content) // 2])
    if damage == "noise":
        path.write_bytes(b"?" * len(content))
    if damage == "gone":
        path.unlink()
    if damage == "changed":
        path.write_bytes(content[:-1] + b"?")
    if damage == "no index":
        (shards / "shards.json").write_text("{}")
    if damage == "link":
        with tarfile.open(path, "w") as tar:
            info = tarfile.TarInfo("p%2E0.cameras.json")
            info.type = tarfile.SYMTYPE
            tar.addfile(info)
    if damage == "size":
        info = tarfile.TarInfo("p%2E0.cameras.json")
        info.size = 2**34
        path.write_bytes(info.tobuf(tarfile.GNU_FORMAT))
    with pytest.raises(UserError, match=complaint):
        drawn(open_shards(verify=damage == "changed"), 6)


def test_shard_without_somebodys_picture_is_named(shards, open_shards):
    path = sorted(shards.glob("*.tar"))[0]
    with tarfile.open(path) as tar:
        members = [(member, tar.extractfile(member).read()) for member in tar.getmembers()]
    with tarfile.open(path, "w", format=tarfile.USTAR_FORMAT) as tar:
        for member, content in members:
            if not member.name.endswith("000.png"):
                tar.addfile(member, BytesIO(content))
    with pytest.raises(UserError, match="lacks files of p"):
        drawn(open_shards(), 12)


def test_tool_packs_and_tells_mistakes_in_one_sentence(root, tmp_path, monkeypatch, capsys):
    spec = importlib.util.spec_from_file_location("make_shards", ROOT / "tools" / "make_shards.py")
    tool = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tool)
    for data, code in ((root, 0), (tmp_path / "nobody", 2)):
        monkeypatch.setattr(sys, "argv", ["x", str(data), "--out", str(tmp_path / "out"), "--with", "parts"])
        assert tool.main() == code
    with tarfile.open(tmp_path / "out" / "shard-000000.tar") as tar:
        assert "p%2E0.parts.006.png" in tar.getnames()
    told = capsys.readouterr()
    assert "1 shards in" in told.out
    assert "holds no manifest" in told.err
