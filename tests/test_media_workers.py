"""Media are opened in processes of their own: one that crashes, hangs or fills the memory fails alone."""

import gc
import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import worker_calls as calls
from render_clip import render_clip

from transformers_videollama.media import MediaAccess, MediaError, load_image, load_sound, load_video, media_kind
from transformers_videollama.media.sources import MediaFile
from transformers_videollama.media.workers import MediaWorkers, in_worker, media_workers, opening_in_workers


SECONDS = 60.0  # that no call here needs


@pytest.fixture(scope="module")
def workers():
    pool = MediaWorkers(2, max_bytes=1 << 30)
    yield pool
    pool.close()


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    return render_clip(tmp_path_factory.mktemp("media") / "clip.mp4", seconds=1.0, size=(64, 48))


def ended_within(seconds: float, process_id: int) -> bool:
    last = time.monotonic() + seconds
    while time.monotonic() < last:
        try:
            os.kill(process_id, 0)
        except ProcessLookupError:
            return True
        time.sleep(0.05)
    return False


def test_results_come_back(workers):
    assert workers.call(calls.double, 21, seconds=SECONDS) == 42
    frames = np.arange(8 * 224 * 224 * 3, dtype=np.uint8).reshape(8, 224, 224, 3)
    np.testing.assert_array_equal(workers.call(calls.double, frames, seconds=SECONDS), frames * 2)


def test_a_worker_is_used_again_and_others_only_where_they_are_needed(workers):
    first = workers.call(calls.process_id, seconds=SECONDS)
    assert first != os.getpid()
    assert {workers.call(calls.process_id, seconds=SECONDS) for _ in range(3)} == {first}


def test_what_is_printed_does_not_get_between_the_answers(workers):
    assert workers.call(calls.say_something_and, 7, seconds=SECONDS) == 7


def test_errors_come_back(workers):
    with pytest.raises(MediaError, match=r"^is damaged$"):
        workers.call(calls.refuse, seconds=SECONDS)


@pytest.mark.parametrize(
    "call,arguments,seconds,match",
    (
        (calls.crash, (), SECONDS, r"ended the process that opened it \(signal SIGSEGV\)"),
        (calls.fail_as_undocumented, (), SECONDS, r"ended the process that opened it \(exit status 1\)"),
        (calls.wait, (SECONDS,), 0.1, r"is not read after 0.1 s \(max_decoding_seconds of MediaAccess\)"),
        (calls.fill, (2 << 30,), SECONDS, "needs more than 1024 MiB of memory"),
    ),
)
def test_a_call_fails_alone(workers, call, arguments, seconds, match):
    with pytest.raises(MediaError, match=match):
        workers.call(call, *arguments, seconds=seconds)
    assert workers.call(calls.double, 1, seconds=SECONDS) == 2


def test_threads_share_the_workers(workers):
    with ThreadPoolExecutor(8) as threads:
        crashed = [threads.submit(workers.call, calls.crash, seconds=SECONDS) for _ in range(2)]
        doubled = [threads.submit(workers.call, calls.double, i, seconds=SECONDS) for i in range(20)]
        assert [future.result() for future in doubled] == [2 * i for i in range(20)]
        assert all(isinstance(future.exception(), MediaError) for future in crashed)
        ids = list(threads.map(lambda _: workers.call(calls.process_id, seconds=SECONDS), range(20)))
    assert len(set(ids)) <= 2


def test_a_worker_that_was_killed_in_between_is_replaced(workers):
    killed = workers.call(calls.process_id, seconds=SECONDS)
    os.kill(killed, signal.SIGKILL)
    os.waitid(os.P_PID, killed, os.WEXITED | os.WNOWAIT)
    assert workers.call(calls.process_id, seconds=SECONDS) != killed


def test_a_closed_pool_has_no_process():
    pool = MediaWorkers(1)
    process_id = pool.call(calls.process_id, seconds=SECONDS)
    pool.close()
    with pytest.raises(ProcessLookupError):
        os.kill(process_id, 0)
    assert pool.call(calls.process_id, seconds=SECONDS) != process_id
    pool.close()


def test_a_pool_has_a_worker():
    with pytest.raises(ValueError, match="got 0 media workers, expected at least 1"):
        MediaWorkers(0)


@pytest.fixture
def workers_in_use():
    with opening_in_workers(2) as pool:
        yield pool


def test_calls_are_made_here_without_workers():
    assert media_workers() is None
    with opening_in_workers(0):
        assert media_workers() is None
    file = MediaFile("a file", MediaAccess(), "path")
    assert in_worker(file, calls.process_id) == os.getpid()


def test_a_forked_process_does_not_use_the_pipes_of_its_parent(workers_in_use):
    file = MediaFile("a file", MediaAccess(), "path")
    assert in_worker(file, calls.process_id) != os.getpid()
    if (child := os.fork()) == 0:
        os._exit(in_worker(file, calls.process_id) != os.getpid())
    assert os.waitpid(child, 0)[1] == 0


def test_time_and_bytes_are_those_of_the_access(workers_in_use):
    access = MediaAccess(max_decoding_seconds=0.1, max_request_bytes=1000).for_request()
    file = MediaFile("a file", access, "path")
    with pytest.raises(MediaError, match=r"is not read after 0.1 s"):
        in_worker(file, calls.wait, SECONDS)
    in_worker(file, calls.take_pixels, file, 200)
    assert access.taken == [600]
    with pytest.raises(MediaError, match="after 600 of the same request"):
        in_worker(file, calls.take_pixels, file, 200)


def test_what_is_opened_equals_what_this_process_opens(clip):
    """Bytes, so that the sound, which is read later, comes from a temporary file of this process."""
    data, windows = clip.read_bytes(), [(0.0, 0.5), (0.4, 0.9)]
    here = load_video(data, num_frames=3, size=(32, 48))
    with opening_in_workers(1) as workers:
        there = load_video(data, num_frames=3, size=(32, 48))
        gc.collect()
        np.testing.assert_array_equal(there.frames, here.frames)
        assert (there.timestamps, there.name) == (here.timestamps, here.name)
        for opened in (there.sound, load_sound(clip)):
            heard = opened.read_windows(windows, 16_000)
            np.testing.assert_array_equal(heard, here.sound.read_windows(windows, 16_000))
        assert media_kind(data) == "video"
        assert not workers.call(calls.has_imported, "torch", seconds=SECONDS)


def test_errors_name_the_item_once():
    with opening_in_workers(1), pytest.raises(MediaError, match=r"^<9 bytes>: cannot be read as an image: [^:]*$"):
        load_image(b"no image.")


PARENT = """
import threading, time, worker_calls as calls
from transformers_videollama.media.workers import MediaWorkers

pool = MediaWorkers(2)
print(pool.call(calls.process_id, seconds=60), flush=True)
threading.Thread(target=pool.call, args=(calls.wait, 60), kwargs={"seconds": 60}, daemon=True).start()
print("waiting", flush=True)
time.sleep(60)
"""


@pytest.mark.parametrize("ending", (signal.SIGKILL, signal.SIGTERM))
def test_workers_end_with_their_parent_in_the_midst_of_a_call(ending):
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    with subprocess.Popen(
        [sys.executable, "-c", PARENT], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=environment, text=True
    ) as parent:
        worker = int(parent.stdout.readline())
        assert parent.stdout.readline() == "waiting\n"
        time.sleep(0.3)
        parent.send_signal(ending)
        parent.wait(10)
    assert ended_within(10, worker)
