"""Faults on real processes, with detection after 200 ms. Times are printed (pytest -s) and not asserted but for a generous limit:
`make bench-cluster` measures them."""
import signal
import subprocess
import threading
import time

import aerospike
import faults
import networks
import pytest
from aerospike import exception
from conftest import BINARY
from test_cluster import columns

pytestmark = pytest.mark.memory_only


def tell(request, seconds):
    """One time, or several."""
    every = seconds if isinstance(seconds, tuple) else (seconds,)
    print(f"{request.node.name}: " + ", ".join(f"{one * 1000:.0f} ms" for one in every))


def assert_partitions_are_shared(nodes):
    masters = [columns(node)[0] for node in nodes]
    assert set.union(*masters) == set(range(4096)) and sum(map(len, masters)) == 4096


def problems_but_copies(node):
    """On a busy machine 200 ms of detection lose more nodes than the fault takes; then copies are missing, and that is said."""
    return [text for text in node.info("cluster-problems").split(";") if text and "no full copy of" not in text]


@pytest.mark.parametrize("size", [3, 5])
@pytest.mark.parametrize("fault", [faults.killed, faults.restarted_at_once, faults.all_but_one_killed, faults.left,
                                   faults.joined, faults.reclustered, faults.quiesced, faults.started_again],
                         ids=lambda fault: fault.__name__)
def test_fault(request, cluster, fault, size):
    one = cluster(nodes=size)
    tell(request, fault(one))
    one.wait_for(one.nodes, faults.LIMIT)
    assert_partitions_are_shared(one.nodes)
    assert [problems_but_copies(node) for node in one.nodes] == [[]] * len(one.nodes)


def test_a_killed_rack(request, cluster):
    one = cluster(nodes=5, racks=[1, 1, 1, 2, 2])
    tell(request, faults.rack_killed(one))
    assert [node.number for node in one.nodes] == [0, 1, 2]
    assert_partitions_are_shared(one.nodes)


def test_two_that_sleep_and_wake(request, cluster):
    """Of five; both wake with old views, and find a newer one."""
    one = cluster(nodes=5)
    sleepers, others = one.nodes[3:], one.nodes[:3]
    for node in sleepers:
        node.process.send_signal(signal.SIGSTOP)
    departed = one.wait_for(others)
    for node in sleepers:
        node.process.send_signal(signal.SIGCONT)
    tell(request, (departed, one.wait_for(one.nodes)))


# ---- Networks ----

@pytest.mark.parametrize("size", [3, 5])
def test_halves_are_cut_and_healed(request, network_cluster, size):
    one = network_cluster(nodes=size, east=range(size // 2 + 1, size))
    tell(request, faults.cut_and_healed(one))
    assert_partitions_are_shared(one.nodes)


def test_a_rack_is_pulled_and_plugged_in(request, network_cluster):
    one = network_cluster(nodes=4, racks=[1, 1, 2, 2])
    tell(request, faults.rack_pulled(one))
    assert_partitions_are_shared(one.nodes)


def test_each_half_serves_everything(network_cluster):
    """Without strong consistency both do; they are one cluster again afterwards."""
    one = network_cluster(nodes=4, east=[2, 3])
    one.cut()
    for half in (one.nodes[:2], one.nodes[2:]):
        one.wait_for(half)
        assert_partitions_are_shared(half)
    one.heal()
    one.wait_for(one.nodes)


def wait_for_problem(node, words):
    deadline = time.monotonic() + 20
    while words not in node.info("cluster-problems"):
        assert time.monotonic() < deadline, node.info("cluster-problems") + node.log[-3000:]
        time.sleep(0.05)


def test_a_fabric_that_nobody_can_dial_is_named(network_cluster):
    """Its heartbeats are heard, so nobody misses it; without its fabric there is no view with it."""
    one = network_cluster(nodes=3, wait=False, fabric_addresses={1: "127.0.0.1"})
    whole, odd = [one.nodes[0], one.nodes[2]], one.nodes[1]
    for node in one.nodes:
        one.ready(node)

    for node in whole:
        wait_for_problem(node, "node A01 is heard, but its fabric port is not reached at 127.0.0.1:3001: ")
        assert node.statistics()["cluster_nodes_outside"] == "A01" and "127.0.0.1:3001" in node.log
        wait_for_problem(odd, f"node {one.id(node.number)} is heard, but does not reach the fabric port of this node")
    said = [node.info("cluster-problems") for node in one.nodes]
    for _ in range(30):
        time.sleep(0.1)
        assert [node.info("cluster-problems") for node in one.nodes] == said, "nothing flaps"
    assert [text.count(";") for text in said] == [0, 1, 0], "a sentence for each node"
    status = subprocess.run(["ip", "netns", "exec", one.network(0), BINARY, "cluster", "status", f"127.0.0.1:{whole[0].port}"],
                            capture_output=True, text=True)
    assert status.returncode == 1 and "A01 is there, and not in the view: A00 say why" in status.stdout, status.stdout


def test_a_missing_link_is_named(network_cluster):
    """Two of four lose each other, and everybody hears one at least of them."""
    one = network_cluster(nodes=4)
    networks.ip(one.network(0), f"route add blackhole {one.address(3)}/32")
    for node in one.nodes[1:3]:
        wait_for_problem(node, "node A00 is heard, but is not in the view of this node: it lacks a link to A03")
    wait_for_problem(one.nodes[0], "this node belongs to no view: ")
    wait_for_problem(one.nodes[0], "node A03 is heard by A01 and A02, and not by this node")
    wait_for_problem(one.nodes[3], "node A00 is heard by A01 and A02, and not by this node")


# ---- Clients ----

class Worker:
    """Writes and reads a number again and again, and notes what went wrong and when."""

    def __init__(self, cluster, keys=64):
        self.client = cluster.client(read={"total_timeout": 300, "max_retries": 0},
                                     write={"total_timeout": 300, "max_retries": 0})
        self.keys = [("test", "work", number) for number in range(keys)]
        self.errors = []
        self.wrong = []
        self.rounds = 0
        self.ends = threading.Event()
        self.thread = threading.Thread(target=self.work)

    def work(self):
        while not self.ends.is_set():
            self.rounds += 1
            for key in self.keys:
                try:
                    self.client.put(key, {"round": self.rounds})
                    found = self.client.get(key)[2]["round"]
                    if found != self.rounds:
                        self.wrong.append((key[2], self.rounds, found))
                except exception.AerospikeError as error:
                    self.errors.append((time.monotonic(), key[2], error.code, str(error)))

    def __enter__(self):
        self.thread.start()
        self.wait_rounds(2)
        return self

    def wait_rounds(self, count):
        until = self.rounds + count
        deadline = time.monotonic() + 20
        while self.rounds < until:
            assert time.monotonic() < deadline, self.errors[-3:]
            time.sleep(0.01)

    def __exit__(self, *_):
        self.ends.set()
        self.thread.join(30)
        self.client.close()


def test_clients_notice_nothing_of_a_recluster(cluster):
    one = cluster(nodes=3)
    with Worker(one) as worker:
        for _ in range(5):
            faults.reclustered(one)
            worker.wait_rounds(2)
    assert worker.errors == [] and worker.wrong == []


def test_clients_notice_only_the_partitions_of_a_killed_node(request, cluster):
    """Until the client has seen the new map; what others serve goes on all the time. Copies come with a later part: what only the
    killed node had is gone."""
    one = cluster(nodes=3)
    gone = one.nodes[0]
    served = columns(gone)[0]
    theirs = set()
    for number in range(64):
        of = aerospike.calc_digest("test", "work", number)
        if (of[0] | of[1] << 8) & 0xFFF in served:
            theirs.add(number)
    assert 5 < len(theirs) < 45
    with Worker(one) as worker:
        begun = time.monotonic()
        seconds = faults.lost(one, [gone])
        time.sleep(1.5)
        settled = time.monotonic()
        worker.wait_rounds(3)
    late = [error for error in worker.errors if error[0] > settled]
    assert late == [] and worker.wrong == []
    assert {error[1] for error in worker.errors} <= theirs, worker.errors
    last = max((error[0] for error in worker.errors), default=begun) - begun
    tell(request, (seconds, last))
