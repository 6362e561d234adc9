"""In a process of its own: the annotations' checks of the tests cannot be compiled."""

import os
import subprocess
import sys
from pathlib import Path

FOLDER = Path(__file__).parent
# Both in one process, because importing torch and diffusers costs more than either.
BOTH = """
import runpy, sys
reconstructor, layers = sys.argv[1:]
runpy.run_path(reconstructor, run_name="__main__")
runpy.run_path(layers)["main"]("cpu", "aot_eager")
"""


def test_reconstructor_and_windowed_attention_compile_without_graph_breaks_and_stay_the_same():
    scripts = [FOLDER / "compiled_reconstructor.py", FOLDER / "windowed_attention" / "compiled_layers.py"]
    paths = [str(FOLDER.parents[1]), os.environ.get("PYTHONPATH", "")]
    done = subprocess.run(
        [sys.executable, "-c", BOTH, *map(str, scripts)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths))},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
