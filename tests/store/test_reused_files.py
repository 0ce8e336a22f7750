"""The file that was dropped last is written over, unless it is small or somebody reads it."""

from concurrent.futures import ThreadPoolExecutor

import pytest

from fedloom.store.reused import LARGE, SPARE, Files


@pytest.fixture
def files(tmp_path):
    return Files(tmp_path)


def written(files, name, content):
    path = files.folder / name
    path.write_bytes(content)
    return path


@pytest.mark.parametrize("keep", [0, 5, LARGE])
@pytest.mark.parametrize("before", [LARGE + 1, LARGE + 5, LARGE + 99])
def test_a_large_file_is_made_out_of_the_spare_one(files, keep, before):
    old = written(files, "old", b"x" * before)
    number = old.stat().st_ino
    files.drop(old)
    assert [path.name for path in files.folder.iterdir()] == [SPARE]
    files.make(files.folder / "new", LARGE + 9, keep)
    assert (files.folder / "new").read_bytes() == b"x" * keep + bytes(LARGE + 9 - keep)
    assert (files.folder / "new").stat().st_ino == number
    files.make(files.folder / "another", LARGE + 9, keep)
    assert (files.folder / "another").read_bytes() == bytes(LARGE + 9)


def test_a_small_file_is_not_kept_and_takes_no_large_one(files):
    files.drop(written(files, "large", b"x" * (LARGE + 1)))
    files.drop(written(files, "small", b"y" * LARGE))
    files.make(files.folder / "new", 3, 3)
    assert (files.folder / "new").read_bytes() == bytes(3)
    assert (files.folder / SPARE).read_bytes() == b"x" * (LARGE + 1)


def test_one_that_somebody_reads_is_not_written_over(files):
    content = files.read(written(files, "read", b"x" * (LARGE + 1)))
    files.drop(files.folder / "read")
    assert list(files.folder.iterdir()) == []
    assert bytes(content) == b"x" * (LARGE + 1)


def test_one_that_was_read_is(files):
    files.read(written(files, "read", b"x" * (LARGE + 1))).release()
    files.drop(files.folder / "read")
    assert [path.name for path in files.folder.iterdir()] == [SPARE]


def test_what_is_not_there_needs_no_dropping(files):
    files.drop(files.folder / "nothing")


def test_who_closes_removes_its_own_spare_file_alone(files):
    files.drop(written(files, "large", b"x" * (LARGE + 1)))
    Files(files.folder).close()
    assert (files.folder / SPARE).exists()
    files.close()
    assert list(files.folder.iterdir()) == []
    files.close()


def test_threads_that_make_and_drop_get_files_of_the_size_that_they_asked_for(tmp_path):
    """Two at once must not shape the one spare file."""
    files = Files(tmp_path)

    def work(number):
        path, wrong = tmp_path / str(number), 0
        for at in range(300):
            size = LARGE + 1 + 1000 * number + at
            files.make(path, size, size)
            wrong += path.stat().st_size != size
            files.drop(path)
        return wrong

    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(work, range(4))) == [0] * 4
