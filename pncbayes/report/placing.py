"""Labels that find free places in a crowded panel, when it is drawn."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.text import Annotation
from matplotlib.transforms import Bbox

from pncbayes.report.drawing import Array

__all__ = ["FreePlaces"]

Side = Literal["left", "center", "right"]

# Distances of a label from its point, in points.
_REACHES = (8.0, 14.0, 22.0, 32.0, 44.0)
_DIRECTIONS = 16
# Half the size of a marker, and room around it, in points.
_MARKER = 4.0


class FreePlaces(Artist):
    """Moves annotations, just before they are drawn, to where they cover nothing.

    Sizes and the layout of the page are known then, and not before. Each label takes the nearest
    place that is free and inside the panel, or, where there is none, the least covered.

    Parameters
    ----------
    ax
        The panel.
    labels
        Annotations of the panel, in offset points; the first choose first.
    shapes
        What they keep off, in data coordinates, each of shape ``(n, 2)``: the points of one shape.
    others
        Texts they keep off.
    """

    def __init__(
        self, ax: Axes, labels: list[Annotation], shapes: list[Array], others: list[Artist]
    ) -> None:
        super().__init__()
        self._panel, self._labels = ax, labels
        self._shapes, self._others = shapes, others
        self.set_zorder(min([2.9, *(label.get_zorder() - 0.1 for label in labels)]))
        self.set_in_layout(False)

    def draw(self, renderer: Any) -> None:
        """Place the labels; they draw themselves afterwards."""
        pixels = renderer.points_to_pixels(1.0)
        room = _MARKER * pixels
        frame = self._panel.get_window_extent(renderer)
        taken = []
        for shape in self._shapes:
            at = self._panel.transData.transform(shape)
            taken.append(Bbox([at.min(axis=0) - room, at.max(axis=0) + room]))
        taken += [other.get_window_extent(renderer) for other in self._others]
        for label in self._labels:
            own = label.get_window_extent(renderer)
            at = self._panel.transData.transform(label.xy)
            offset, side, box = _free_place(at, own.width, own.height, pixels, taken, frame)
            label.set_position(tuple(offset / pixels))
            label.set_horizontalalignment(side)
            taken.append(box)
        self.stale = False


def _free_place(
    at: Array, width: float, height: float, pixels: float, taken: list[Bbox], frame: Bbox
) -> tuple[Array, Side, Bbox]:
    """Offset from a point, the side that is aligned, and the box, all in pixels."""
    best = np.inf
    found: tuple[Array, Side, Bbox] = np.zeros(2), "left", Bbox.unit()
    for number, reach in enumerate(_REACHES):
        for turn in range(_DIRECTIONS):
            angle = 2.0 * np.pi * turn / _DIRECTIONS
            offset = reach * pixels * np.array([np.cos(angle), np.sin(angle)])
            side: Side
            side = "left" if offset[0] > pixels else "right" if offset[0] < -pixels else "center"
            shift = {"left": 0.0, "center": 0.5 * width, "right": width}[side]
            corner = at + offset - np.array([shift, 0.5 * height])
            box = Bbox([corner, corner + np.array([width, height])])
            area = sum(_overlap(box, other) for other in taken)
            area += 3.0 * (width * height - _overlap(box, frame))
            # of places that are as free, the nearest, and to the right
            cost = area + width * height * (0.02 * number + 1e-4 * turn)
            if cost < best:
                best, found = cost, (offset, side, box)
    return found


def _overlap(one: Bbox, other: Bbox) -> float:
    width = min(one.x1, other.x1) - max(one.x0, other.x0)
    height = min(one.y1, other.y1) - max(one.y0, other.y0)
    return float(max(width, 0.0) * max(height, 0.0))
