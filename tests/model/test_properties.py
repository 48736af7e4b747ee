"""The properties of nested graphs over random nests; `properties` says what they are."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import hypothesis.strategies as st
import pytest
from hypothesis import given, settings

from tests.model.properties import PROPERTIES, Way, place_of, way_of
from tests.support.graphs import STEADY
from tests.support.journey import Journey, Shelf, shelf
from tests.support.nests import Nest, Node, World, nests, seeded

pytestmark = pytest.mark.filterwarnings("ignore::pregel.warnings.PregelWarning")
"""Random graphs have nodes that nobody reaches and joins that stay half full."""

FEW = settings(STEADY, max_examples=8)
WAYS = st.builds(Way, st.booleans(), st.sampled_from(["sync", "async", "exit"]), st.integers(0, 2**16))


@pytest.mark.parametrize("name", PROPERTIES)
@given(nest=nests(), way=WAYS, lags=st.booleans())
@FEW
def test_small_nests(name: str, nest: Nest, way: Way, lags: bool) -> None:
    with shelf(lags=lags) as place:
        PROPERTIES[name](nest, way, place)


@pytest.mark.parametrize("name", PROPERTIES)
def test_seeds(name: str) -> None:
    """Nests larger than those that hypothesis likes to draw; every fourth on a file."""
    applied = 0
    for seed in range(6):
        with place_of(seed) as place:
            applied += PROPERTIES[name](seeded(seed), way_of(seed), place)
    assert applied > 3


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(PROPERTIES.keys() - {"branched"}))
def test_many_seeds(name: str) -> None:
    """Slow: each seed is a conversation, or several."""
    for seed in range(100, 140):
        with place_of(seed) as place:
            PROPERTIES[name](seeded(seed), way_of(seed), place)


def features() -> dict[str, Callable[[Nest, Node], Any]]:
    """What nests are to have, and how it is seen."""
    return {
        "asks": lambda nest, node: node.asks > 1 or node.asks_late,
        "asks in a handler": lambda nest, node: node.handled and node.handler_asks,
        "is tried again": lambda nest, node: node.fails and node.attempts > node.fails,
        "stumbles": lambda nest, node: node.stumbles,
        "rises": lambda nest, node: node.rises,
        "sends to a nest": lambda nest, node: node.inner and _is_sent(nest, node.name),
        "a node": lambda nest, node: node.inner and node.how == "node",
        "called twice": lambda nest, node: node.inner and node.how == "serial" and node.times > 1,
        "called in parallel": lambda nest, node: node.inner and node.how == "parallel" and node.times > 1,
        "stateful": lambda nest, node: node.inner and node.inner.saves is True,
        "unsaved": lambda nest, node: node.inner and node.inner.saves is False,
        "deferred": lambda nest, node: node.deferred,
        "joined": lambda nest, node: any(target == node.name for _, target in nest.joins),
        "a stop": lambda nest, node: node.name in (*nest.before, *nest.after),
    }


def _is_sent(nest: Nest, name: str) -> bool:
    routes = [route for node in nest.nodes for route in (node.goto, node.branch) if route]
    return any(f"!{name}" in option for route in routes for option in route.options)


@pytest.mark.parametrize("feature", features())
def test_nests_have_the_features(feature: str) -> None:
    """Below the root as well, where the feature may be there."""
    has = features()[feature]
    depths = {
        depth
        for seed in range(150)
        for depth, nest in enumerate(seeded(seed).walk())
        for node in nest.nodes
        if has(nest, node)
    }
    assert depths
    assert max(depths) > 0


def test_nests_are_three_deep_and_ask_there() -> None:
    deepest = 0
    for seed in range(40):
        world = World()
        journey = Journey(seeded(seed), world, Shelf(), Way(seed=seed))
        for _ in range(4):
            journey.step()
        deepest = max([deepest, *(len(event.place) for event in world.events)])
    assert deepest == 3


def test_a_place_on_a_file_is_opened_anew(tmp_path: Path) -> None:
    with shelf(tmp_path / "t.sqlite") as place:
        journey = Journey(seeded(1), World(), place, Way())
        before = place.saver
        journey.restart()
        assert place.saver is not before
