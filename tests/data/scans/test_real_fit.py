"""One scan through everything that users get: the landmark detector, the fitter, the command line."""

import json
from pathlib import Path

import numpy as np
import pytest
import toy_scans

from humansplat.capture.graph import graph_path
from humansplat.cli import SOME_FAILED, prepare
from humansplat.data.scans.orientation import to_y_up

YAW = 2.0


@pytest.mark.skipif(not graph_path().is_file(), reason="the landmark detector is not in the cache")
def test_a_turned_scan_in_centimetres_is_brought_home(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    vertices, faces, _, _ = toy_scans.surface(toy_scans.turned(YAW))
    skin = np.tile(np.array([[205, 160, 135]], np.uint8), (len(vertices), 1))
    parts = toy_scans.person().parts.numpy()
    skin[np.isin(parts, [0, 1, 2, 4, 5])] = [40, 50, 90]  # trousers
    skin[np.isin(parts, [3, 6, 9, 13, 14, 16, 17])] = [150, 40, 40]  # a shirt
    scan = tmp_path / "scans" / "anna.ply"
    toy_scans.write_ply(scan, 100 * (vertices + [3.0, 0.5, -2.0]) @ to_y_up("z"), faces, skin)
    out = tmp_path / "out"
    (scan.parent / "torn.ply").write_text("ply\n")
    assert prepare(scan.parent, out, size=32, workers=0) == SOME_FAILED
    told = capsys.readouterr()
    assert "1 people, 1 of them new" in told.out
    assert "torn" in told.err
    assert "flagged" not in told.err
    meta = json.loads((out / "anna" / "meta.json").read_text())
    assert (meta["normalization"]["unit"], meta["normalization"]["up"]) == (0.01, "z")
    turn = np.remainder(meta["normalization"]["facing"] - YAW + np.pi, 2 * np.pi) - np.pi
    assert abs(turn) < 0.15
    with np.load(out / "anna" / "body.npz") as body:
        truth = toy_scans.person().vertices.numpy()
        truth = truth - [toy_scans.person().joints[0, 0].item(), 0.0, toy_scans.person().joints[0, 2].item()]
        assert np.linalg.norm(body["vertices"] - truth, axis=1).mean() < 0.04
