"""A search tree in one picture: a dot for each step, its area by visits, its colour by value, the best path strong."""

from __future__ import annotations

import math
from collections.abc import Iterator

from markupsafe import Markup

from perseid.report.trees import NodeView

ACROSS, DOWN, MARGIN = 20, 34, 14
BEST_VALUE = 10.0
"""Values are scores from 0 to 10."""


def tree_plot(root: NodeView, prefix: str, title: str) -> Markup:
    """The tree from the top down. Each dot is a link to the element whose id is `prefix` and the step's number."""
    places: dict[int, tuple[float, int]] = {}
    leaves = 0
    # Children before their parents: a parent stands above the middle of its children.
    ordered = list(walk(root))
    for node, depth in reversed(ordered):
        if node.children:
            across = sum(places[id(child)][0] for child in node.children) / len(node.children)
        else:
            across, leaves = float(leaves), leaves + 1
        places[id(node)] = (across, depth)
    # Counted from the last leaf on: turned round, the first child stands left.
    spots = {
        key: (MARGIN + ACROSS * (leaves - 1 - across), MARGIN + DOWN * depth) for key, (across, depth) in places.items()
    }
    edges = (
        Markup('<line class="{}" x1="{:.1f}" y1="{}" x2="{:.1f}" y2="{}"/>').format(
            "edge best" if child.best else "edge", *spots[id(node)], *spots[id(child)]
        )
        for node, _ in ordered
        for child in node.children
    )
    most = max(max(node.visits for node, _ in ordered), 1)
    dots = (_dot(node, spots[id(node)], most, prefix) for node, _ in ordered)
    wide = 2 * MARGIN + ACROSS * max(leaves - 1, 0)
    high = 2 * MARGIN + DOWN * max(depth for _, depth in ordered)
    return Markup(
        '<svg class="tree-plot" viewBox="0 0 {w} {h}" width="{w}" height="{h}" role="img" aria-label="{}">{}{}</svg>'
    ).format(title, Markup("").join(edges), Markup("").join(dots), w=wide, h=high)


def walk(root: NodeView) -> Iterator[tuple[NodeView, int]]:
    """Every shown node and its depth, parents first and each child's descendants before the next child."""
    stack = [(root, 0)]
    while stack:
        node, depth = stack.pop()
        yield node, depth
        stack += [(child, depth + 1) for child in reversed(node.children)]


def _dot(node: NodeView, spot: tuple[float, float], most: int, prefix: str) -> Markup:
    x, y = spot
    if node.id == 0:
        return Markup('<rect class="root" x="{:.1f}" y="{:.1f}" width="10" height="10"/>').format(x - 5, y - 5)
    share = None if node.value is None else min(max(node.value / BEST_VALUE, 0.0), 1.0)
    told = f"value {'unknown' if node.value is None else f'{node.value:.1f}'}, {node.visits} visits"
    # Out of the order of keys: the same steps can be reached in the list below.
    return Markup(
        '<a href="#{}{}" tabindex="-1"><circle class="dot{}" cx="{:.1f}" cy="{}" r="{:.1f}" style="--v:{:.2f}">'
        "<title>{}</title></circle></a>"
    ).format(
        prefix,
        node.id,
        (" best" if node.best else "") + (" unknown" if share is None else ""),
        x,
        y,
        3.5 + 4.5 * math.sqrt(node.visits / most),
        share or 0.0,
        told,
    )
