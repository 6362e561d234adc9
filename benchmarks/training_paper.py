"""The hours of the paper's training run by what was measured."""

import json
from pathlib import Path
from typing import Any

from training_tables import CELLS

STAGES = (("base_256", 80_000), ("base_512", 20_000))
"""Stages of the paper (section 4.3) by configuration, and their steps."""
PER_GPU, GPUS = 8, 8
"""The paper names 8 samples a GPU on 8 GPUs, and elsewhere batches of 32."""


def merged(known: dict[str, Any], new: dict[str, Any]) -> dict[str, Any]:
    """Results of several calls; rows of the same table stand together."""
    both = known | new
    for name in CELLS:
        if name in known and name in new:
            both[name] = new[name] | {"rows": known[name]["rows"] + new[name]["rows"]}
    return both


def paper(files: list[Path]) -> None:
    """Print the hours of its schedule, from files of results."""
    results: dict[str, Any] = {}
    for file in files:
        results = merged(results, json.loads(file.read_text(encoding="utf-8")))
    print(
        f"{results['device']}, torch {results['torch']}; batches of {PER_GPU * GPUS} samples\n\n"
        "| stage | steps | samples | samples/s a GPU | GPU hours | hours on 8 GPUs |\n|---|---|---|---|---|---|"
    )
    many = results.get("several", {}).get("base_512", {})
    scaling = many["gain"] / many["processes"] if "gain" in many else 1.0  # assumed of 8 GPUs as well
    total = 0.0
    for name, steps in STAGES:
        rows = [row for row in results.get(name, {}).get("rows", []) if "failure" not in row]
        rows = [row for row in rows if row["batch"] == PER_GPU and row["losses"] == "all"]
        if not rows:
            print(f"| {name} | {steps:,} | not measured |")
            continue
        best = max(rows, key=lambda row: row["samples_per_second"])
        samples = steps * PER_GPU * GPUS
        hours = samples / best["samples_per_second"] / 3600
        total += hours
        print(
            f"| {name} | {steps:,} | {samples:,} | {best['samples_per_second']:.1f} | {hours:.0f} | "
            f"{hours / GPUS / scaling:.1f} |"
        )
    print(f"| both | | | | {total:.0f} | {total / GPUS / scaling:.1f} |")
