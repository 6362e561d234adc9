import pytest
import torch

from humansplat.models.edm import (
    add_noise,
    denoise_with,
    karras_sigmas,
    lognormal_sigmas,
    loss_weight,
    preconditioning,
    start_scale,
)
from humansplat.models.edm_sampling import guidance_by_place, guide, sample, unit_noise


def test_the_raw_network_is_asked_for_v_at_unit_scale(rng):
    """A network that knows v = alpha noise - alpha sigma clean gives the clean latents back."""
    clean, noise = torch.randn(2, 3, 2, 4, 8, 8, generator=rng)
    sigma = torch.tensor([0.05, 3.0, 600.0])[:, None, None, None, None]
    alpha = (1 + sigma.square()).rsqrt()

    def exact(scaled, level):
        torch.testing.assert_close(level, sigma.flatten().log() / 4)
        torch.testing.assert_close(scaled, alpha * clean + sigma * alpha * noise)
        return alpha * noise - sigma * alpha * clean

    noised = add_noise(clean, noise, sigma.flatten())
    # At sigma 600 the clean part is below a thousandth of what float32 has to carry.
    torch.testing.assert_close(denoise_with(exact, noised, sigma.flatten()), clean, atol=2e-4, rtol=0)


def test_the_weight_makes_the_networks_own_error_count_the_same_everywhere():
    sigma = torch.tensor([0.01, 1.0, 80.0])
    torch.testing.assert_close(loss_weight(sigma) * preconditioning(sigma).out.square(), torch.ones(3))
    torch.testing.assert_close(loss_weight(sigma), (sigma.square() + 1) / sigma.square())


def test_levels_fall_from_the_highest_to_zero():
    sigmas = karras_sigmas(6)
    assert sigmas[0].item() == pytest.approx(700.0)
    assert sigmas[5].item() == pytest.approx(0.002, rel=1e-5)
    assert sigmas[6] == 0
    assert (sigmas.diff() < 0).all()
    with pytest.raises(ValueError, match="0 steps"):
        karras_sigmas(0)


def test_levels_to_train_at_are_the_seeds(rng):
    again = torch.Generator().manual_seed(0)
    sigmas = lognormal_sigmas(4000, 0.7, 1.6, rng)
    torch.testing.assert_close(sigmas, lognormal_sigmas(4000, 0.7, 1.6, again), rtol=0, atol=0)
    assert sigmas.log().mean().item() == pytest.approx(0.7, abs=0.1)
    assert sigmas.log().std().item() == pytest.approx(1.6, abs=0.1)


@pytest.mark.parametrize(("sampler", "order"), [("euler", 1), ("heun", 2), ("dpm", 2)])
def test_samplers_reach_the_exact_solution_at_their_order(sampler, order):
    """For data N(0.5, 0.3^2) the denoiser and the path of a point are known in closed form."""
    mean, deviation, top = 0.5, 0.3, 20.0
    noise = torch.tensor([-1.0, 0.4, 2.0], dtype=torch.float64).reshape(1, 1, 1, 1, 3)

    def denoise(noised, sigma):
        variance = sigma.square()[:, None, None, None, None]
        return (deviation**2 * noised + variance * mean) / (deviation**2 + variance)

    exact = mean + (noise * start_scale(top) - mean) * deviation / (deviation**2 + top**2) ** 0.5
    errors = []
    for num_steps in (40, 80):
        levels = karras_sigmas(num_steps, sigma_min=0.002, sigma_max=top)
        errors.append((sample(denoise, noise, levels, sampler) - exact).abs().max().item())
    assert errors[1] < errors[0] / (1.7 if order == 1 else 3.0)
    assert errors[1] < (0.03 if order == 1 else 2e-3)


def test_levels_that_rise_are_refused():
    with pytest.raises(ValueError, match="do not fall"):
        sample(lambda noised, sigma: noised, torch.zeros(1, 1, 1, 2, 2), torch.tensor([1.0, 2.0, 0.0]))


def test_noise_is_the_seeds_own_in_any_batch():
    together = unit_noise([5, 7, 5], (4, 2, 3, 3))
    torch.testing.assert_close(together[1:2], unit_noise([7], (4, 2, 3, 3)), rtol=0, atol=0)
    torch.testing.assert_close(together[0], together[2], rtol=0, atol=0)
    assert (together[0] != together[1]).all()


def test_guidance_of_one_is_the_denoiser_that_knows_the_photo(rng):
    noised = torch.randn(1, 4, 1, 2, 2, generator=rng)
    scale = guidance_by_place(4)[None]
    guided = guide(lambda x, s: 2 * x, lambda x, s: x, scale)(noised, torch.ones(1))
    torch.testing.assert_close(guided[:, [0, 3]], 2 * noised[:, [0, 3]])
    torch.testing.assert_close(guided[:, [1, 2]], 3 * noised[:, [1, 2]])
