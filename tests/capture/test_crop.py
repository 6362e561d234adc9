import numpy as np
import pytest

from humansplat.capture.crop import canonical_square, cut_plane, cut_region, cut_square, mask_box, working_region


def test_box_of_a_mask_has_pixel_edges():
    mask = np.zeros((40, 50), np.float32)
    mask[10:30, 5:9] = 1.0
    mask[35, 40] = 0.4
    assert mask_box(mask) == (5.0, 10.0, 9.0, 30.0)
    with pytest.raises(ValueError, match="empty"):
        mask_box(np.zeros((4, 4), np.float32))


@pytest.mark.parametrize("box", [(10.0, 20.0, 40.0, 120.0), (0.0, 0.0, 90.0, 30.0)])
def test_square_is_centred_and_its_share_is_085(box):
    x0, y0, x1, y1 = canonical_square(box)
    assert x1 - x0 == pytest.approx(y1 - y0)
    assert max(box[2] - box[0], box[3] - box[1]) / (x1 - x0) == pytest.approx(0.85)
    assert (x0 + x1, y0 + y1) == pytest.approx((box[0] + box[2], box[1] + box[3]))


def test_region_stays_in_the_picture_and_is_never_enlarged():
    region = working_region((10.0, 10.0, 60.0, 110.0), 80, 200, margin=0.2, longest=512)
    assert (region.x0, region.y0, region.x1, region.y1) == (0.0, 0.0, 80.0, 130.0)
    assert (region.width, region.height) == (80, 130)
    small = working_region((10.0, 10.0, 60.0, 110.0), 80, 200, margin=0.0, longest=50)
    assert (small.width, small.height) == (25, 50)
    np.testing.assert_allclose(small.to_photo @ [25, 50, 1], [60.0, 110.0])


def test_cut_square_reaches_beyond_the_grid_with_an_empty_mask():
    colors = np.full((60, 40, 3), 0.25, np.float32)
    image, mask = cut_square(colors, np.ones((60, 40), np.float32), (-10.0, 0.0, 50.0, 60.0), 30)
    np.testing.assert_allclose(mask[:, :4], 0.0, atol=1e-6)
    np.testing.assert_allclose(mask[:, 8:22], 1.0, atol=1e-4)
    np.testing.assert_allclose(image[:, 8:22], 0.25, atol=1e-4)
    assert (image[mask == 0.0] == 1.0).all()


def test_reducing_does_not_alias():
    checkers = ((np.indices((256, 256)).sum(axis=0) % 2) * 255).astype(np.uint8)
    region = working_region((0.0, 0.0, 256.0, 256.0), 256, 256, margin=0.0, longest=64)
    assert np.ptp(cut_region(np.stack([checkers] * 3, axis=-1), region)[4:-4, 4:-4]) < 0.05
    assert np.ptp(cut_plane((checkers / 255.0).astype(np.float32), region)[4:-4, 4:-4]) < 0.05
