"""The pure tree: selection, blend, backpropagation and serialisation."""

from __future__ import annotations

import json
import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from perseid.search.tree import Node, Tree, Ucb, backpropagate, blend

REFERENCE = Ucb(exploration=0.5, unvisited="bonus", unvisited_bonus=8.0)


def grown(*values: float | None) -> Tree:
    tree = Tree("question")
    for number, value in enumerate(values):
        tree.add(tree.root, f"step {number}", value=value)
    tree.root.expanded = True
    return tree


def test_s02_a_childs_state_is_its_parents_and_exactly_one_step():
    tree = Tree("question")
    parent = tree.add(tree.root, "first")
    child = tree.add(parent, "second")
    assert tree.path(tree.root) == ()
    assert tree.path(child) == (*tree.path(parent), "second")
    assert tree.key(child) == "r.0.0"


def test_s02_a_stored_tree_is_read_back_byte_for_byte():
    tree = grown(1.5, None)
    tree.nodes[1].evidence = {"ladder": 1.5, "band": "erroneous"}
    tree.nodes[2].reflection = "prüfe 0.5"
    assert Tree.from_dict(json.loads(tree.to_json())).to_json() == tree.to_json()


@pytest.mark.parametrize(("field", "value"), [("parent", 2), ("children", [2]), ("id", 7)])
def test_a_stored_tree_with_broken_links_is_refused(field, value):
    data = grown(1.0, 2.0).to_dict()
    data["nodes"][1][field] = value
    with pytest.raises(ValueError, match="not linked"):
        Tree.from_dict(data)


def test_a_stored_tree_with_unknown_fields_is_refused():
    data = grown(1.0).to_dict()
    data["nodes"][1]["colour"] = "red"
    with pytest.raises(ValueError, match="colour"):
        Tree.from_dict(data)


def test_an_empty_step_is_refused():
    tree = Tree("question")
    with pytest.raises(ValueError, match="empty"):
        tree.add(tree.root, " ")


def test_s03_ucb1_is_the_formula_computed_by_hand():
    tree = grown(6.0, 5.0)
    tree.root.visits = 10
    tree.nodes[1].visits, tree.nodes[2].visits = 8, 2
    # 6 + 0.5 * sqrt(2 ln 10 / 8) and 5 + 0.5 * sqrt(2 ln 10 / 2)
    assert REFERENCE.score(tree.root, tree.nodes[1]) == pytest.approx(6.379356782, abs=1e-9)
    assert REFERENCE.score(tree.root, tree.nodes[2]) == pytest.approx(5.758713565, abs=1e-9)
    assert REFERENCE.best(tree.root, tree.children(tree.root)) == [tree.nodes[1]]
    wide = Ucb(2.0, "bonus", 8.0)
    assert wide.best(tree.root, tree.children(tree.root)) == [tree.nodes[2]]


def test_s03_a_first_visit_adds_the_bonus_and_no_more():
    tree = grown(9.0, 0.5)
    tree.root.visits = tree.nodes[1].visits = 1
    assert REFERENCE.score(tree.root, tree.nodes[2]) == pytest.approx(8.5, abs=1e-9)
    assert REFERENCE.best(tree.root, tree.children(tree.root)) == [tree.nodes[1]]
    assert Ucb(0.5, "first", 8.0).best(tree.root, tree.children(tree.root)) == [tree.nodes[2]]


def test_s03_among_unvisited_children_that_come_first_the_most_valuable_comes_first():
    tree = grown(2.0, 7.0, 7.0)
    assert Ucb(0.5, "first", 0).best(tree.root, tree.children(tree.root)) == tree.nodes[2:]


def test_s03_a_child_without_a_value_comes_after_every_child_that_has_one():
    tree = grown(None, 0.0)
    tree.root.visits = tree.nodes[2].visits = 5
    assert REFERENCE.best(tree.root, tree.children(tree.root)) == [tree.nodes[2]]
    tree.close(tree.nodes[2])
    assert REFERENCE.best(tree.root, tree.children(tree.root)) == [tree.nodes[1]]


def test_s10_the_blend_is_the_formula_computed_by_hand():
    assert blend(4.0, 9.0, 0.5) == pytest.approx(6.5, abs=1e-9)
    assert blend(4.0, 9.0, 0.25) == pytest.approx(5.25, abs=1e-9)
    assert blend(None, 9.0, 0.5) == 9.0
    assert blend(4.0, None, 0.5) == 4.0
    assert blend(None, None, 0.5) is None


def three_levels() -> Tree:
    """Root with A = 4, B = 7; A with C = 6, D = 9."""
    tree = grown(4.0, 7.0)
    tree.add(tree.nodes[1], "c", value=6.0)
    tree.add(tree.nodes[1], "d", value=9.0)
    return tree


def test_s11_visit_weighted_backpropagation_equals_the_tree_computed_by_hand():
    tree = three_levels()
    root, a, b, c, d = tree.nodes
    backpropagate(tree, [b])  # B visited: the root has B's 7.
    assert (root.visits, root.value) == (1, 7.0)
    backpropagate(tree, [c])  # C visited once: A = 6; the root = (6 * 1 + 7 * 1) / 2.
    assert (c.visits, a.visits, root.visits) == (1, 1, 2)
    assert a.value == pytest.approx(6.0, abs=1e-9)
    assert root.value == pytest.approx(6.5, abs=1e-9)
    backpropagate(tree, [c])
    backpropagate(tree, [d])  # A = (6 * 2 + 9 * 1) / 3 = 7 over 3 visits; the root = (7 * 3 + 7 * 1) / 4.
    assert a.value == pytest.approx(7.0, abs=1e-9)
    assert (a.visits, root.visits) == (3, 4)
    assert root.value == pytest.approx(7.0, abs=1e-9)


def test_s11_all_children_backpropagation_equals_the_tree_computed_by_hand():
    tree = three_levels()
    root, a, b, c, d = tree.nodes
    backpropagate(tree, [a, b])
    assert (root.visits, root.value) == (2, 5.5)
    backpropagate(tree, [c, d])  # A = (6 + 9) / 2 over 3 visits; the root = (7.5 * 3 + 7 * 1) / 4.
    assert (c.visits, d.visits, a.visits, root.visits) == (1, 1, 3, 4)
    assert a.value == pytest.approx(7.5, abs=1e-9)
    assert root.value == pytest.approx(7.375, abs=1e-9)


def test_s11_a_child_without_a_value_feeds_nothing_to_its_parent():
    tree = grown(None, 3.0)
    backpropagate(tree, tree.children(tree.root))
    assert (tree.root.visits, tree.root.value) == (2, 3.0)


def test_backpropagation_from_nodes_that_are_no_siblings_is_refused():
    tree = three_levels()
    with pytest.raises(ValueError, match="siblings"):
        backpropagate(tree, [tree.nodes[1], tree.nodes[3]])


def test_closing_the_last_open_child_closes_the_parents():
    tree = three_levels()
    root, a, b, c, d = tree.nodes
    tree.close(c)
    assert not a.closed
    tree.close(d)
    assert a.closed
    assert not root.closed
    tree.close(b)
    assert root.closed


@st.composite
def walks(draw):
    """A tree grown at random with random visits, and which of both modes was used."""
    tree = Tree("q")
    together = draw(st.booleans())
    for _ in range(draw(st.integers(1, 8))):
        leaves = [node for node in tree.nodes if not node.children]
        leaf = draw(st.sampled_from(leaves))
        values = draw(st.lists(st.one_of(st.none(), st.floats(0, 10)), min_size=1, max_size=4))
        children = [tree.add(leaf, f"s{i}", value=value) for i, value in enumerate(values)]
        leaf.expanded = True
        backpropagate(tree, children if together else [draw(st.sampled_from(children))])
    return tree


@given(walks())
def test_a_parents_visits_are_at_least_the_sum_of_its_childrens(tree: Tree):
    for node in tree.nodes:
        assert node.visits >= sum(child.visits for child in tree.children(node))


@given(walks())
def test_values_stay_between_the_lowest_and_the_highest_value_below(tree: Tree):
    for node in tree.nodes:
        below = [child.value for child in tree.children(node) if child.visits and child.value is not None]
        if below and node.value is not None:
            assert min(below) - 1e-9 <= node.value <= max(below) + 1e-9


@given(walks())
def test_every_grown_tree_survives_serialisation(tree: Tree):
    assert Tree.from_dict(json.loads(tree.to_json())).to_json() == tree.to_json()


@settings(max_examples=50)
@given(walks(), st.sampled_from([0.0, 0.5, 3.0]))
def test_selection_takes_an_open_child_that_no_other_beats(tree: Tree, exploration: float):
    ucb = Ucb(exploration, "bonus", 8.0)
    best = ucb.best(tree.root, tree.children(tree.root))
    top = ucb.score(tree.root, best[0])
    assert all(ucb.score(tree.root, child) <= top for child in tree.children(tree.root))
    assert all(ucb.score(tree.root, child) == top or math.isclose(ucb.score(tree.root, child), top) for child in best)


def test_s12_the_best_path_has_the_highest_value_and_ties_go_to_the_deeper_one():
    tree = three_levels()
    tree.nodes[3].value = 7.0
    tree.nodes[4].value = None
    assert [node.id for node in tree.ranked(min_steps=1)] == [3, 2, 1, 4]
    assert [node.id for node in tree.ranked(min_steps=2)] == [3, 4]
    assert [node.id for node in tree.ranked(min_steps=3)] == [3, 2, 1, 4]


def test_a_new_node_has_been_neither_visited_nor_closed():
    assert Node(id=1, step="s", parent=0, depth=1) == Tree("q").add(Tree("q").root, "s")
