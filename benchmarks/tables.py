"""Tables of docs/results.md: samples of all pairs, the paper's claim, OOD detection; from figures in docs/results."""

from __future__ import annotations

import json
import statistics
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import ttest_1samp

FOLDER = Path(__file__).parents[1] / "docs" / "results"
SAMPLES = {
    "fd": ("classifier", "fd", 1),
    "fd (EfficientNet)": ("efficientnet-lite0", "fd", 1),
    "kid": ("classifier", "kid", 2),
    **{name: ("classifier", name, 2) for name in ("precision", "recall", "density", "coverage")},
}
SCORES = {
    "density": "likelihood_ood_auroc",
    "latent density": "likelihood_ood_auroc_low_dim",
    "distance": "distance_ood_auroc",
    "relative distance": "relative_distance_ood_auroc",
    "two-part": "two_part_ood_auroc",
}
STUMPS = {"stump, density": "likelihood_ood_acc", "stump, latent density": "likelihood_ood_acc_low_dim"}


def stored(name: str) -> dict[str, Any]:
    """Return the figures of a file in docs/results; nothing if there is none."""
    path = FOLDER / f"{name}.json"
    return json.loads(path.read_text()) if path.exists() else {}


def row(*cells: str) -> str:
    return f"| {' | '.join(cells)} |"


def head(*cells: str) -> list[str]:
    return [row(*cells), "|---" * len(cells) + "|"]


def shown(result: dict[str, Any] | None, digits: int) -> str:
    """Return a figure with its interval."""
    if result is None:
        return ""
    ends = "" if result["interval"] is None else ", ".join(f"{end:,.{digits}f}" for end in result["interval"])
    return f"{result['value']:,.{digits}f}" + (f" [{ends}]" if ends else "")


def samples(name: str) -> list[str]:
    """Return the table of the samples of one data set's models, and the reference value of held-out data."""
    facts = stored(f"{name}-quality")
    if not facts:
        return []
    lines = ["", f"### {name}", "", *head("", *SAMPLES)]
    for cell, found in facts.items():
        gae, _, de = cell.partition("-")
        figures = [shown(found[kind].get(figure), digits) for kind, figure, digits in SAMPLES.values()]
        lines.append(row(f"`{de}` alone" if gae == "alone" else f"`{gae}` + `{de}`", *figures))
    any_found = next(iter(facts.values()))
    references = [f"{any_found[kind][figure]['reference']:,.{digits}f}" for kind, figure, digits in SAMPLES.values()]
    return [*lines, row("*held-out images*", *references)]


def detection() -> list[str]:
    """Return the table of how well scores separate OOD data, by `ood.py` and `quality.py`."""
    facts = stored("ood")
    lines = [*head("trained on -> OOD data", *SCORES, "false-positive rate", "detection rate")] if facts else []
    for pair, found in facts.items():
        rates = (f"{found[f'two_part_ood_{rate}']['value']:.3f}" for rate in ("false_positive_rate", "detection_rate"))
        lines.append(row(pair, *(shown(found.get(figure), 3) for figure in SCORES.values()), *rates))
    return lines


def detection_by_threshold() -> list[str]:
    """Return the table of scores of four pairs, and the accuracy of a threshold that saw both sets."""
    known = {name: figure for name, figure in SCORES.items() if name != "relative distance"} | STUMPS
    lines = head("", *known)
    for name, other in (("fashion-mnist", "mnist"), ("mnist", "fashion-mnist")):
        for cell, found in stored(f"{name}-quality").items():
            if "ood" in found:
                figures = [shown(found["ood"].get(figure), 3) for figure in known.values()]
                lines.append(row(f"{cell.replace('-', ' + ')}, {name} -> {other}", *figures))
    return lines


def claim() -> list[str]:
    """Return the table of the paper's claim: both sides' distances by seed, their ratio and the paired test."""
    facts = stored("claim")
    lines = head("", "fd alone", "fd in two steps", "ratio [95 %]", "p", "coverage alone", "coverage in two steps")
    for family in dict.fromkeys(key.split("-")[1] for key in facts):
        seeds = [key.split("-")[2] for key in facts if key.startswith(f"alone-{family}-")]
        seeds = [seed for seed in seeds if f"two_step-{family}-{seed}" in facts]
        sides = {
            kind: {
                figure: np.array([facts[f"{kind}-{family}-{seed}"][figure]["value"] for seed in seeds])
                for figure in ("fd", "coverage")
            }
            for kind in ("alone", "two_step")
        }
        if len(seeds) > 1:
            logs = np.log(sides["alone"]["fd"] / sides["two_step"]["fd"])
            test = ttest_1samp(logs, 0)
            low, high = np.exp(test.confidence_interval())
            distances = (", ".join(f"{x:.1f}" for x in side["fd"]) for side in sides.values())
            coverages = (f"{side['coverage'].mean():.2f}" for side in sides.values())
            ratio = f"{np.exp(logs.mean()):.2f} [{low:.2f}, {high:.2f}]"
            lines.append(row(f"`{family}`", *distances, ratio, f"{test.pvalue:.2g}", *coverages))
    return lines


def latent_dim() -> list[str]:
    """Return a row for each size of the latent space: means over seeds, lowest and highest fd."""
    facts = stored("latent_dim")
    if "chosen" not in facts:
        return []
    chosen, runs = facts["chosen"], list(facts["runs"].values())
    lines = head("latent_dim", "fd", "lowest-highest", "reconstruction error", "CPU seconds", "seeds")
    for size in sorted({run["size"] for run in runs}):
        those = [run for run in runs if run["size"] == size]
        distances = [run["fd"]["value"] for run in those]
        error, seconds = (statistics.mean(run[key] for run in those) for key in ("reconstruction_error", "seconds"))
        named = f"{size} (auto: {chosen['low']} to {chosen['high']})" if size == chosen["latent_dim"] else str(size)
        spread = f"{min(distances):.2f}-{max(distances):.2f}" if len(those) > 1 else ""
        figures = (f"{statistics.mean(distances):.2f}", spread, f"{error:,.0f}", f"{seconds:.0f}", str(len(those)))
        lines.append(row(named, *figures))
    reference = statistics.mean(run["fd"]["reference"] for run in runs)
    return [*lines, row("*held-out images*", f"{reference:.2f}", "", "", "", "")]
