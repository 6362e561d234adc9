import json
import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from humansplat.config import ViewShares
from humansplat.data.dataset import PeoplePool
from humansplat.data.format import read_cameras
from humansplat.data.samples import EndlessBatches, PeopleDataset, SampleOptions, collate
from humansplat.data.view_choice import person_views
from humansplat.errors import UserError
from humansplat.geometry.projection import project

OPTIONS = SampleOptions(num_targets=3)
RING = 8


@pytest.fixture(scope="module")
def made(tmp_path_factory, make_toy_person):
    """Five people in ``a`` and two with rings in ``scans``; not to be changed."""
    folder = tmp_path_factory.mktemp("people")
    for seed in range(5):
        make_toy_person(folder / "a", f"p{seed}", seed)
    for seed in range(2):
        make_toy_person(folder / "scans", f"s{seed}", 10 + seed, num_novel=0, ring=RING)
    return folder


@pytest.fixture
def root(made, tmp_path):
    return Path(shutil.copytree(made / "a", tmp_path / "a"))


@pytest.fixture
def scans(made):
    return made / "scans"


def same(one, other):
    return torch.equal(one.views, other.views) and torch.equal(one.targets, other.targets)


def test_sample_holds_the_files_of_its_views(root, template):
    people = PeopleDataset([root], template, OPTIONS, seed=3)
    sample = people.sample(2, epoch=0)
    folder = root / "p2"
    cameras, _ = read_cameras(folder / "cameras.json")
    assert sample.views[:4].tolist() == [0, 1, 2, 3]
    views = sample.views[4:].tolist()
    assert len(set(views)) == 3
    for picture, view in ((sample.images[0], 0), *zip(sample.targets, views, strict=True)):
        stored = np.asarray(Image.open(folder / "images" / f"{view:03d}.png"))
        np.testing.assert_array_equal(picture.numpy(), stored)
    torch.testing.assert_close(sample.target_cameras.viewmats, cameras.viewmats[views])
    torch.testing.assert_close(sample.cameras.Ks, cameras.Ks[:4])
    with np.load(folder / "body.npz") as body:
        np.testing.assert_array_equal(sample.body["vertices"].numpy(), body["vertices"])


def test_batch_is_the_pools(root, template):
    people = PeopleDataset([root], template, SampleOptions(num_targets=3, num_inputs=4, image_size=16), seed=3)
    samples = [people.sample(person, epoch=0) for person in (3, 1)]
    batch = collate(samples).batch(template)
    pool = PeoplePool(root, template, capacity=5, image_size=16)
    pool.load()
    expected = pool.batch(torch.tensor([3, 1]), torch.stack([sample.views[4:] for sample in samples]), num_inputs=4)
    for one, other in (
        (batch.images, expected.images),
        (batch.targets, expected.targets),
        (batch.cameras.Ks, expected.cameras.Ks),
        (batch.target_cameras.viewmats, expected.target_cameras.viewmats),
        (batch.body.vertices, expected.body.vertices),
        (batch.body.parameters["rotations"], expected.body.parameters["rotations"]),
        (batch.people, expected.people),
    ):
        assert torch.equal(one, other)
    assert batch.body.model == "toy"
    assert batch.targets.is_contiguous()


def test_sample_depends_on_seed_epoch_and_index_only(root, template):
    one, other = (PeopleDataset([root], template, OPTIONS, seed=3) for _ in range(2))
    _ = [one[index] for index in (12, 3, 7)]
    assert same(one[11], other[11])
    views = [tuple(one.sample(0, epoch).views.tolist()) for epoch in range(6)]
    assert len(set(views)) > 3
    assert views != [
        tuple(PeopleDataset([root], template, OPTIONS, seed=4).sample(0, e).views.tolist()) for e in range(6)
    ]


def test_every_epoch_has_everybody_once_in_its_own_order(root, template):
    people = PeopleDataset([root], template, OPTIONS, seed=3)
    orders = [people.order(epoch) for epoch in range(4)]
    assert all(sorted(order) == list(range(5)) for order in orders)
    assert len(set(map(tuple, orders))) > 1
    assert [people[5 + place].people.item() for place in range(5)] == orders[1]


def test_weights_decide_how_often_each_folder_comes(root, scans, template):
    people = PeopleDataset([root, scans], template, SampleOptions(num_targets=1), seed=0, weights=(1, 3))
    counts = Counter(person for epoch in range(4) for person in people.order(epoch))
    assert sum(counts.values()) == 4 * 7
    of_scans = sum(number for person, number in counts.items() if person >= 5)
    assert of_scans / 28 == pytest.approx(0.75, abs=0.05)
    assert set(counts) == set(range(7))
    again = [index for index, person in enumerate(people.order(0)) if person == people.order(0)[0] and person >= 5]
    samples = [people[index] for index in again]
    assert all(sample.people == samples[0].people for sample in samples)


def test_processes_share_each_step_and_a_run_goes_on_anywhere():
    batches = iter(EndlessBatches(4))
    whole = [next(batches) for _ in range(6)]
    halves = [iter(EndlessBatches(2, rank=rank, world_size=2)) for rank in range(2)]
    for step in range(6):
        assert sum((next(half) for half in halves), []) == whole[step]
    later = iter(EndlessBatches(4, position=12))
    assert [next(later) for _ in range(3)] == whole[3:]


def test_views_are_matched_by_their_shares(scans):
    path = scans / "s0" / "cameras.json"
    cameras, roles = read_cameras(path)
    views = person_views(cameras, roles, str(path))
    counts, inputs = Counter(), Counter()
    rng = np.random.default_rng(0)
    for _ in range(400):
        choice = views.choose(rng, num_targets=2, shares=ViewShares(rig=0, whole=1, half=2, face=1), ring_inputs=0.5)
        counts.update(roles[view] for view in choice.targets)
        inputs[roles[choice.rig[0]]] += 1
        assert len(set(choice.targets)) == 2
    assert set(counts) == {"whole", "half", "face"}
    assert counts["half"] / counts.total() == pytest.approx(0.5, abs=0.06)
    assert inputs["whole"] / inputs.total() == pytest.approx(0.5, abs=0.08)


def test_photograph_of_a_ring_has_its_three_orthogonal_views(scans, template):
    people = PeopleDataset([scans], template, SampleOptions(num_targets=1, num_inputs=4, ring_inputs=1.0), seed=0)
    seen = set()
    for epoch in range(20):
        sample = people.sample(1, epoch)
        seen.add(int(sample.views[0]))
        centers = sample.cameras.centers
        offsets = torch.stack([centers[:, 2], centers[:, 0]], dim=-1)
        azimuths = torch.atan2(offsets[:, 1], offsets[:, 0])
        turns = torch.remainder(azimuths - azimuths[0], 2 * torch.pi)
        torch.testing.assert_close(turns[1:], torch.tensor([0.5, 1.0, 1.5]) * torch.pi, atol=1e-4, rtol=0)
        # The world stays the body's: every view sees the same body where its picture shows it.
        for picture, view in zip(sample.images, range(4), strict=True):
            xy, _ = project(sample.body["vertices"], sample.cameras.viewmats[view], sample.cameras.Ks[view])
            column, row = xy.floor().long().clamp(0, 31).unbind(-1)
            assert (picture[row, column, 3] == 255).all()
    assert len(seen) > 4
    assert seen <= set(range(4, 4 + RING))


def test_uneven_ring_gives_no_photographs(tmp_path, write_person, template):
    write_person(tmp_path, "odd", 0, num_novel=0, ring=6)
    people = PeopleDataset([tmp_path], template, SampleOptions(num_targets=1, ring_inputs=1.0), seed=0)
    assert {int(people.sample(0, epoch).views[0]) for epoch in range(8)} == {0}


def test_photograph_is_matched_as_often_as_its_weight_says(root, template):
    people = PeopleDataset([root], template, SampleOptions(num_targets=2, photo_weight=1.0), seed=0)
    for epoch in range(5):
        assert people.sample(0, epoch).views[4:].tolist().count(0) == 1


def test_flagged_people_are_left_out_unless_asked_for(root, write_person, template, caplog):
    write_person(root, "wrong", 9, flags=("the body is turned by 180 degrees",))
    people = PeopleDataset([root], template, OPTIONS)
    assert "wrong" not in [person.name for person in people.people]
    assert "1 flagged people are left out (wrong)" in caplog.text
    assert len(PeopleDataset([root], template, OPTIONS, flagged=True)) == 6
    pool = PeoplePool(root, template, capacity=8)
    pool.load()
    assert "wrong" not in pool.names


def test_only_flagged_people_are_nobody(tmp_path, write_person, template):
    write_person(tmp_path, "wrong", 9, flags=("it is mirrored",))
    with pytest.raises(UserError, match="all 1 are flagged"):
        PeopleDataset([tmp_path], template, OPTIONS)


@pytest.mark.parametrize(
    ("file", "content", "complaint"),
    [
        ("images/000.png", None, "000.png cannot be read"),
        ("images/000.png", b"no picture", "000.png cannot be read as a picture"),
        ("body.npz", None, "body.npz cannot be read"),
        ("body.npz", b"PK no body", "body.npz: not a body file"),
        ("cameras.json", b"{}", "cameras.json: not cameras"),
        ("cameras.json", b"[", "cameras.json: not JSON"),
    ],
)
def test_broken_files_are_named(root, template, file, content, complaint):
    path = root / "p1" / Path(file)
    path.unlink() if content is None else path.write_bytes(content)
    people = PeopleDataset([root], template, OPTIONS)
    with pytest.raises(UserError, match=f"p1.*{complaint}"):
        people.sample(1, epoch=0)


def test_picture_of_another_size_is_named(root, template):
    Image.new("RGBA", (8, 8)).save(root / "p1" / "images" / "000.png")
    with pytest.raises(UserError, match=r"000.png has \(8, 8\) pixels"):
        PeopleDataset([root], template, OPTIONS).sample(1, epoch=0)


def test_changed_file_is_found_by_its_checksum(root, template):
    path = root / "p1" / "images" / "000.png"
    path.write_bytes((root / "p2" / "images" / "000.png").read_bytes())
    PeopleDataset([root], template, OPTIONS).sample(1, epoch=0)
    verified = PeopleDataset([root], template, OPTIONS, verify=True)
    verified.sample(0, epoch=0)
    with pytest.raises(UserError, match="000.png is not what the manifest says"):
        verified.sample(1, epoch=0)


def test_manifest_without_checksums_verifies_nothing(root, template):
    path = root / "manifest.jsonl"
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    path.write_text("".join(json.dumps({"name": line["name"]}) + "\n" for line in lines))
    with pytest.raises(UserError, match="p1 has no checksums"):
        PeopleDataset([root], template, OPTIONS, verify=True).sample(1, epoch=0)
    people = PeopleDataset([root], template, OPTIONS, verify=True)
    path.unlink()
    with pytest.raises(UserError, match="manifest.jsonl cannot be read"):
        people.sample(1, epoch=0)


def test_unusable_folders_are_refused(root, template, tmp_path):
    with pytest.raises(UserError, match="holds no manifest"):
        PeopleDataset([tmp_path / "nowhere"], template, OPTIONS)
    (root / "manifest.jsonl").write_text("")
    with pytest.raises(UserError, match="its manifest is empty"):
        PeopleDataset([root], template, OPTIONS)
    (root / "manifest.jsonl").write_text('{"nobody": 1}\n')
    with pytest.raises(UserError, match="not a manifest"):
        PeopleDataset([root], template, OPTIONS)


def test_too_few_views_are_refused(root, template):
    with pytest.raises(UserError, match="7 views of a share above 0, 8 are to be matched"):
        PeopleDataset([root], template, SampleOptions(num_targets=8)).sample(0, epoch=0)


def test_unknown_roles_are_refused(root, template):
    path = root / "p0" / "cameras.json"
    fields = json.loads(path.read_text())
    path.write_text(json.dumps(fields | {"roles": [*fields["roles"][:-1], "sideways"]}))
    with pytest.raises(UserError, match=r"unknown roles \['sideways'\]"):
        PeopleDataset([root], template, OPTIONS).sample(0, epoch=0)
    path.write_text(json.dumps(fields | {"roles": fields["roles"][::-1]}))
    with pytest.raises(UserError, match="instead of one input"):
        PeopleDataset([root], template, OPTIONS).sample(0, epoch=0)


def test_people_of_different_kinds_make_no_batch(root, tmp_path, write_person, template):
    write_person(tmp_path / "large", "big", 0, size=48)
    people = PeopleDataset([root, tmp_path / "large"], template, OPTIONS)
    with pytest.raises(UserError, match="pictures of the shapes"):
        collate([people.sample(0, 0), people.sample(5, 0)])
