"""What ablation runs have left: their figures, what they cost, and the table of `docs/ablations.md`."""

import json
import statistics
from collections.abc import Sequence
from pathlib import Path

from ablation_rows import BODIES, ROWS, Row

COLUMNS = {"psnr": "PSNR", "psnr_box": "box", "psnr_box_back": "box, back", "psnr_head": "head", "ssim": "SSIM",
           "silhouette_iou": "IoU"}  # fmt: skip


def collect(out: Path, rows: Sequence[Row]) -> dict[str, dict[str, dict[str, float]]]:
    """Figures that are there: ``[row][seed]``, and ``["bodies"][kind]``."""
    found: dict[str, dict[str, dict[str, float]]] = {}
    for row in rows:
        paths = {str(seed): out / f"{row.name}-{seed}" / "final" / "metrics.json" for seed in row.seeds}
        found[row.name] = {seed: _read(path)["metrics"] for seed, path in paths.items() if path.is_file()}
    paths = {kind: out / f"bodies-{kind}" / "metrics.json" for kind in BODIES}
    found["bodies"] = {kind: _evaluated(_read(path)) for kind, path in paths.items() if path.is_file()}
    return found


def costs(out: Path, rows: Sequence[Row]) -> dict[str, dict[str, float]]:
    """Steps, minutes and GiB of each run so far; minutes are those beside the other runs on its GPU."""
    found = {}
    for name in [f"{row.name}-{seed}" for row in rows for seed in row.seeds]:
        log = out / name / "log.jsonl"
        lines = (
            log.read_text(encoding="utf-8").splitlines()[:-1] if log.is_file() else []
        )  # the last may be half written
        trained = [values for values in map(json.loads, lines) if values["group"] == "train"]
        if trained:
            found[name] = {key: trained[-1][key] for key in ("step", "minutes", "memory_gib") if key in trained[-1]}
    return found


def _read(path: Path) -> dict:
    return json.loads(path.read_text(encoding="utf-8"))


def _evaluated(metrics: dict) -> dict[str, float]:
    """What `evaluate` wrote under the names that validation has."""
    sides = {f"{name}_{side}": value for side in ("front", "side", "back") for name, value in metrics[side].items()}
    return metrics["mean"] | sides


def table(results: dict[str, dict[str, dict[str, float]]], rows: Sequence[Row]) -> str:
    """Markdown, as `docs/ablations.md` has it; rows without figures are left open."""
    header = ["row", "", *COLUMNS.values(), "against main", "the paper", "against its main"]
    lines = [header, ["---"] * len(header)]
    base = _mean(list(results.get("main", {}).values()), "psnr")
    for row in rows:
        runs = list(results.get(row.name, {}).values())
        title = f"{row.title}{f' ({len(runs)} seeds)' if len(runs) > 1 else ''}"
        lines.append([f"`{row.name}`", title, *_cells(runs), *_differences(runs, base, row.paper, row.name == "main")])
    for kind, paper in BODIES.items():
        runs = [results["bodies"][kind]] if kind in results.get("bodies", {}) else []
        cells = [*_cells(runs), *_differences(runs, base, paper, False)]
        lines.append([f"`bodies-{kind}`", f"`main`'s first run, {kind} bodies", *cells])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _cells(runs: list[dict[str, float]]) -> list[str]:
    cells = []
    for name in COLUMNS:
        digits = 2 if name.startswith("psnr") else 4
        values = [run[name] for run in runs if name in run]
        spread = f" ± {statistics.stdev(values):.{digits}f}" if len(values) > 1 else ""
        cells.append(f"{statistics.fmean(values):.{digits}f}{spread}" if values else "")
    return cells


def _differences(runs: list[dict[str, float]], base: float | None, paper: float | None, is_main: bool) -> list[str]:
    mean, of_paper = _mean(runs, "psnr"), ROWS[0].paper
    own = f"{mean - base:+.2f}" if mean is not None and base is not None and not is_main else ""
    theirs = f"{paper - of_paper:+.2f}" if paper is not None and of_paper is not None and not is_main else ""
    return [own, f"{paper:.2f}" if paper is not None else "", theirs]


def _mean(runs: list[dict[str, float]], name: str) -> float | None:
    return statistics.fmean([run[name] for run in runs]) if runs else None
