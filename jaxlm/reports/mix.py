"""What `jaxlm mix` found: lines for the terminal, a picture and a page, from its records."""

import base64
import io
import json
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from jaxlm.reports.page import environment
from jaxlm.reports.units import whole
from jaxlm.workdir import Workdir, write_text

TRUSTED = 0.5
"""Rank correlation of predictions below which an answer comes with a warning."""
PANELS = 12
"""Sources that have a slice of their own in the picture, those with the largest shares."""


def mix_lines(record: Mapping[str, Any], workdir: Workdir) -> Iterator[str]:
    """The shares, what they are predicted to lose and lost, and how far that can be trusted."""
    own = by_name(record)["config"]["shares"]
    yield f"{'source':24} {'found':>7} {'config':>7}"
    for name in record["sources"]:
        yield f"{name:24} {record['shares'][name]:7.3f} {own[name]:7.3f}"
    yield ""
    yield f"{'mixture':24} {'loss':>7}  on {whole(record['parameters'])} parameters, nats a token"
    if record["predicted"] is not None:
        yield f"{'found, predicted':24} {record['predicted']:7.4f}"
    for row in record["confirmed"]:
        yield f"{row['mixture']:24} {row['loss']:7.4f}  {_spread(row)}"
    yield ""
    yield from sentences(record)
    yield f"wrote {workdir.path / 'mix'}: best.yaml, report.html, surface.png, results.jsonl"


def sentences(record: Mapping[str, Any]) -> Iterator[str]:
    """What the search says for and against its answer."""
    rows = by_name(record)
    chosen, own = rows[record["chosen"]], rows["config"]
    # a seed's models see the same data in the same order, so they are compared by pairs
    gains = np.array(own["losses"]) - np.array(chosen["losses"])
    gain, seeds = float(gains.mean()), len(gains)
    error = float(gains.std(ddof=1)) / math.sqrt(seeds) if seeds > 1 else 0.0
    yield (
        f"the mixture {'found' if record['chosen'] == 'found' else 'chosen'} loses "
        f"{abs(gain):.4f} nats a token {'less' if gain >= 0 else 'MORE'} than the config's own"
        + (f" (+- {error:.4f} over {seeds} seeds)" if seeds > 1 else "")
        + (", which may be chance" if abs(gain) <= 2 * error else "")
    )
    if record["chosen"] != "found":
        yield f"{record['chosen']} did better than what {record['method']} found, and was chosen"
    if record["predicted"] is not None:
        found = rows["found"]["loss"]
        yield (
            f"predicted {record['predicted']:.4f}, confirmed {found:.4f}, "
            f"a difference of {found - record['predicted']:+.4f}"
        )
    for fit in record["regression"] or ():
        yield (
            f"of {fit['mixtures']}{' mixtures' if fit['mixtures'] == 'all' else ''}, a regression "
            f"({fit['form']}) ranks those that it did not see with a correlation of "
            f"{fit['spearman']:.2f} (R2 {fit['r2']:.2f})"
        )
    if any(fit["spearman"] < TRUSTED for fit in record["regression"] or ()):
        yield (
            "the proxies rank mixtures little better than chance does: raise mix.steps or "
            "mix.model.d_model, or lower mix.learning_rate, before this answer is trusted"
        )
    if transfer := record["transfer"]:
        yield from (check["sentence"] for check in transfer["checks"])
    else:
        yield "how the ranking carries over to larger models was not checked (mix.scales is empty)"


def write_mix_report(folder: Path) -> Path:
    """Write report.html and surface.png beside the records in WORKDIR/mix; returns the page."""
    record = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
    lines = (folder / "results.jsonl").read_text(encoding="utf-8").splitlines()
    tried = [json.loads(line) for line in lines]
    picture = surface(record, tried)
    (folder / "surface.png").write_bytes(picture)
    html = environment().get_template("mix.html").render(
        record=record,
        workdir=folder.parent,
        rows=by_name(record),
        sentences=list(sentences(record)),
        picture=base64.b64encode(picture).decode(),
        tried=sorted(tried, key=lambda line: line["target"])[:20],
        count=len(tried),
    )  # fmt: skip
    path = folder / "report.html"
    write_text(path, html)
    return path


def by_name(record: Mapping[str, Any]) -> dict[str, Any]:
    """The mixtures that were trained several times."""
    return {row["mixture"]: row for row in record["confirmed"]}


def _spread(row: Mapping[str, Any]) -> str:
    if len(row["losses"]) == 1:
        return ""
    return f"+- {row['spread']:.4f} over {len(row['losses'])} seeds"


def surface(record: Mapping[str, Any], tried: list[dict[str, Any]]) -> bytes:
    """The target's loss over shares, as PNG: a triangle for three sources, else a slice for each
    source, in which the others keep their ratios."""
    from matplotlib.figure import Figure

    names = record["sources"]
    shares_NS = np.array([[line["shares"][name] for name in names] for line in tried])
    target_N = np.array([line["target"] for line in tried])
    found_S = np.array([record["shares"][name] for name in names])
    if len(names) == 3:
        figure = Figure(figsize=(7, 5.6), layout="constrained")
        _triangle(figure, names, shares_NS, target_N, found_S, record)
    else:
        order = np.argsort(-found_S, kind="stable")[:PANELS]
        columns = min(3, len(order))
        rows = -(-len(order) // columns)
        figure = Figure(figsize=(3.6 * columns, 2.8 * rows), layout="constrained")
        axes = figure.subplots(rows, columns, squeeze=False, sharey=True).flat
        for axis in axes[len(order) :]:
            axis.axis("off")
        for axis, source in zip(axes, order, strict=False):
            axis.plot(shares_NS[:, source], target_N, ".", color="0.6")
            if slices := record["surface"]:
                axis.plot(slices["share"], slices["predicted"][source], color="#2f6fd0")
            axis.axvline(found_S[source], color="#d9730d")
            axis.set(title=names[source], xlabel="share", xlim=(-0.02, 1.02))
        low, high = target_N.min(), np.quantile(target_N, 0.95)
        axes[0].set_ylim(low - 0.1 * (high - low), high + 0.1 * (high - low))
        figure.supylabel("loss of the target, nats a token")
    data = io.BytesIO()
    figure.savefig(data, format="png", dpi=120, metadata={"Software": None})
    return data.getvalue()


def _triangle(
    figure: Any, names: list[str], shares_NS: Any, target_N: Any, found_S: Any,
    record: Mapping[str, Any],
) -> None:  # fmt: skip
    axis = figure.subplots()
    corners = np.array([[0.0, 0.0], [1.0, 0.0], [0.5, 0.75**0.5]])
    place_N2 = shares_NS @ corners
    if triangle := record["surface"]:
        points, value = np.array(triangle["shares"]) @ corners, np.array(triangle["predicted"])
    else:
        points, value = place_N2, target_N
    # steep edges would leave one colour for the rest
    levels = np.linspace(value.min(), np.quantile(value, 0.9), 16)
    drawn = axis.tricontourf(*points.T, value, levels=levels, cmap="viridis_r", extend="max")
    figure.colorbar(drawn, ax=axis, label="loss of the target, nats a token", shrink=0.8)
    axis.scatter(*place_N2.T, c="white", s=14, edgecolors="0.2", linewidths=0.6, label="tried")
    own = np.array([by_name(record)["config"]["shares"][name] for name in names]) @ corners
    axis.plot(*own, "s", color="white", markeredgecolor="black", markersize=8, label="config")
    axis.plot(*(found_S @ corners), "*", color="#d9730d", markeredgecolor="white", markersize=17,
              label="found")  # fmt: skip
    for name, (x, y), (dx, dy) in zip(
        names, corners, ((-0.02, -0.04), (0.02, -0.04), (0, 0.03)), strict=True
    ):
        side = "center" if dx == 0 else "right" if dx > 0 else "left"
        axis.text(x + dx, y + dy, f"all {name}", ha=side, va="top" if dy < 0 else "bottom")
    axis.plot(*np.vstack([corners, corners[:1]]).T, color="0.3", linewidth=1)
    axis.set(xlim=(-0.08, 1.08), ylim=(-0.12, 0.95), aspect="equal")
    axis.axis("off")
    axis.legend(loc="upper left", frameon=False)
