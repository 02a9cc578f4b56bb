"""One row of a head as a grid over the picture that the keys are patches of, drawn with matplotlib."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float

from headscope.errors import LookError
from headscope.look.head import Head
from headscope.view.colour import table
from headscope.view.labels import shortened, visible
from headscope.view.map_figure import colours
from headscope.view.paper import DOTS, FAINT, INK, family, in_lines, paper
from headscope.view.regions import Region, regions

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Shares of the weight that lines are drawn around, and how these are dashed.
CONTOURS = ((0.8, (0, (2, 2))), (0.5, "solid"))
SIDE = 3.2  # inches of the longer side of a picture


def of_row(head: Head, query: int, title: str, width: float | None = None) -> Figure:
    """The weights of one query over the picture, with lines around half and four fifths of what lies on it.

    Raises:
        LookError: no such query, or the keys are no patches of a picture.
    """
    if not -len(head.q) <= query < len(head.q):
        raise LookError(f"figure: query {query} does not exist; there are {len(head.q)}, from 0 to {len(head.q) - 1}.")
    found = regions(head.keys)
    if not found:
        raise LookError(
            f"figure: a row is drawn over a picture, and the keys are {head.keys.kind}; leave query out, or give the "
            "keys an hs.Axis.patches(rows, columns)."
        )
    row = head.row(query % len(head.q)).float().cpu().numpy()
    region = found[0]
    part = region.on_grid(row)
    most = float(np.nanmax(part)) if np.isfinite(part).any() else 0.0
    longest = max(region.rows, region.columns)
    wide, high = SIDE * region.columns / longest, SIDE * region.rows / longest
    shrink = 1.0 if width is None else max(0.3, (width - 1.0) / wide)
    figure = paper()(figsize=(width or wide + 1.0, high * shrink + 1.0), dpi=DOTS, layout="constrained")
    axes = figure.add_subplot()
    image = draw_picture(axes, region)
    shown = axes.imshow(
        part, cmap=colours(), vmin=0.0, vmax=most or 1.0, extent=extent(region), interpolation="nearest"
    )
    if image:
        shown.set_alpha(np.nan_to_num(np.clip(0.12 + 0.66 * part / max(most, 1e-12), 0.0, 1.0)))
    if region.cells is not None:
        dim(axes, part, region)
    for share, dash in CONTOURS:
        outline(axes, np.nan_to_num(part), share, dash)
    own = region.cell(query % len(head.q) + len(head.k) - len(head.q))
    if head.queries.kind == head.keys.kind and own is not None:
        mark(axes, own, region)
    bar = figure.colorbar(shown, ax=axes, shrink=0.7, aspect=16, pad=0.02)
    bar.outline.set_visible(False)  # type: ignore[operator, unused-ignore]
    bar.ax.tick_params(length=0, labelsize=7, labelcolor=FAINT)
    axes.axis("off")
    label = shortened(visible(head.queries.labels[query]), 22)
    on_it = f"row of {label}: {np.nansum(part):.2f} of its weight on the picture"
    said = f"{on_it}; lines around half and four fifths of that"
    said, wrap = in_lines(said, figure.get_figwidth(), 7.0)
    axes.set_title(said, fontsize=7, color=FAINT, loc="left", parse_math=False, family=family(), wrap=wrap)
    style: dict[str, Any] = {"fontsize": 9, "fontweight": "bold", "color": INK, "family": family()}
    title, wrap = in_lines(title, figure.get_figwidth(), 9.0)
    figure.suptitle(title, x=0.012, ha="left", parse_math=False, wrap=wrap, **style)
    return figure


def dim(axes: Axes, part: Float[np.ndarray, "rows columns"], region: Region) -> None:
    """A veil over the patches that the axis does not have: what lies outside of a window of the picture."""
    veil = np.ones((*part.shape, 4))
    veil[..., 3] = 0.6 * np.isnan(part)
    axes.imshow(veil, extent=extent(region), interpolation="nearest")


def extent(region: Region) -> tuple[float, float, float, float]:
    """Where a picture lies: one unit for each patch."""
    return (0.0, float(region.columns), float(region.rows), 0.0)


def draw_picture(axes: Axes, region: Region) -> bool:
    """The picture under the weights; whether there is one."""
    if region.thumbnail is None:
        return False
    from matplotlib.image import imread

    pixels = imread(io.BytesIO(region.thumbnail), format="png")
    options: dict[str, Any] = {"cmap": "gray", "vmin": 0.0, "vmax": 1.0} if pixels.ndim == 2 else {}
    axes.imshow(pixels, extent=extent(region), interpolation="bilinear", **options)
    return True


def inside(part: Float[np.ndarray, "rows columns"], share: float) -> np.ndarray:
    """Which patches hold a share of the sum, the heaviest first.

    Example:
        >>> inside(np.array([[0.5, 0.1], [0.3, 0.1]]), 0.8).tolist()
        [[True, False], [True, False]]
    """
    order = np.argsort(-part, axis=None, kind="stable")
    before = np.concatenate([[0.0], np.cumsum(part.ravel()[order])[:-1]])
    found = np.zeros(part.size, dtype=bool)
    found[order[before < share * part.sum() - 1e-9]] = True
    return found.reshape(part.shape)


def outline(axes: Axes, part: Float[np.ndarray, "rows columns"], share: float, dash: Any) -> None:
    """The line around the patches that hold a share of the weight: white on a dark edge, to be seen on any picture."""
    held = np.pad(inside(part, share), 1)
    lines = [((c, r - 1), (c, r)) for r, c in np.argwhere(held[:, 1:] != held[:, :-1])]
    lines += [((c - 1, r), (c, r)) for r, c in np.argwhere(held[1:] != held[:-1])]
    from matplotlib.collections import LineCollection

    for colour, wide, style in (("#000000", 2.0, "solid"), ("#ffffff", 1.0, dash)):
        drawn = LineCollection(lines, colors=colour, linewidths=wide, linestyles=[style], capstyle="projecting")
        drawn.set_gid(f"contour {share}: {int(held.sum())} of {part.size} patches")
        axes.add_collection(drawn)


def mark(axes: Axes, own: int, region: Region) -> None:
    """A frame around the patch that asks."""
    from matplotlib.patches import Rectangle

    shade = tuple(table("light")[-1] / 255.0)
    place = (own % region.columns, own // region.columns)
    axes.add_patch(Rectangle(place, 1, 1, fill=False, edgecolor="#e4572e", linewidth=1.4))
    axes.add_patch(Rectangle(place, 1, 1, fill=False, edgecolor=shade, linewidth=0.4))
