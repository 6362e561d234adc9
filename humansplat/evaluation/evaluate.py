"""A model scored on a folder of people."""

import json
import logging
from dataclasses import replace
from pathlib import Path

from tqdm import tqdm

from humansplat.errors import UserError
from humansplat.evaluation.bodies import Bodies, fit_subject, perturbed_body
from humansplat.evaluation.scoring import mean, of_whole, score_views, summary
from humansplat.evaluation.subjects import list_people, read_subject
from humansplat.evaluation.views import GivenViews, given_views, render_views, sheet_row
from humansplat.io.atomic import replacing
from humansplat.io.images import to_bytes, write_png
from humansplat.pipelines.preview import stacked
from humansplat.pipelines.reconstructor import Reconstructor
from humansplat.structures import PosedBody

logger = logging.getLogger(__name__)

SHEET_PEOPLE = 4
"""Best and worst people on the contact sheet, each."""


def evaluate(
    reconstructor: Reconstructor,
    data: Path,
    out: Path,
    *,
    bodies: Bodies = "fitted",
    views: GivenViews = "auto",
    limit: int | None = None,
    progress: bool = True,
) -> dict[str, object]:
    """Score a model on a folder of people; write ``metrics.json`` and ``contact_sheet.png``.

    Args:
        reconstructor: The model.
        data: A folder that ``humansplat synthesize`` or ``prepare`` wrote.
        out: Folder for the two files; the same inputs give the same bytes.
        bodies: ``fitted`` from view 0, ``true``, or ``perturbed`` from the true ones, alike in every run.
        views: What the model is given of the unseen sides: nothing, its view model's latents, or the true ones;
            ``auto``: nothing where the weights can do without, otherwise the view model's, and the true ones for
            weights that have none.
        limit: Only the first so many people.
        progress: Show a bar on stderr.

    Returns:
        The content of ``metrics.json``.

    Raises:
        UserError: If the folder holds no people with novel views, all are flagged, no body could be fitted, or the
            weights do not allow these ``views``.
    """
    views = given_views(reconstructor, views)
    names, flagged = list_people(data)
    names = names[:limit]
    scores: dict[str, list[dict[str, float]]] = {}
    sides: dict[str, tuple[str, ...]] = {}
    failed: dict[str, str] = {}
    used: dict[str, PosedBody] = {}
    for name in tqdm(names, "evaluate", unit="person", disable=not progress):
        subject = read_subject(reconstructor, data / name)
        if bodies == "fitted":
            try:
                used[name] = fit_subject(reconstructor, subject)
            except UserError as error:
                failed[name] = str(error)
                logger.warning("%s: %s", name, error)
                continue
        elif bodies == "perturbed":
            used[name] = perturbed_body(reconstructor, subject)
        subject = replace(subject, body=used.get(name, subject.body))
        scores[name] = score_views(subject, render_views(reconstructor, subject, views))
        sides[name] = subject.sides
    if not scores:
        raise UserError(f"no body could be fitted to any of the {len(names)} people of {data}; try --bodies true")
    metrics = summary(scores, sides) | {
        "bodies": bodies,
        "views": views,
        "model": {"name": Path(reconstructor.weights.name).name, "sha256": reconstructor.weights.sha256},
        "failed": failed,
        "flagged": flagged,
    }
    psnr = {name: mean(of_whole(scores[name], sides[name]), "psnr") for name in scores}
    rows = []
    for name in best_and_worst(psnr):
        subject = read_subject(reconstructor, data / name)
        subject = replace(subject, body=used.get(name, subject.body))
        rows.append(sheet_row(reconstructor, subject, views, f"{name}  {psnr[name]:.2f} dB"))
    write_png(to_bytes(stacked(rows)), out / "contact_sheet.png")
    with replacing(out / "metrics.json") as temporary:
        temporary.write_text(json.dumps(metrics, indent=1, sort_keys=True) + "\n", encoding="utf-8", newline="\n")
    return metrics


def best_and_worst(scores: dict[str, float]) -> list[str]:
    """Whom the contact sheet shows, by name."""
    ranked = sorted(scores, key=lambda name: (-scores[name], name))
    return [*ranked[:SHEET_PEOPLE], *ranked[SHEET_PEOPLE:][-SHEET_PEOPLE:]]
