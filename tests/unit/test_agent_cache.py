"""The agent's cache: what answers, what is kept, what goes first."""

from __future__ import annotations

import json
import random
from collections import OrderedDict

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.cache import OVERHEAD, Cache, Entry, Key, Packing
from agent.clocks import Instant

NOW = Instant(wall=1_000_000.0, boot=500.0)


def entry(data: bytes = b"{}", ttl: float = 300, stale: float = 86_400, version: int = 1) -> Entry:
    """Return an entry that was read at :data:`NOW`."""
    return Entry(
        data=data,
        version=version,
        created_time="",
        fresh_until=NOW.after(ttl),
        stale_until=NOW.after(stale),
    )


def store(cache: Cache, key: Key, value: Entry) -> list[Key]:
    """Read and store without anything moving."""
    with cache.reading(key.path) as reading:
        return cache.store(key, value, reading)


def key(number: int, application: str = "a") -> Key:
    """Return a key of an application."""
    return Key(application, f"secrets/{number:04}")


@pytest.mark.parametrize(
    ("wall", "boot", "fresh", "usable"),
    [
        (0, 0, True, True),
        (299, 299, True, True),
        (300, 300, False, True),
        (-100_000, 301, False, True),
        (301, 10, False, True),
        (-100_000, 86_401, False, False),
        (86_401, 10, False, False),
    ],
)
def test_a_deadline_holds_on_both_clocks(wall: float, boot: float, fresh: bool, usable: bool) -> None:
    """Setting the wall clock back prolongs nothing, and neither does a boot clock that began anew."""
    later = Instant(NOW.wall + wall, NOW.boot + boot)
    assert entry().is_fresh(later) is fresh
    assert entry().is_usable(later) is usable


def test_the_least_recently_used_goes_first() -> None:
    """Being asked for counts as use; having been stored early does not matter."""
    cache = Cache(max_entries=3, max_bytes=2**20)
    for number in (1, 2, 3):
        store(cache, key(number), entry())
    assert cache.get(key(1)) is not None
    assert store(cache, key(4), entry()) == [key(2)]
    assert cache.peek(key(1)) is not None


def test_being_read_again_is_no_use() -> None:
    """A refresh in the background does not make an entry young."""
    cache = Cache(max_entries=2, max_bytes=2**20)
    store(cache, key(1), entry())
    store(cache, key(2), entry())
    store(cache, key(1), entry(version=2))
    assert store(cache, key(3), entry()) == [key(1)]


@given(st.integers(1, 6), st.lists(st.tuples(st.booleans(), st.integers(0, 9)), max_size=60))
def test_it_is_a_true_lru(limit: int, steps: list[tuple[bool, int]]) -> None:
    """Whatever the order of reads and stores, exactly the least recently used entries are gone."""
    cache, model = Cache(max_entries=limit, max_bytes=2**30), OrderedDict[Key, None]()
    for asks, number in steps:
        wanted = key(number)
        if asks:
            assert (cache.get(wanted) is not None) == (wanted in model)
            if wanted in model:
                model.move_to_end(wanted)
        else:
            store(cache, wanted, entry())
            model.setdefault(wanted)
            if len(model) > limit:
                model.popitem(last=False)
    assert [k for k in map(key, range(10)) if cache.peek(k)] == sorted(model)


def test_bytes_are_bounded_and_counted_exactly() -> None:
    """The sum of all entries never exceeds the limit, and comes back to nothing."""
    cache, source = Cache(max_entries=1_000, max_bytes=20_000), random.Random(1)
    for _step in range(500):
        store(cache, key(source.randrange(20), source.choice("ab")), entry(b"x" * source.randrange(3_000)))
        assert cache.size <= 20_000
    for number in range(20):
        cache.drop(key(number).path, None, every_version=True)
    assert (cache.size, len(cache)) == (0, 0)


def test_an_entry_above_the_limit_is_not_kept() -> None:
    """A secret larger than the whole cache pushes nothing out, and its older value goes."""
    cache = Cache(max_entries=10, max_bytes=OVERHEAD * 3)
    store(cache, key(1), entry())
    store(cache, key(2), entry())
    assert store(cache, key(1), entry(b"x" * OVERHEAD * 3)) == [key(1)]
    assert cache.peek(key(1)) is None
    assert cache.peek(key(2)) is not None


def test_one_application_cannot_push_out_another() -> None:
    """Who holds most gives way, so a greedy application only displaces itself."""
    cache = Cache(max_entries=10, max_bytes=2**20)
    store(cache, key(1, "modest"), entry())
    for number in range(100):
        store(cache, key(number, "greedy"), entry())
    assert cache.peek(key(1, "modest")) is not None
    assert len(cache) == 10


def test_the_same_value_read_again_takes_no_more_room() -> None:
    """A refresh that finds the same keeps the bytes that are there."""
    cache = Cache(max_entries=10, max_bytes=2**20)
    first, again = entry(bytes(bytearray(b"value"))), entry(bytes(bytearray(b"value")), version=2)
    store(cache, key(1), first)
    store(cache, key(1), again)
    held = cache.peek(key(1))
    assert held is not None
    assert (held.data is first.data, held.version) == (True, 2)


def test_fields_are_packed_whatever_their_size() -> None:
    """One after the other, larger and smaller, each is its own JSON."""
    packing = Packing()
    for size in (3, 100_000, 0):
        assert json.loads(packing.pack({"value": "x" * size})) == {"value": "x" * size}


def test_applications_do_not_see_each_other() -> None:
    """An entry answers the application that read it and nobody else."""
    cache = Cache(max_entries=10, max_bytes=2**20)
    store(cache, key(1, "a"), entry())
    assert cache.get(key(1, "b")) is None


@pytest.mark.parametrize("everything", [False, True])
def test_what_moved_while_it_was_read_is_not_kept(everything: bool) -> None:
    """A change during a read means that the value may be older than the change."""
    cache = Cache(max_entries=10, max_bytes=2**20)
    with cache.reading(key(1).path) as reading:
        if everything:
            cache.changed_all()
        else:
            cache.changed(key(1).path)
        cache.store(key(1), entry(), reading)
    assert cache.peek(key(1)) is None


def test_a_change_of_another_path_does_not_matter() -> None:
    """A read is kept although something else changed meanwhile."""
    cache = Cache(max_entries=10, max_bytes=2**20)
    with cache.reading(key(1).path) as reading:
        cache.changed(key(2).path)
        cache.store(key(1), entry(), reading)
    assert cache.peek(key(1)) is not None


def test_a_changed_entry_only_answers_in_need() -> None:
    """After a change the entry is not fresh any more, but still usable while Core is away."""
    cache = Cache(max_entries=10, max_bytes=2**20)
    store(cache, key(1), entry())
    cache.changed(key(1).path)
    held = cache.get(key(1))
    assert held is not None
    assert not held.is_fresh(NOW)
    assert held.is_usable(NOW)


def test_what_an_earlier_run_left_only_answers_in_need() -> None:
    """An entry from disk is never fresh: changes since it was written are not known."""
    cache = Cache(max_entries=10, max_bytes=2**20)
    cache.restore(key(1), entry())
    held = cache.get(key(1))
    assert held is not None
    assert not held.is_fresh(NOW)
    assert held.is_usable(NOW)


def test_what_ended_is_forgotten() -> None:
    """Entries past both deadlines are removed, others stay."""
    cache = Cache(max_entries=10, max_bytes=2**20)
    store(cache, key(1), entry(stale=10, ttl=10))
    store(cache, key(2), entry())
    assert cache.expire(NOW.after(20)) == [key(1)]
    assert len(cache) == 1


def test_clearing_also_voids_what_is_being_read() -> None:
    """After clear() nothing comes back, not even from a read that began before."""
    cache = Cache(max_entries=10, max_bytes=2**20)
    store(cache, key(2), entry())
    with cache.reading(key(1).path) as reading:
        cache.clear()
        cache.store(key(1), entry(), reading)
    assert len(cache) == 0


def test_versions_are_dropped_alone_or_together() -> None:
    """A missing version goes alone; a path that may not be read goes with all its versions."""
    cache = Cache(max_entries=10, max_bytes=2**20)
    newest, second = Key("a", "secrets/x"), Key("a", "secrets/x", 2)
    store(cache, newest, entry())
    store(cache, second, entry())
    assert cache.drop("secrets/x", 2, every_version=False) == [second]
    store(cache, second, entry())
    assert set(cache.drop("secrets/x", None, every_version=True)) == {newest, second}


def test_what_one_application_may_not_read_stays_for_others() -> None:
    """A path is dropped for those whom it concerns alone."""
    cache = Cache(max_entries=10, max_bytes=2**20)
    mine, theirs = key(1, "a"), key(1, "b")
    store(cache, mine, entry())
    store(cache, theirs, entry())
    assert cache.drop(mine.path, None, every_version=True, held_by=lambda name: name == "a") == [mine]
    assert cache.peek(theirs) is not None
