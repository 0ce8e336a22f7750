from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedloom.core.errors import RunError
from fedloom.store.usage import Usage


@pytest.fixture
def usages(tmp_path):
    opened = []

    def usage(app="app", run="run 1"):
        opened.append(Usage(tmp_path / "usage.db", app, run))
        return opened[-1]

    yield usage
    for one in opened:
        one.close()


def test_counters_survive_being_opened_again(usages):
    assert usages().spend("round", 3)
    assert usages().spent("round") == 3


def test_kinds_runs_and_apps_are_counted_apart(usages):
    usages().spend("round")
    usages().spend("query", 2)
    usages(run="run 2").spend("round", 4)
    usages(app="other").spend("round", 8)
    assert (usages().spent("round"), usages().spent("query")) == (1, 2)
    assert usages(run="run 2").spent("round") == 4
    assert usages(app="other").spent("round") == 8
    assert usages(run="run 3").spent("round") == 0


@settings(max_examples=20)  # each makes a file, and writes it through
@given(st.lists(st.integers(1, 4), max_size=8), st.integers(1, 12))
def test_never_more_than_the_most_and_never_less_than_was_granted(tmp_path_factory, wanted, most):
    usage, granted = Usage(tmp_path_factory.mktemp("usage") / "usage.db", "app", "run"), 0
    for number in wanted:
        fits = granted + number <= most
        assert usage.spend("round", number, most) is fits
        granted += number if fits else 0
    assert usage.spent("round") == granted
    usage.close()


def test_several_at_once_get_no_more_than_there_is(usages):
    """Eight connections to one file, 20 tries each for 50 in all."""

    def greedy(usage):
        return sum(usage.spend("round", most=50) for _ in range(20))

    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(greedy, [usages() for _ in range(8)])) == 50
    assert usages().spent("round") == 50


def test_a_commit_is_written_through_to_the_disk(usages):
    usage = usages()
    assert usage.spend("round")
    connection = usage._database._connection
    assert connection.execute("PRAGMA synchronous").fetchone() == (2,)  # FULL: fsync before it returns
    assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)


def test_runs_of_an_app_are_counted_once_each(usages):
    assert [usages(run=run).begin(2) for run in ("a", "b", "a", "c", "b")] == [True, True, True, False, True]
    assert usages(app="other", run="c").begin(2)
    assert usages(run="c").begin()


def test_a_file_that_is_no_database_is_refused(tmp_path):
    (tmp_path / "usage.db").write_text("no database at all, but a text that is long enough" * 50)
    with pytest.raises(RunError, match=r"the counters in .*usage.db cannot be read or written"):
        Usage(tmp_path / "usage.db", "app", "run")


def test_a_folder_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(RunError, match="cannot be read or written"):
        Usage(tmp_path / "nowhere" / "usage.db", "app", "run")


def test_what_is_known_elsewhere_raises_a_count_and_never_lowers_it(usages):
    usages().spend("round", 3)
    usages(run="run 9").recall("run 1", {"round": 2, "query": 4})
    assert (usages().spent("round"), usages().spent("query")) == (3, 4)
    usages().recall("run 1", {"round": 5})
    assert (usages().spent("round"), usages(app="other").spent("round")) == (5, 0)


def test_a_run_that_is_known_elsewhere_counts_among_those_of_its_app(usages):
    usages().recall("before", {"round": 1})
    assert [usages(run=run).begin(2) for run in ("a", "b", "before")] == [True, False, True]
