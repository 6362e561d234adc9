import torch

from humansplat.models.cells import fill_outwards, nearest_cells, patchify, take_cells


def test_patches_hold_the_pixels_of_their_square():
    image = torch.arange(64.0).view(1, 1, 8, 8, 1)
    patches = patchify(image, 4)
    assert patches.shape == (1, 1, 2, 2, 16, 1)
    torch.testing.assert_close(patches[0, 0, 1, 0, :, 0].view(4, 4), image[0, 0, 4:, :4, 0])


def test_take_cells_uses_row_major_indices():
    cells = torch.arange(9.0).view(1, 1, 3, 3, 1)
    assert take_cells(cells, torch.tensor([[[5, 0]]])).flatten().tolist() == [5.0, 0.0]


def test_the_cells_nearest_to_the_person_stay():
    hit = torch.zeros(1, 4, 32, 32, dtype=torch.bool)
    hit[:, :, 12:20, 14:18] = True
    alpha = torch.zeros(1, 64, 64)
    kept = nearest_cells(alpha, hit, num_views=4, grid=8, count=20)
    assert kept.shape == (1, 4, 20)
    rows, columns = kept // 8, kept % 8
    assert ((rows >= 1) & (rows <= 6) & (columns >= 1) & (columns <= 6)).all()
    covered = {(r, c) for r in (3, 4) for c in (3, 4)}
    assert covered <= set(zip(rows[0, 1].tolist(), columns[0, 1].tolist(), strict=True))


def test_the_photos_mask_counts_beside_the_body():
    alpha = torch.zeros(1, 64, 64)
    alpha[:, :8, :8] = 1.0
    kept = nearest_cells(alpha, torch.zeros(1, 4, 32, 32, dtype=torch.bool), num_views=4, grid=8, count=1)
    assert kept[0, 0].item() == 0


def test_without_a_body_the_other_views_go_by_the_photos_mask_and_its_mirror_image():
    alpha = torch.zeros(1, 64, 64)
    alpha[:, :8, :8] = 1.0
    kept = nearest_cells(alpha, None, num_views=3, grid=8, count=2)
    assert [sorted(cells) for cells in kept[0].tolist()[1:]] == [[0, 7], [0, 7]]
    assert nearest_cells(alpha, None, num_views=3, grid=8, count=64) is None


def test_filling_keeps_what_is_known_and_continues_it():
    values, known = torch.zeros(1, 16, 16), torch.zeros(1, 16, 16)
    values[0, 4, 4], known[0, 4, 4] = 2.0, 1.0
    values[0, 12, 12], known[0, 12, 12] = 3.0, 1.0
    filled = fill_outwards(values, known)
    assert filled[0, 4, 4] == 2.0
    assert filled[0, 5, 5] == 2.0
    assert filled[0, 13, 13] == 3.0
    assert filled.min() >= 2.0
    assert filled.max() <= 3.0
    assert (fill_outwards(values, torch.zeros_like(known)) == 0).all()
