import pytest
import torch

from humansplat.body.phenotypes import ANCHORS, PHENOTYPE_NAMES, hat_weights, phenotype_factors, shape_coefficients


def test_weights_interpolate_linearly_between_anchors():
    value = torch.linspace(-1 / 3, 1, 41)
    weights = hat_weights(value, -1 / 3, 1.0, 5)
    torch.testing.assert_close(weights @ torch.linspace(-1 / 3, 1, 5), value)
    torch.testing.assert_close(weights.sum(-1), torch.ones(41))
    assert (weights > 1e-6).sum(-1).max() == 2


def test_weights_stay_beyond_the_ends():
    torch.testing.assert_close(hat_weights(torch.tensor([-2.0, 2.0]), 0.0, 1.0, 3), torch.eye(3)[[0, 2]])


@pytest.mark.parametrize("value", [0.0, 0.25, 0.5, 0.8, 1.0])
def test_no_value_in_the_range_stops_the_gradient(value):
    gradient = torch.func.jacrev(lambda x: hat_weights(x, 0.0, 1.0, 3))(torch.tensor(value))
    assert gradient.abs().max() == pytest.approx(2.0)


def test_races_are_shares():
    phenotypes = torch.full((3, len(PHENOTYPE_NAMES)), 0.5)
    phenotypes[0, -3:] = torch.tensor([0.2, 0.2, 0.4])
    phenotypes[1, -3:] = 0.0
    shares = phenotype_factors(phenotypes)[:, :3]
    torch.testing.assert_close(shares[0], torch.tensor([0.25, 0.25, 0.5]))
    torch.testing.assert_close(shares[1:], torch.full((2, 3), 1 / 3))


def test_no_race_at_all_gives_a_finite_gradient():
    phenotypes = torch.zeros(len(PHENOTYPE_NAMES), requires_grad=True)
    phenotype_factors(phenotypes).square().sum().backward()
    assert phenotypes.grad.isfinite().all()


def test_each_modelled_shape_is_the_product_of_its_factors(rng):
    phenotypes = torch.rand(4, len(PHENOTYPE_NAMES), generator=rng)
    factors = phenotype_factors(phenotypes)
    num = factors.shape[-1]
    assert num == 3 + sum(anchor[2] for anchor in ANCHORS.values()) + 1
    products = torch.tensor([[0, 3, num - 1], [5, num - 1, num - 1]])
    expected = torch.stack([factors[:, 0] * factors[:, 3], factors[:, 5]], dim=-1)
    torch.testing.assert_close(shape_coefficients(phenotypes, products, torch.eye(2)), expected)
