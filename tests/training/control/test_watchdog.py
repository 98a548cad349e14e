import contextlib
import json
import logging
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator

import pytest
import ray

from segray.training.control.mailbox import Line, Mailbox, Position, forward_log, relay_mailbox
from segray.training.control.watchdog import Watchdog
from segray.training.outputs.tracking import History
from tests.support import free_port

pytestmark = pytest.mark.usefixtures("ray_session")

TIMEOUT = 1.0
PROCESS = f"process {os.getpid()} on {socket.gethostname()}"


@pytest.fixture
def mailbox() -> Mailbox:
    return Mailbox()


class Generation:
    """Workers, all of them in this process, and which of them would have ended it."""

    def __init__(
        self, mailbox: Mailbox, workers: int, timeout: float = TIMEOUT, port: int = 4000
    ) -> None:
        self.mailbox = mailbox
        self.left: list[tuple[int, int]] = []
        addresses = [f"10.0.0.{rank}:{port}" for rank in range(workers)]
        self.name = " ".join(addresses)
        self.watchdogs = [
            Watchdog(mailbox, addresses, rank, timeout, self._leave(rank))
            for rank in range(workers)
        ]

    def _leave(self, rank: int) -> Callable[[int], object]:
        return lambda code: self.left.append((rank, code))

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        with contextlib.ExitStack() as stack:
            for watchdog in self.watchdogs:
                stack.enter_context(watchdog.running())
            yield

    def meet(self, place: str, *ranks: int, seconds: float = 0.0) -> None:
        """Some of the workers wait at a place, for a while."""
        with contextlib.ExitStack() as stack:
            for rank in ranks:
                stack.enter_context(self.watchdogs[rank].barrier(place))
            time.sleep(seconds)

    def wait_for(self, *ranks: int) -> None:
        """Until some of the workers have left."""
        wait_until(lambda: sorted(self.left) == [(rank, 1) for rank in ranks])

    def wait_for_position(self, rank: int, barriers: int) -> None:
        """Until a worker has told the others how far it is."""

        def told() -> bool:
            position = self.mailbox.positions(self.name).get(rank)
            return position is not None and position.barriers == barriers

        wait_until(told)


def wait_until(true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not true():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.05)


def test_the_one_that_does_not_come_is_named(mailbox: Mailbox) -> None:
    generation = Generation(mailbox, 2)
    with generation.running():
        generation.meet("step 1 of epoch 1", 0, 1)
        generation.wait_for_position(1, 1)
        with generation.watchdogs[0].barrier("step 2 of epoch 1"):
            generation.wait_for(0)
    expected = (
        f"worker 1 ({PROCESS}; it was last at step 1 of epoch 1) did not reach "
        "step 2 of epoch 1 within 1 s; ending all workers"
    )
    assert mailbox.problem() == expected
    assert mailbox.take() == ([Line(expected)], None)


def test_who_comes_twice_to_one_place_is_not_ahead(mailbox: Mailbox) -> None:
    """As rank 0 does where it reports: the one that does not come is still the other one."""
    generation = Generation(mailbox, 2)
    with generation.running():
        for _ in range(5):
            generation.meet("step 1", 0)
        generation.meet("step 1", 1)
        generation.wait_for_position(0, 1)
        generation.wait_for_position(1, 1)
        generation.meet("step 2", 1, seconds=3 * TIMEOUT)
        generation.wait_for(1)
    assert mailbox.problem().startswith("worker 0 ")


def test_all_that_do_not_come_are_named_once(mailbox: Mailbox) -> None:
    """Two wait, two are late, one of them since the start: the user reads one line."""
    generation = Generation(mailbox, 4)
    with generation.running():
        generation.meet("step 7", 0, 1, 2)
        generation.wait_for_position(2, 1)
        generation.wait_for_position(3, 0)
        with (
            generation.watchdogs[0].barrier("the scores"),
            generation.watchdogs[1].barrier("the scores"),
        ):
            generation.wait_for(0, 1)
    [line], _ = mailbox.take()
    assert line.text == mailbox.problem()
    assert line.text == (
        f"worker 2 ({PROCESS}; it was last at step 7) and worker 3 ({PROCESS}; it was last at "
        "the start) did not reach the scores within 1 s; ending all workers"
    )


def test_one_that_does_not_begin_is_named(mailbox: Mailbox) -> None:
    """Whatever those before the restart have told."""
    before = Generation(mailbox, 2)
    with before.running():
        before.meet("step 1", 0, 1)
        before.wait_for_position(1, 1)
    generation = Generation(mailbox, 2, port=4001)
    first, second = generation.watchdogs
    gathering = threading.Thread(target=first.gather)
    with first.running():
        gathering.start()
        generation.wait_for(0)
        assert gathering.is_alive()
        with second.running():
            second.gather()
            gathering.join()
    [line], _ = mailbox.take()
    assert line.text == (
        "worker 1 (at 10.0.0.1:4001; it has not begun) did not reach the start within 1 s; "
        "ending all workers"
    )


def test_a_worker_that_cannot_connect_ends(mailbox: Mailbox) -> None:
    """TensorFlow waits for the others for as long as it takes, and no signal ends it."""
    import ray

    addresses = [f"127.0.0.1:{free_port()}" for _ in range(2)]
    for rank in (0, 1):
        mailbox.set_position(" ".join(addresses), rank, Position(0, "the start", PROCESS))

    @ray.remote(num_cpus=0, max_retries=0)
    def connect() -> None:
        import tensorflow as tf

        task = {"cluster": {"worker": addresses}, "task": {"type": "worker", "index": 0}}
        os.environ["TF_CONFIG"] = json.dumps(task)
        watchdog = Watchdog(mailbox, addresses, 0, 5.0)
        with watchdog.running():
            watchdog.gather()
            with watchdog.connecting():
                tf.distribute.MultiWorkerMirroredStrategy()

    with pytest.raises(ray.exceptions.WorkerCrashedError):
        ray.get(connect.remote(), timeout=120)
    expected = (
        f"the workers did not connect to each other ({addresses[0]}, {addresses[1]}): every node "
        "has to reach the others at all ports"
    )
    assert mailbox.problem() == expected
    assert mailbox.take() == ([], None)
    mailbox.start()  # the next workers
    assert mailbox.take() == ([Line(expected)], None)
    assert mailbox.problem() == ""


def test_what_no_restart_mends_stays(mailbox: Mailbox) -> None:
    """The same refusal of two generations: it may have been the store, but not twice."""
    mailbox.refuse("one", "cannot write: no space")
    mailbox.refuse("one", "cannot write: no space")  # by another worker
    mailbox.refuse("two", "cannot write: no answer")
    assert not mailbox.has_ended()
    mailbox.refuse("three", "cannot write: no space")
    assert mailbox.has_ended()
    mailbox.start()
    mailbox.set_problem("worker 1 did not come", show=True)
    assert mailbox.problem() == "cannot write: no space"
    assert mailbox.take() == ([], None)


def test_where_all_are_there_it_is_the_network(mailbox: Mailbox) -> None:
    generation = Generation(mailbox, 2)
    first, second = generation.watchdogs
    with generation.running(), first.barrier("step 3"), second.barrier("step 3"):
        generation.wait_for(0, 1)
    assert mailbox.problem() == (
        "all workers reached step 3 and did not complete it within 1 s; ending all workers: check "
        "the network between them"
    )


def test_nobody_leaves_while_all_come_in_time(mailbox: Mailbox) -> None:
    """However long they work between their barriers, and wait in all of them together."""
    generation = Generation(mailbox, 2)
    with generation.running():
        for step in range(4):
            generation.meet(f"step {step}", 0, 1, seconds=0.3)
        time.sleep(2 * TIMEOUT)
    assert generation.left == []
    assert mailbox.problem() == ""
    assert mailbox.take() == ([], None)


def test_a_barrier_that_breaks_off_is_over(mailbox: Mailbox) -> None:
    generation = Generation(mailbox, 1, timeout=0.4)
    with generation.running():
        with pytest.raises(OSError, match="gone"), generation.watchdogs[0].barrier("step 1"):
            raise OSError("gone")
        time.sleep(1)
    assert generation.left == []


def test_after_the_block_nobody_watches(mailbox: Mailbox) -> None:
    generation = Generation(mailbox, 1, timeout=0.4)
    with generation.running():
        pass
    generation.meet("the end", 0, seconds=1)
    assert generation.left == []


def test_a_worker_leaves_also_when_nobody_can_be_told(mailbox: Mailbox) -> None:
    """The mailbox is on the driver's node, which may be what does not answer."""
    import ray

    generation = Generation(mailbox, 1, timeout=0.4)
    with generation.running():
        generation.wait_for_position(0, 0)
        ray.kill(mailbox._mailbox)
        with generation.watchdogs[0].barrier("step 1"):
            generation.wait_for(0)


def test_lines_reach_the_terminal_in_their_order(lines: list[str]) -> None:
    """From any process, and those sent last, too; and the newest records where they are tracked."""
    import ray

    @ray.remote(num_cpus=0)
    def work(mailbox: Mailbox) -> None:
        for number in range(3):
            with forward_log(mailbox):
                logging.getLogger("segray.training").info(f"line {number}")
            mailbox.set_history([{"epoch": epoch + 1} for epoch in range(number)])
        mailbox.set_problem("the end", show=True)

    histories: list[History] = []
    with relay_mailbox(histories.append) as mailbox:
        ray.get(work.remote(mailbox))
        assert mailbox.problem() == "the end"
    assert lines == ["line 0", "line 1", "line 2", "the end"]
    assert histories[-1] == [{"epoch": 1}, {"epoch": 2}]


def test_what_ends_a_run_is_not_hidden_by_a_mailbox_that_is_gone() -> None:
    def lose() -> None:
        with relay_mailbox(lambda history: None) as mailbox:
            ray.kill(mailbox._mailbox)
            time.sleep(1.5)  # the thread that passes mailbox on has asked a few times
            raise ValueError("the first to happen")

    with pytest.raises(ValueError, match="the first to happen"):
        lose()
