import numpy as np

from humansplat.data.synthetic.lettering import PIXELS_A_METRE, badge, made_up_word, number, stamp, words


def test_prints_fit_their_boxes_and_repeat() -> None:
    for seed in range(20):
        first, second = (words(np.random.default_rng(seed), 0.2, 0.05) for _ in range(2))
        np.testing.assert_array_equal(first, second)
        assert first.shape[1] <= 0.2 * PIXELS_A_METRE + 1
        assert 0 <= first.min() < 0.1
        assert first.max() <= 1
        assert 0.03 < first.mean() < 0.9
        assert number(np.random.default_rng(seed), 0.2).shape[0] <= 0.2 * PIXELS_A_METRE + 1
        mark = badge(np.random.default_rng(seed), 0.1)
        assert mark.shape == (round(0.1 * PIXELS_A_METRE),) * 2
        assert 0.05 < mark.mean() < 0.95


def test_words_differ() -> None:
    assert len({made_up_word(np.random.default_rng(seed), 2) for seed in range(100)}) > 90


def test_a_stamp_reads_from_left_to_right_and_from_top_to_bottom() -> None:
    mask = np.zeros((20, 40), np.float32)
    mask[:10, :20] = 1  # the upper left quarter
    x, y = np.array([-0.01, 0.01, -0.01, 0.5]), np.array([0.005, 0.005, -0.005, 0.0])
    np.testing.assert_allclose(stamp(mask, x, y), [1, 0, 0, 0], atol=1e-6)
