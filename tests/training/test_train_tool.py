import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def run_tool(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-X", "importtime", str(ROOT / "tools" / "train.py"), *arguments]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


def test_help_tells_all_flags_without_importing_torch():
    done = run_tool("--help")
    assert done.returncode == 0
    assert all(flag in done.stdout for flag in ("--config", "--resume", "--stop-after", "--set"))
    assert "torch" not in done.stderr


@pytest.mark.parametrize(
    ("text", "overrides", "complaint"),
    [
        ("task: autoencoder\nbatch: 3\n", [], "TrainConfig has no ['batch']"),
        ("task: autoencoder\n", ["--set", "optim.lr=fast"], "optim.lr = 'fast' is not float"),
        (None, [], "No such file"),
    ],
)
def test_mistakes_end_in_one_sentence_and_exit_code_2(tmp_path, text, overrides, complaint):
    path = tmp_path / "run.yaml"
    if text is not None:
        path.write_text(text)
    done = run_tool("--config", str(path), *overrides)
    assert done.returncode == 2
    assert complaint in done.stderr
    assert "Traceback" not in done.stderr
