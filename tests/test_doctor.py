from humansplat.doctor import examine_body_models, told


def body_files(monkeypatch, folder):
    monkeypatch.setenv("HUMANSPLAT_BODY_MODELS", folder)
    return {finding.name: finding for finding in examine_body_models()}


def test_missing_body_models_are_told_with_where_to_register(monkeypatch):
    findings = body_files(monkeypatch, "")
    assert [finding.found for finding in findings.values()] == [False, False, False]
    assert "register at https://smpl.is.tue.mpg.de, put SMPL_NEUTRAL.npz" in findings["smpl files"].detail
    assert "mano.is.tue.mpg.de" in findings["smplh files"].detail
    assert "smpl-x.is.tue.mpg.de" in findings["smplx files"].detail
    assert "set HUMANSPLAT_BODY_MODELS=FOLDER" in told(list(findings.values()))


def test_body_models_that_are_there_are_told_with_their_places(monkeypatch, tmp_path):
    (tmp_path / "smplx").mkdir()
    for gender in ("MALE", "FEMALE"):
        (tmp_path / "smplx" / f"SMPLX_{gender}.npz").touch()
    findings = body_files(monkeypatch, str(tmp_path))
    assert findings["smplx files"].found
    assert f"female {tmp_path / 'smplx' / 'SMPLX_FEMALE.npz'}" in findings["smplx files"].detail
    assert "no neutral: register" in findings["smplx files"].detail
    assert not findings["smpl files"].found
    assert str(tmp_path / "smpl") in findings["smpl files"].detail
    assert not any(finding.needed for finding in findings.values())
