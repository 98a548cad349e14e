import contextlib
import json
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator

import pytest
import ray

from segray.training.messages import Messages, Position, relay_messages
from segray.training.tracking import History
from segray.training.watchdog import Watchdog
from tests.support import free_port

pytestmark = pytest.mark.usefixtures("ray_session")

TIMEOUT = 1.0
PROCESS = f"process {os.getpid()} on {socket.gethostname()}"


@pytest.fixture
def messages() -> Messages:
    return Messages()


class Team:
    """Workers, all of them in this process, and which of them would have ended it."""

    def __init__(
        self, messages: Messages, workers: int, timeout: float = TIMEOUT, port: int = 4000
    ) -> None:
        self.messages = messages
        self.left: list[tuple[int, int]] = []
        addresses = [f"10.0.0.{rank}:{port}" for rank in range(workers)]
        self.name = " ".join(addresses)
        self.watchdogs = [
            Watchdog(messages, addresses, rank, timeout, self._leave(rank))
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
                stack.enter_context(self.watchdogs[rank].meeting(place))
            time.sleep(seconds)

    def wait_for(self, *ranks: int) -> None:
        """Until some of the workers have left."""
        wait_until(lambda: sorted(self.left) == [(rank, 1) for rank in ranks])

    def wait_for_position(self, rank: int, meetings: int) -> None:
        """Until a worker has told the others how far it is."""

        def told() -> bool:
            position = self.messages.positions(self.name).get(rank)
            return position is not None and position.meetings == meetings

        wait_until(told)


def wait_until(true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not true():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.05)


def test_the_one_that_does_not_come_is_named(messages: Messages) -> None:
    team = Team(messages, 2)
    with team.running():
        team.meet("step 1 of epoch 1", 0, 1)
        team.wait_for_position(1, 1)
        with team.watchdogs[0].meeting("step 2 of epoch 1"):
            team.wait_for(0)
    expected = (
        f"worker 1 ({PROCESS}; it was last at step 1 of epoch 1) did not come to "
        "step 2 of epoch 1 within 1 s: the workers end"
    )
    assert messages.problem() == expected
    assert messages.take() == ([expected], None)


def test_who_comes_twice_to_one_place_is_not_ahead(messages: Messages) -> None:
    """As rank 0 does where it reports: the one that does not come is still the other one."""
    team = Team(messages, 2)
    with team.running():
        for _ in range(5):
            team.meet("step 1", 0)
        team.meet("step 1", 1)
        team.wait_for_position(0, 1)
        team.wait_for_position(1, 1)
        team.meet("step 2", 1, seconds=3 * TIMEOUT)
        team.wait_for(1)
    assert messages.problem().startswith("worker 0 ")


def test_all_that_do_not_come_are_named_once(messages: Messages) -> None:
    """Two wait, two are late, one of them since the start: the user reads one line."""
    team = Team(messages, 4)
    with team.running():
        team.meet("step 7", 0, 1, 2)
        team.wait_for_position(2, 1)
        team.wait_for_position(3, 0)
        with team.watchdogs[0].meeting("the scores"), team.watchdogs[1].meeting("the scores"):
            team.wait_for(0, 1)
    [line], _ = messages.take()
    assert line == messages.problem()
    assert line == (
        f"worker 2 ({PROCESS}; it was last at step 7) and worker 3 ({PROCESS}; it was last at "
        "the start) did not come to the scores within 1 s: the workers end"
    )


def test_one_that_does_not_begin_is_named(messages: Messages) -> None:
    """Whatever those before the restart have told."""
    before = Team(messages, 2)
    with before.running():
        before.meet("step 1", 0, 1)
        before.wait_for_position(1, 1)
    team = Team(messages, 2, port=4001)
    first, second = team.watchdogs
    gathering = threading.Thread(target=first.gather)
    with first.running():
        gathering.start()
        team.wait_for(0)
        assert gathering.is_alive()
        with second.running():
            second.gather()
            gathering.join()
    [line], _ = messages.take()
    assert line == (
        "worker 1 (at 10.0.0.1:4001; it has not begun) did not come to the start within 1 s: "
        "the workers end"
    )


def test_a_worker_that_cannot_connect_ends(messages: Messages) -> None:
    """TensorFlow waits for the others for as long as it takes, and no signal ends it."""
    import ray

    addresses = [f"127.0.0.1:{free_port()}" for _ in range(2)]
    for rank in (0, 1):
        messages.set_position(" ".join(addresses), rank, Position(0, "the start", PROCESS))

    @ray.remote(num_cpus=0, max_retries=0)
    def connect() -> None:
        import tensorflow as tf

        task = {"cluster": {"worker": addresses}, "task": {"type": "worker", "index": 0}}
        os.environ["TF_CONFIG"] = json.dumps(task)
        watchdog = Watchdog(messages, addresses, 0, 5.0)
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
    assert messages.problem() == expected
    assert messages.take() == ([], None)
    messages.start()  # the next workers
    assert messages.take() == ([expected], None)
    assert messages.problem() == ""


def test_what_no_restart_mends_stays(messages: Messages) -> None:
    """The same refusal of two teams: it may have been the store, but not twice."""
    messages.refuse("one", "cannot write: no space")
    messages.refuse("one", "cannot write: no space")  # by another worker
    messages.refuse("two", "cannot write: no answer")
    assert not messages.has_ended()
    messages.refuse("three", "cannot write: no space")
    assert messages.has_ended()
    messages.start()
    messages.set_problem("worker 1 did not come", tell=True)
    assert messages.problem() == "cannot write: no space"
    assert messages.take() == ([], None)


def test_where_all_are_there_it_is_the_network(messages: Messages) -> None:
    team = Team(messages, 2)
    first, second = team.watchdogs
    with team.running(), first.meeting("step 3"), second.meeting("step 3"):
        team.wait_for(0, 1)
    assert messages.problem() == (
        "the network between the workers, where all are, did not come to step 3 within 1 s: "
        "the workers end"
    )


def test_nobody_leaves_while_all_come_in_time(messages: Messages) -> None:
    """However long they work between their meetings, and wait in all of them together."""
    team = Team(messages, 2)
    with team.running():
        for step in range(4):
            team.meet(f"step {step}", 0, 1, seconds=0.3)
        time.sleep(2 * TIMEOUT)
    assert team.left == []
    assert messages.problem() == ""
    assert messages.take() == ([], None)


def test_a_meeting_that_breaks_off_is_over(messages: Messages) -> None:
    team = Team(messages, 1, timeout=0.4)
    with team.running():
        with pytest.raises(OSError, match="gone"), team.watchdogs[0].meeting("step 1"):
            raise OSError("gone")
        time.sleep(1)
    assert team.left == []


def test_after_the_block_nobody_watches(messages: Messages) -> None:
    team = Team(messages, 1, timeout=0.4)
    with team.running():
        pass
    team.meet("the end", 0, seconds=1)
    assert team.left == []


def test_a_worker_leaves_also_when_nobody_can_be_told(messages: Messages) -> None:
    """The mailbox is on the driver's node, which may be what does not answer."""
    import ray

    team = Team(messages, 1, timeout=0.4)
    with team.running():
        team.wait_for_position(0, 0)
        ray.kill(messages._mailbox)
        with team.watchdogs[0].meeting("step 1"):
            team.wait_for(0)


def test_lines_reach_the_terminal_in_their_order() -> None:
    """From any process, and those sent last, too; and the newest records where they are tracked."""
    import ray

    @ray.remote(num_cpus=0)
    def work(messages: Messages) -> None:
        for number in range(3):
            messages(f"line {number}")
            messages.set_history([{"epoch": epoch + 1} for epoch in range(number)])
        messages.set_problem("the end", tell=True)

    lines: list[str] = []
    histories: list[History] = []
    with relay_messages(lines.append, histories.append) as messages:
        ray.get(work.remote(messages))
        assert messages.problem() == "the end"
    assert lines == ["line 0", "line 1", "line 2", "the end"]
    assert histories[-1] == [{"epoch": 1}, {"epoch": 2}]


def test_what_ends_a_run_is_not_hidden_by_a_mailbox_that_is_gone() -> None:
    def lose() -> None:
        with relay_messages(print, lambda history: None) as messages:
            ray.kill(messages._mailbox)
            time.sleep(1.5)  # the thread that passes messages on has asked a few times
            raise ValueError("the first to happen")

    with pytest.raises(ValueError, match="the first to happen"):
        lose()
