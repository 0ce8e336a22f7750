"""A lock is held by one at a time, among threads and processes, and goes with its process."""

import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from time import sleep

import pytest
from filelock import FileLock

from fedloom.core.errors import RunError, StorageError
from fedloom.store.lock import holding, locked

HOLDS = """
import sys
from pathlib import Path
from fedloom.store.lock import locked

with locked(Path(sys.argv[1]), 0):
    print("held", flush=True)
    sys.stdin.readline()
"""


def test_threads_hold_it_one_after_the_other(tmp_path):
    inside, seen = [], []

    def hold(number):
        with locked(tmp_path / ".lock", 10.0):
            inside.append(number)
            sleep(0.002)
            seen.append(list(inside))
            inside.remove(number)

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(hold, range(12)))
    assert sorted(seen) == [[number] for number in range(12)]


def test_another_process_waits_and_gets_it_when_the_holder_is_killed(tmp_path):
    path = tmp_path / ".lock"
    words = [sys.executable, "-c", HOLDS, str(path)]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "held\n"
        with pytest.raises(TimeoutError, match=r"\.lock was not free for 0\.02 s"), locked(path, 0.02):
            pass
        process.send_signal(signal.SIGKILL)
        process.wait()
    with locked(path, 0):
        assert not path.read_bytes()


@pytest.mark.skipif(sys.platform == "win32", reason="there it is the same")
def test_it_is_the_lock_that_filelock_takes(tmp_path):
    path = tmp_path / ".lock"
    with FileLock(path), pytest.raises(TimeoutError), locked(path, 0):
        pass
    with locked(path, 0), pytest.raises(TimeoutError):
        FileLock(path).acquire(timeout=0)


def test_a_folder_that_is_not_there_is_an_error_of_the_system(tmp_path):
    with pytest.raises(FileNotFoundError), locked(tmp_path / "nowhere" / ".lock", 0):
        pass


def test_who_holds_a_file_keeps_it_and_who_comes_is_told(tmp_path):
    with (
        holding(tmp_path / ".lock", "somebody is here"),
        pytest.raises(RunError, match="somebody is here"),
        holding(tmp_path / ".lock", "somebody is here", 0.01),
    ):
        pass
    with holding(tmp_path / ".lock", "somebody is here"):
        pass


def test_a_file_that_cannot_be_locked_is_named_and_nobody_is_said_to_hold_it(tmp_path, read_only):
    read_only()
    with (
        pytest.raises(StorageError, match=r"\.lock cannot be locked: Read-only file system; let this user write in"),
        holding(tmp_path / ".lock", "somebody is here"),
    ):
        pass
