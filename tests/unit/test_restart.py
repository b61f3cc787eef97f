"""The restart rules keep Erlang/OTP's promises for any children and any history."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.restart import (
    ChildSpec,
    GiveUp,
    History,
    Leave,
    Restart,
    RestartType,
    Rules,
    Strategy,
    decide,
    start_order,
)

TYPES: st.SearchStrategy[RestartType] = st.sampled_from(["permanent", "transient", "temporary"])
STRATEGIES: st.SearchStrategy[Strategy] = st.sampled_from(["one_for_one", "rest_for_one", "one_for_all"])


@st.composite
def families(draw: st.DrawFn) -> tuple[ChildSpec, ...]:
    """Any children with distinct names; orders may repeat and are not given in sequence."""
    names = draw(st.lists(st.text("abcdef", min_size=1, max_size=3), min_size=1, max_size=7, unique=True))
    return tuple(ChildSpec(name=name, order=draw(st.integers(0, 5)), restart=draw(TYPES)) for name in names)


@st.composite
def ends(draw: st.DrawFn) -> tuple[tuple[ChildSpec, ...], ChildSpec]:
    """Any children, and the one that ended."""
    children = draw(families())
    return children, draw(st.sampled_from(children))


def _lenient(strategy: Strategy) -> Rules:
    return Rules(strategy=strategy, intensity=1000, period=10)


@given(ends(), STRATEGIES, st.booleans())
def test_the_type_decides_who_comes_back(
    end: tuple[tuple[ChildSpec, ...], ChildSpec], strategy: Strategy, normal: bool
) -> None:
    """Permanent always comes back, transient only after a crash, temporary never."""
    children, ended = end
    decision = decide(_lenient(strategy), children, ended, normal=normal, history=(), now=0.0)
    back = ended.restart == "permanent" or (ended.restart == "transient" and not normal)
    if back:
        assert isinstance(decision, Restart)
        assert ended.name in decision.start
    else:
        assert decision == Leave()


@given(ends(), STRATEGIES)
def test_starts_ascend_and_stops_descend(
    end: tuple[tuple[ChildSpec, ...], ChildSpec], strategy: Strategy
) -> None:
    """Children are started in start order and stopped in the reverse of it."""
    children, ended = end
    decision = decide(_lenient(strategy), children, ended, normal=False, history=(), now=0.0)
    if isinstance(decision, Restart):
        ranks = {child.name: rank for rank, child in enumerate(start_order(children))}
        starts = [ranks[name] for name in decision.start]
        stops = [ranks[name] for name in decision.stop]
        assert starts == sorted(starts)
        assert stops == sorted(stops, reverse=True)
        assert len(set(starts)) == len(starts)
        assert len(set(stops)) == len(stops)


@given(ends())
def test_one_for_one_touches_nobody_else(end: tuple[tuple[ChildSpec, ...], ChildSpec]) -> None:
    """Under one_for_one only the child that ended is started and nobody is stopped."""
    children, ended = end
    decision = decide(_lenient("one_for_one"), children, ended, normal=False, history=(), now=0.0)
    if isinstance(decision, Restart):
        assert (decision.stop, decision.start) == ((), (ended.name,))


@given(ends())
def test_rest_for_one_touches_later_ones_only(end: tuple[tuple[ChildSpec, ...], ChildSpec]) -> None:
    """Under rest_for_one exactly the later children share the fate of the one that ended."""
    children, ended = end
    decision = decide(_lenient("rest_for_one"), children, ended, normal=False, history=(), now=0.0)
    if isinstance(decision, Restart):
        ranked = start_order(children)
        later = ranked[ranked.index(ended) + 1 :]
        assert set(decision.stop) == {child.name for child in later}
        assert set(decision.start) == {ended.name} | {c.name for c in later if c.restart != "temporary"}


@given(ends())
def test_one_for_all_touches_everyone(end: tuple[tuple[ChildSpec, ...], ChildSpec]) -> None:
    """Under one_for_all every sibling is stopped and all but temporary ones are started."""
    children, ended = end
    decision = decide(_lenient("one_for_all"), children, ended, normal=False, history=(), now=0.0)
    if isinstance(decision, Restart):
        assert set(decision.stop) == {child.name for child in children if child is not ended}
        assert set(decision.start) == {child.name for child in children if child.restart != "temporary"}


@given(ends(), STRATEGIES)
def test_temporary_children_never_come_back(
    end: tuple[tuple[ChildSpec, ...], ChildSpec], strategy: Strategy
) -> None:
    """A temporary child that a sibling's end took down is not started again."""
    children, ended = end
    decision = decide(_lenient(strategy), children, ended, normal=False, history=(), now=0.0)
    if isinstance(decision, Restart):
        temporary = {child.name for child in children if child.restart == "temporary"}
        assert temporary.isdisjoint(decision.start)


@given(
    st.lists(st.floats(0, 50, allow_nan=False), max_size=60).map(sorted),
    st.integers(0, 5),
    st.floats(0.1, 20, allow_nan=False),
    STRATEGIES,
)
def test_gives_up_exactly_at_the_intensity(
    instants: list[float], intensity: int, period: float, strategy: Strategy
) -> None:
    """A supervisor gives up at the first crash with more than ``intensity`` restarts in ``period``."""
    children = (ChildSpec(name="a", order=1), ChildSpec(name="b", order=2))
    rules = Rules(strategy=strategy, intensity=intensity, period=period)
    history: History = ()
    for index, now in enumerate(instants):
        within = sum(now - at <= period for at in instants[: index + 1])
        decision = decide(rules, children, children[0], normal=False, history=history, now=now)
        if within > intensity:
            assert isinstance(decision, GiveUp)
            return
        assert isinstance(decision, Restart)
        history = decision.history


@given(ends(), STRATEGIES)
def test_giving_up_stops_everyone_in_reverse(
    end: tuple[tuple[ChildSpec, ...], ChildSpec], strategy: Strategy
) -> None:
    """Giving up stops every other child, last started first."""
    children, ended = end
    rules = Rules(strategy=strategy, intensity=0, period=1)
    decision = decide(rules, children, ended, normal=False, history=(), now=0.0)
    if ended.restart == "temporary":
        assert decision == Leave()
    else:
        assert isinstance(decision, GiveUp)
        assert decision.stop == tuple(c.name for c in reversed(start_order(children)) if c is not ended)
        assert ended.name in decision.reason


@given(st.lists(st.floats(0, 1000, allow_nan=False), max_size=200).map(sorted))
def test_the_history_stays_bounded(instants: list[float]) -> None:
    """The remembered history never holds more than ``intensity`` instants."""
    child = ChildSpec(name="a")
    rules = Rules(intensity=3, period=5)
    history: History = ()
    for now in instants:
        decision = decide(rules, (child,), child, normal=False, history=history, now=now)
        if isinstance(decision, Restart):
            history = decision.history
            assert len(history) <= 3


def test_a_period_includes_its_end() -> None:
    """A restart exactly ``period`` seconds ago still counts, one just before it does not."""
    child = ChildSpec(name="a")
    rules = Rules(intensity=1, period=5)
    assert isinstance(decide(rules, (child,), child, normal=False, history=(0.0,), now=5.0), GiveUp)
    assert isinstance(decide(rules, (child,), child, normal=False, history=(0.0,), now=5.01), Restart)


def test_a_normal_end_of_a_permanent_child_counts() -> None:
    """A permanent child that keeps ending on purpose exhausts the intensity too."""
    child = ChildSpec(name="a")
    decision = decide(Rules(intensity=0, period=1), (child,), child, normal=True, history=(), now=0.0)
    assert isinstance(decision, GiveUp)


@pytest.mark.parametrize(("intensity", "period"), [(-1, 5.0), (1, 0.0), (1, -2.0)])
def test_impossible_rules_are_refused(intensity: int, period: float) -> None:
    """Rules with a negative intensity or no period cannot be made."""
    with pytest.raises(ValueError, match="intensity"):
        Rules(intensity=intensity, period=period)
