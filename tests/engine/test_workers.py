"""When a thread is added, who runs a job, and what a fork leaves behind."""

import os
import subprocess
import sys
import threading
from collections import deque
from concurrent.futures import Future, wait

import pytest

from pregel.engine import workers as module
from pregel.engine.workers import FIRST, Job, Offer, Workers, future_type
from tests.support.driving import LIMIT, within


@pytest.fixture
def workers():
    return Workers()


def wait_until(condition):
    while not condition():
        pass
    return True


class Latch:
    """A job that says that it has started and goes on when it is told to."""

    def __init__(self):
        self.started, self.go, self.ended = threading.Event(), threading.Event(), threading.Event()
        self.thread = None

    def __call__(self):
        self.thread = threading.current_thread()
        self.started.set()
        assert self.go.wait(LIMIT)
        self.ended.set()


# ---- claiming


def test_a_job_is_claimed_once():
    job = Job(lambda: None)
    assert [job.claim() for _ in range(3)] == [True, False, False]


def test_of_many_threads_one_claims():
    for _ in range(50):
        job, start, won = Job(lambda: None), threading.Barrier(4), []

        def run(job=job, start=start, won=won):
            start.wait(LIMIT)
            if job.claim():
                won.append(1)

        threads = [threading.Thread(target=run) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert won == [1]


def test_a_claimed_job_is_passed_over(workers):
    ran = []
    job, last = Job(lambda: ran.append("no")), Latch()
    assert job.claim()
    workers.submit(job)
    last.go.set()
    workers.submit(Job(last))
    assert last.ended.wait(LIMIT)
    assert ran == []


# ---- threads


def test_a_job_runs_on_a_daemon_that_knows_what_it_is(workers):
    seen, done = [], threading.Event()

    def run():
        seen.append((threading.current_thread(), module.here.is_worker))
        done.set()

    workers.submit(Job(run))
    assert done.wait(LIMIT)
    ((thread, is_worker),) = seen
    assert thread is not threading.current_thread()
    assert thread.daemon
    assert is_worker is True
    assert not getattr(module.here, "is_worker", False)


def test_an_idle_thread_is_used_again(workers):
    threads = set()
    for _ in range(20):
        latch = Latch()
        latch.go.set()
        workers.submit(Job(latch))
        assert latch.ended.wait(LIMIT)
        threads.add(latch.thread)
    assert len(threads) <= FIRST


@pytest.mark.parametrize("count", [FIRST + 1, 20, 100])
def test_jobs_that_block_get_threads(workers, count):
    barrier, ended = threading.Barrier(count), [threading.Event() for _ in range(count)]

    def run(event):
        barrier.wait(LIMIT)
        event.set()

    for event in ended:
        workers.submit(Job(lambda event=event: run(event)))
    assert all(event.wait(LIMIT) for event in ended)
    assert workers._threads >= count


def test_threads_are_limited(workers, monkeypatch):
    monkeypatch.setattr(module, "LIMIT", 4)
    latches = [Latch() for _ in range(8)]
    for latch in latches:
        workers.submit(Job(latch))
    for latch in latches[:4]:
        assert latch.started.wait(LIMIT)
    assert workers._threads == 4
    for latch in latches:
        latch.go.set()
    assert all(latch.ended.wait(LIMIT) for latch in latches)
    assert workers._threads == 4


def test_an_abandoned_thread_does_not_count(workers, monkeypatch):
    monkeypatch.setattr(module, "LIMIT", 2)
    stuck = [Latch(), Latch()]
    jobs = [Job(latch) for latch in stuck]
    for latch, job in zip(stuck, jobs, strict=True):
        workers.submit(job)
        assert latch.started.wait(LIMIT)
    for _ in range(2):
        workers.abandon(jobs[0])
        assert workers._threads == 1
    late = Latch()
    late.go.set()
    workers.submit(Job(late))
    assert late.ended.wait(LIMIT)
    for latch in stuck:
        latch.go.set()
    stuck[0].thread.join(LIMIT)
    assert not stuck[0].thread.is_alive(), "another one has its place"
    assert stuck[1].thread.is_alive()


def test_a_job_that_nobody_is_in_cannot_be_abandoned(workers):
    latch = Latch()
    latch.go.set()
    job = Job(latch)
    workers.abandon(job)
    workers.abandon(None)
    workers.submit(job)
    assert latch.ended.wait(LIMIT)
    assert within(lambda: wait_until(lambda: not job.wanted))
    workers.abandon(job)
    assert workers._threads == 1


def test_too_many_stuck_threads_are_refused_by_name(workers, monkeypatch):
    monkeypatch.setattr(module, "MAX_STUCK", 1)
    latches = [Latch() for _ in range(3)]
    jobs = [Job(latch, name) for latch, name in zip(latches, ["slow", "slow", "other"], strict=True)]
    for latch, job in zip(latches, jobs, strict=True):
        workers.submit(job)
        assert latch.started.wait(LIMIT)
    workers.abandon(jobs[0])
    workers.submit(Job(lambda: None))
    workers.abandon(jobs[1])
    with pytest.raises(RuntimeError, match=r"'slow' \(2\)"):
        workers.submit(Job(lambda: None))
    for latch in latches:
        latch.go.set()
    latches[0].thread.join(LIMIT)
    ended = Latch()
    ended.go.set()
    workers.submit(Job(ended))
    assert ended.ended.wait(LIMIT)


# ---- jobs that submit jobs


@pytest.mark.parametrize("limit", [1, 2, 256])
def test_nested_jobs_never_starve(workers, monkeypatch, limit):
    monkeypatch.setattr(module, "LIMIT", limit)
    deepest = threading.Event()

    def descend(level):
        if level == 0:
            deepest.set()
            return
        done: Future[None] = Future()

        def run():
            descend(level - 1)
            done.set_result(None)

        workers.submit(Job(run))
        assert wait([done], timeout=LIMIT).done

    top = Latch()
    top.go.set()
    workers.submit(Job(lambda: (descend(40), top())))
    assert top.ended.wait(LIMIT)
    assert deepest.is_set()


def test_siblings_from_inside_a_worker_run_side_by_side(workers, monkeypatch):
    monkeypatch.setattr(module, "LIMIT", 1)
    barrier, done = threading.Barrier(6), threading.Event()

    def parent():
        for _ in range(5):
            workers.submit(Job(lambda: barrier.wait(LIMIT)))
        barrier.wait(LIMIT)
        done.set()

    workers.submit(Job(parent))
    assert done.wait(LIMIT)


class SlowHand:
    """A queue whose taker can be held between taking a job and going on."""

    def __init__(self, queue):
        self.queue = queue
        self.taken, self.go = threading.Event(), threading.Event()
        self.slow = True

    def put(self, job):
        self.queue.put(job)

    def qsize(self):
        return self.queue.qsize()

    def get(self):
        job = self.queue.get()
        if self.slow:
            self.slow = False
            self.taken.set()
            assert self.go.wait(LIMIT)
        return job


@pytest.mark.parametrize("nested", [False, True])
def test_a_thread_that_has_just_taken_a_job_is_not_taken_for_idle(workers, nested):
    """Two bodies that wait for each other, the second submitted while a thread is about to run the first."""
    queue = workers._jobs = SlowHand(workers._jobs)
    barrier, ended = threading.Barrier(2), [threading.Event(), threading.Event()]

    def run(event):
        barrier.wait(LIMIT)
        event.set()

    def submit_both():
        module.here.is_worker = nested
        workers.submit(Job(lambda: run(ended[0])))
        assert queue.taken.wait(LIMIT)
        workers.submit(Job(lambda: run(ended[1])))
        queue.go.set()

    within(submit_both)
    assert all(event.wait(LIMIT) for event in ended)


# ---- jobs that their owner runs itself


def test_offered_jobs_that_block_are_helped_with(workers):
    barrier, ended = threading.Barrier(4), [threading.Event() for _ in range(4)]

    def run(event):
        barrier.wait(LIMIT)
        event.set()

    jobs = deque(Job(lambda event=event: run(event)) for event in ended)
    workers.offer(jobs)
    first = jobs.popleft()
    assert first.claim()
    first.run()
    assert all(event.wait(LIMIT) for event in ended)


def test_whether_an_owner_gets_on():
    jobs = deque(range(20))
    offer = Offer(jobs)
    assert offer.gets_on() is False
    for _ in range(module.QUICK):
        jobs.popleft()
    assert offer.gets_on() is True
    jobs.popleft()
    assert offer.gets_on() is False
    jobs.clear()
    assert offer.gets_on() is False


def test_an_offer_that_its_owner_has_finished_is_forgotten(workers):
    jobs = deque([Job(lambda: None)])
    offer = Offer(jobs)
    workers._offers.append(offer)
    jobs.clear()
    assert workers._help() is False
    assert workers._jobs.qsize() == 0


def test_an_offer_that_gets_on_is_kept_and_left_alone(workers):
    jobs = deque(Job(lambda: None) for _ in range(20))
    workers._offers.append(Offer(jobs))
    for _ in range(module.QUICK):
        jobs.popleft()
    assert workers._help() is True
    assert workers._jobs.qsize() == 0


# ---- futures


def test_waiting_for_a_future_runs_its_job():
    future = future_type()()
    ran = []
    future.job = Job(lambda: (ran.append(threading.current_thread()), future.set_result(3)))
    assert future.result() == 3
    assert future.result() == 3
    assert ran == [threading.current_thread()]


def test_a_wait_with_a_limit_does_not_run_the_job():
    future = future_type()()
    future.job = Job(lambda: future.set_result(3))
    with pytest.raises(TimeoutError):
        future.result(timeout=0)
    with pytest.raises(TimeoutError):
        future.exception(timeout=0)
    assert future.exception() is None


def test_futures_are_those_of_the_standard_library():
    assert future_type() is future_type()
    future = future_type()()
    assert isinstance(future, Future)
    future.set_result(1)
    assert (future.result(), future.exception()) == (1, None)


# ---- fork


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this platform")
def test_a_forked_child_has_workers_of_its_own():
    program = (
        "import os, threading, warnings\n"
        "warnings.simplefilter('ignore')\n"
        "from pregel.engine.workers import Job, workers\n"
        "def run():\n"
        "    done = threading.Event()\n"
        "    workers.submit(Job(done.set))\n"
        "    assert done.wait(5)\n"
        "run()\n"
        "with workers._lock:\n"
        "    pid = os.fork()\n"
        "    if pid == 0:\n"
        "        run()\n"
        "        os._exit(0)\n"
        "assert os.waitpid(pid, 0)[1] == 0\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, cwd=os.getcwd())
    assert done.returncode == 0, done.stderr


def test_how_fast_threads_are_added():
    """Fifty bodies that block run side by side after two looks."""
    workers = Workers()
    counts = [2]
    workers._threads = 2

    def add(count):
        workers._threads += count
        counts.append(workers._threads)

    workers._add = add
    for waiting in (48, 34, 0):
        while workers._jobs.qsize() > waiting:
            workers._jobs.get()
        while workers._jobs.qsize() < waiting:
            workers._jobs.put(Job(lambda: None))
        assert workers._grow(workers._done) == bool(waiting)
    assert counts == [2, 16, 50]
