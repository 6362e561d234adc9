import torch

from humansplat.pipelines.preview import GAP, LABEL_HEIGHT, labelled, side_by_side, stacked


def test_tiles_stand_in_a_row_with_white_between(rng):
    images = [torch.rand(3, 8, width, generator=rng) for width in (5, 7)]
    row = side_by_side(images)
    assert row.shape == (3, 8, 12 + GAP)
    torch.testing.assert_close(row[..., :5], images[0])
    torch.testing.assert_close(row[..., -7:], images[1])
    assert (row[..., 5:-7] == 1).all()


def test_rows_stand_below_each_other(rng):
    rows = [torch.rand(3, height, 6, generator=rng) for height in (4, 9)]
    sheet = stacked(rows)
    assert sheet.shape == (3, 13 + GAP, 6)
    torch.testing.assert_close(sheet[:, :4], rows[0])


def test_a_label_is_written_above(rng):
    image = torch.rand(3, 10, 120, generator=rng)
    told = labelled(image, "person 1")
    assert told.shape == (3, 10 + LABEL_HEIGHT, 120)
    torch.testing.assert_close(told[:, LABEL_HEIGHT:], image)
    assert told[:, :LABEL_HEIGHT].min() < 0.5
