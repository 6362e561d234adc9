"""What users rely on: names, commands and their flags, and that asking for help is quick."""

import re
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest

import humansplat

ROOT = Path(humansplat.__file__).parents[1]
COMMANDS = {
    "reconstruct": [
        "--out",
        "--model",
        "--body",
        "--person",
        "--body-model",
        "--mask",
        "--views",
        "--device",
        "--seed",
        "--no-video",
    ],
    "render": ["--out"],
    "synthesize": ["--assets", "--out", "--num", "--seed", "--split", "--scans"],
    "prepare": ["--out", "--layout", "--shard", "--body-model", "--unit", "--up", "--normals", "--depth"],
    "evaluate": ["--model", "--data", "--out", "--bodies"],
    "body": ["--show", "--out", "--person", "--format", "--body-model", "--models"],
    "doctor": [],
}


def run_python(code):
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_public_names_are_these_and_all_load():
    assert humansplat.__all__ == [
        "Cameras",
        "Gaussians",
        "Mesh",
        "PosedBody",
        "Reconstruction",
        "Reconstructor",
        "UserError",
    ]
    for name in humansplat.__all__:
        assert getattr(humansplat, name).__name__ == name
    assert set(humansplat.__all__) <= set(dir(humansplat))


def test_other_names_are_refused():
    with pytest.raises(AttributeError, match="no attribute 'Gaussian'"):
        _ = humansplat.Gaussian  # type: ignore[attr-defined]


def test_importing_loads_no_torch():
    heavy = run_python("import humansplat, sys; print(sorted({'torch', 'numpy', 'numba'} & set(sys.modules)))")
    assert heavy.strip() == "[]"


def test_help_has_the_flags_and_loads_no_torch():
    code = """
import sys
import humansplat.cli
for command in {commands}:
    sys.argv = ["humansplat", *command, "--help"]
    try:
        humansplat.cli.main()
    except SystemExit as done:
        assert done.code == 0, (command, done.code)
assert not {{"torch", "numba", "diffusers"}} & set(sys.modules)
"""
    told = run_python(code.format(commands=[[], *([command] for command in COMMANDS)]))
    for command, flags in COMMANDS.items():
        assert f"usage: humansplat {command}" in told
        for flag in flags:
            assert flag in told, (command, flag)


def test_the_version_is_stated_once():
    try:
        installed = metadata.version("humansplat")
    except metadata.PackageNotFoundError:
        pytest.skip("humansplat runs from its folder without being installed")
    assert installed == humansplat.__version__


def test_every_package_travels_in_the_wheel():
    """A folder with modules but without __init__.py would be left out by setuptools."""
    folders = {path.parent for path in (ROOT / "humansplat").rglob("*.py")}
    assert [str(folder) for folder in sorted(folders) if not (folder / "__init__.py").is_file()] == []


def test_links_between_the_pages_lead_somewhere():
    pages = [*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md"), *(ROOT / "weights").rglob("*.md")]
    assert len(pages) > 4
    for page in pages:
        for link in re.findall(r"\]\(([^)#:\s]+)\)", page.read_text(encoding="utf-8")):
            assert (page.parent / link).exists(), f"{page.name} links to {link}"
