import pytest
import torch

from humansplat import draws
from humansplat.draws import BatchGenerator


@pytest.mark.parametrize("each", [1, 3])
def test_parts_of_a_batch_are_rows_of_the_whole(each):
    """In two processes with two accumulated pieces of two people, as in one with eight."""

    def drawn(part: int, num_parts: int, size: int) -> tuple[torch.Tensor, ...]:
        generator = BatchGenerator("cpu")
        generator.begin(5, 17, part=part, num_parts=num_parts, size=size)
        count = size * each
        first = draws.uniform(generator, count)
        common = torch.rand(2, generator=generator)
        return first, draws.normal(generator, count, 4, 2), draws.integers(generator, 9, count), common[None]

    whole = drawn(0, 1, 8)
    parts = list(zip(*(drawn(part, 4, 2) for part in range(4)), strict=True))
    for one, others in zip(whole[:3], parts[:3], strict=True):
        assert torch.equal(one, torch.cat(others))
        assert len(one.unique()) > 4
    assert all(torch.equal(whole[3], other) for other in parts[3])  # what belongs to nobody is the same for all


def test_other_generators_draw_as_ever(rng):
    state = rng.get_state()
    one = draws.normal(rng, 3, 2)
    rng.set_state(state)
    assert torch.equal(one, torch.randn(3, 2, generator=rng))


def test_steps_and_seeds_have_nothing_in_common():
    seeds = {draws.mixed_seed(seed, step) for seed in range(20) for step in range(20)}
    assert len(seeds) == 400
    generator = BatchGenerator("cpu")
    first = []
    for step in range(50):
        generator.begin(0, step, part=0, num_parts=1, size=1)
        first.append(draws.uniform(generator, 1))
    assert 0.3 < torch.cat(first).mean() < 0.7


def test_rows_that_are_nobodys_are_a_mistake():
    generator = BatchGenerator("cpu")
    generator.begin(0, part=0, num_parts=2, size=4)
    with pytest.raises(AssertionError, match="6 rows do not belong to 4 people alike"):
        draws.uniform(generator, 6)
