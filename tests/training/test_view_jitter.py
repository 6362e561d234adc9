import math
from dataclasses import replace

import torch

from humansplat.training.view_jitter import jittered_views, rig_views


def test_views_of_the_rig_are_found_again_in_their_order_at_their_angles(pool):
    """Targets that are the rig's own views need no new framing."""
    batch = pool.batch(torch.tensor([0, 1]), torch.tensor([[3, 1, 2], [2, 3, 1]]), num_inputs=4)
    rig = rig_views(batch)
    found = jittered_views(batch, torch.tensor([True, True]))
    torch.testing.assert_close(found.azimuths, rig.azimuths, atol=1e-2, rtol=0)  # the root is not quite on the axis
    torch.testing.assert_close(found.elevations, rig.elevations, atol=1e-5, rtol=0)
    assert (found.pictures[:, 0] == rig.pictures[:, 0]).all()
    assert (found.pictures - rig.pictures).abs().mean() < 0.01


def test_other_views_are_told_by_their_angles_and_framed_as_the_photo(pool):
    batch = pool.batch(torch.tensor([0, 1]), torch.tensor([[6, 4, 5]] * 2), num_inputs=4)
    wider = batch.target_cameras.Ks.clone()
    wider[..., :2, :2] *= 0.7  # as if the same pictures had been taken nearer, with a wider lens ...
    nearer = replace(batch.target_cameras, Ks=wider)
    found = jittered_views(replace(batch, target_cameras=nearer), torch.tensor([True, False]))
    asked = torch.tensor([0, 0.2, 0.9, 1.6]) * math.pi
    torch.testing.assert_close(found.azimuths[0], asked, atol=2e-2, rtol=0)
    plain = jittered_views(batch, torch.tensor([True, False]))
    # ... they show the person too small for the photo's camera, and are enlarged.
    shown = [(1 - views.pictures[0, 1:]).sum() for views in (found, plain)]
    assert shown[0] > 1.5 * shown[1]
    rig = rig_views(batch)
    assert (found.pictures[1] == rig.pictures[1]).all()
    assert (found.azimuths[1] == rig.azimuths[1]).all()
