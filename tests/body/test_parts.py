import torch

from humansplat.body.parts import NUM_PARTS, PART_NAMES, makehuman_joint_part, parts_from_weights


def test_a_vertex_belongs_to_the_joints_that_pull_most_together():
    weights = torch.tensor([[0.4, 0.3, 0.3], [0.6, 0.2, 0.2]])
    assert parts_from_weights(weights, [5, 7, 7]).tolist() == [7, 5]


def test_every_joint_has_a_part_of_its_side(body):
    for joint in body.joint_names:
        part = PART_NAMES[makehuman_joint_part(joint)]
        if part.startswith(("left", "right")):
            assert part.startswith("left" if joint.endswith(".L") else "right"), joint
    assert PART_NAMES[makehuman_joint_part("oris04.L")] == "head"
    assert PART_NAMES[makehuman_joint_part("finger3-2.R")] == "rightHandIndex1"


def test_each_of_the_24_parts_owns_some_skin_on_its_own_side(body):
    assert len(PART_NAMES) == NUM_PARTS == 24
    assert torch.bincount(body.parts, minlength=NUM_PARTS).min() > 0
    for label, name in enumerate(PART_NAMES):
        x = body.canonical[body.parts == label, 0]
        if name.startswith("left"):
            assert x.min() > 0, name
        elif name.startswith("right"):
            assert x.max() < 0, name
        else:
            assert abs(x.mean()) < 0.005, name


def test_the_trunk_is_stacked_in_order(body):
    upwards = ("leftToeBase", "leftLeg", "leftUpLeg", "hips", "spine", "spine1", "spine2", "neck", "head")
    heights = [body.canonical[body.parts == PART_NAMES.index(name), 1].mean() for name in upwards]
    assert heights == sorted(heights)
