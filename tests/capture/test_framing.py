import numpy as np
import pytest

from humansplat.capture.crop import Region
from humansplat.capture.framing import edge_contacts

WHOLE = Region(0.0, 0.0, 200.0, 300.0, 200, 300)


def contacts(mask: np.ndarray, region: Region = WHOLE):
    return edge_contacts(mask, region, 200, 300, length=250.0)


def test_a_bar_that_runs_out_of_the_picture_does_not_widen():
    mask = np.zeros((300, 200), dtype=bool)
    mask[100:120, 150:] = True
    (contact,) = contacts(mask)
    assert (contact.edge, contact.x, contact.y) == ("right", 200.0, 110.0)
    assert contact.length == pytest.approx(20 / 250)
    assert contact.widening == pytest.approx(1.0)


@pytest.mark.parametrize(("centre", "edge"), [((100, 30), "top"), ((270, 100), "bottom"), ((100, 30), "left")])
def test_a_disc_that_only_touches_the_edge_widens(centre, edge):
    y, x = np.mgrid[0:300, 0:200] + 0.5
    row, column = centre if edge != "top" else centre[::-1]
    mask = np.hypot(y - row, x - column) < 30.2
    found = [contact for contact in contacts(mask) if contact.edge == edge]
    assert len(found) == 1
    assert found[0].widening > 1.8


def test_edges_of_a_region_inside_the_photo_do_not_count():
    mask = np.ones((100, 50), dtype=bool)
    assert contacts(mask, Region(20.0, 30.0, 70.0, 130.0, 50, 100)) == []
    assert {contact.edge for contact in contacts(mask, Region(0.0, 200.0, 50.0, 300.0, 50, 100))} == {"left", "bottom"}
