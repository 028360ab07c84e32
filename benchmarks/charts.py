"""Charts of what `make bench` has written: of each part one, with a panel for each unit and a bar for each figure."""

from __future__ import annotations

import json
from collections.abc import Sequence
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import Any

_ROW_INCHES = 0.32
_PANEL_INCHES = 0.9
_WIDTH_INCHES = 9


def panels(figures: Sequence[dict[str, Any]]) -> list[tuple[str, list[dict[str, Any]]]]:
    """The figures by their units, the units in the order in which they first come."""
    units = list(dict.fromkeys(figure["unit"] for figure in figures))
    ordered = sorted(figures, key=lambda figure: units.index(figure["unit"]))
    return [(unit, list(group)) for unit, group in groupby(ordered, key=itemgetter("unit"))]


def draw(results: Path, into: Path) -> list[Path]:
    """Draw every result of the folder; needs matplotlib. Returns what was written."""
    import matplotlib as mpl

    mpl.use("svg")
    mpl.rcParams["svg.hashsalt"] = "siorg-sync"  # the same result is the same file
    mpl.rcParams["svg.fonttype"] = "none"
    from matplotlib import pyplot as plt

    into.mkdir(exist_ok=True, parents=True)
    written = []
    for path in sorted(results.glob("*.json")):
        result = json.loads(path.read_text(encoding="utf-8"))
        groups = panels(result["figures"])
        heights = [_PANEL_INCHES + _ROW_INCHES * len(group) for _, group in groups]
        drawing, axes = plt.subplots(
            len(groups), 1, figsize=(_WIDTH_INCHES, sum(heights)), height_ratios=heights, squeeze=False, layout="constrained"
        )
        for (unit, group), ax in zip(groups, axes[:, 0], strict=True):
            _panel(ax, unit, group)
        drawing.suptitle(f"{result['part']}: {result['machine']['processor']}, {result['machine']['cores']} cores", fontsize=10)
        target = into / f"{path.stem}.svg"
        drawing.savefig(target, metadata={"Date": None})
        plt.close(drawing)
        written.append(target)
    return written


def _panel(ax: Any, unit: str, group: Sequence[dict[str, Any]]) -> None:
    places = range(len(group))
    values = [figure["value"] for figure in group]
    spread = [
        [figure["value"] - min(figure["rounds"] or [figure["value"]]) for figure in group],
        [max(figure["rounds"] or [figure["value"]]) - figure["value"] for figure in group],
    ]
    bars = ax.barh(places, values, xerr=spread, height=0.6, color="#4477aa", error_kw={"ecolor": "#222222", "capsize": 2})
    ax.bar_label(bars, [f" {value:,.4g}" for value in values], fontsize=8)
    for place, figure in zip(places, group, strict=True):
        for bound in (figure["least"], figure["most"]):
            if bound is not None:
                ax.plot([bound, bound], [place - 0.4, place + 0.4], color="#cc3311", linewidth=2)
    ax.set_yticks(places, [figure["name"] for figure in group], fontsize=8)
    ax.invert_yaxis()
    ax.margins(x=0.15)
    ax.set_title(unit or "count", fontsize=9, loc="left")
    ax.spines[["top", "right"]].set_visible(False)
