"""What nodes of other kinds, and strangers, send to the ports of the cluster: it is named, and the cluster goes on as it was."""
import contextlib
import random
import socket
import time

import fabric
import faults
import pytest

pytestmark = pytest.mark.memory_only
MIB = 1 << 20


def port_of(cluster, number, plane):
    return (cluster.heartbeats if plane == "heartbeat" else cluster.fabrics)[number]


def kind_of(plane):
    return fabric.HEARTBEAT_PORT if plane == "heartbeat" else fabric.FABRIC_PORT


def dial(cluster, plane, number=0):
    one = socket.create_connection(("127.0.0.1", port_of(cluster, number, plane)), timeout=5)
    one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return one


def is_closed(one, seconds=5):
    """Whether the other end closes it; what it says first is read."""
    one.settimeout(seconds)
    try:
        while one.recv(65536):
            pass
        return True
    except ConnectionError:
        return True
    except TimeoutError:
        return False


def wait_for_problem(node, words, seconds=5):
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        problems = node.info("cluster-problems")
        if all(word in problems for word in words):
            return
        time.sleep(0.02)
    raise AssertionError(f"{words} are not in {problems!r}")


@contextlib.contextmanager
def undisturbed(cluster, growth=64 * MIB):
    """What happens inside does not change the view, leaves no node with more memory than that, and hinders no new view: the test
    is given what checks this, to call it once when its strangers are there."""
    views = {node: cluster.view(node) for node in cluster.nodes}
    before = {node: node.anonymous_kilobytes() for node in cluster.nodes}

    def check():
        assert {node: cluster.view(node) for node in cluster.nodes} == views
        faults.reclustered(cluster)
        views.update({node: cluster.view(node) for node in cluster.nodes})

    yield check
    check()
    assert all(node.process.poll() is None for node in cluster.nodes)
    for node in cluster.nodes:
        grown = (node.anonymous_kilobytes() - before[node]) * 1024
        assert grown < growth, f"node {cluster.id(node.number)} has {grown >> 20} MiB more"


@pytest.fixture(params=["heartbeat", "fabric"])
def plane(request):
    return request.param


# ---- What is named ----

def test_a_newer_format_is_named(cluster, plane):
    one = cluster(nodes=2)
    node = one.nodes[0]
    with undisturbed(one), dial(one, plane) as stranger:
        stranger.sendall(fabric.frame(fabric.HELLO, b"\0" * 40, format=2))
        assert is_closed(stranger)
        node.wait_for_log(f"to the {plane} port is refused: it speaks format 2 .*this node needs the newer version")
        wait_for_problem(node, ["speaks format 2", plane])


def test_a_foreign_cluster_is_named_on_every_port(cluster, plane):
    one = cluster(nodes=2)
    node = one.nodes[0]
    with undisturbed(one), dial(one, plane) as stranger:
        stranger.sendall(fabric.hello(kind_of(plane), cluster="green"))
        assert is_closed(stranger)
        node.wait_for_log("node B00/7 belongs to cluster 'green', this node to 'blue'")
        wait_for_problem(node, ["'green'", "B00"])


def test_the_wrong_port_is_named(cluster, plane):
    one = cluster(nodes=2)
    other = {"heartbeat": "fabric", "fabric": "heartbeat"}[plane]
    with undisturbed(one), dial(one, plane) as stranger:
        stranger.sendall(fabric.hello(kind_of(other)))
        assert is_closed(stranger)
        wait_for_problem(one.nodes[0], [f"it looks for the {other} port"])


def test_two_nodes_with_one_id_are_named(cluster):
    """Neither of them is heard then, and the others go on; when one has gone, the other is a member again."""
    one = cluster(nodes=3, ids=["A00", "A01", "A02"])
    one.ids.append("A02")
    one.racks.append(0)
    one.names.append("blue")
    heartbeats, fabrics = one.ports(1)
    one.heartbeats += heartbeats
    one.fabrics += fabrics
    twin = one.start(3)
    one.nodes.append(twin)
    for node in one.nodes[:2]:
        node.wait_for_log("two nodes claim the id A02")
        wait_for_problem(node, ["two nodes claim the id A02"])
    one.wait_for(one.nodes[:2])
    for node in one.nodes[2:]:
        # The first view of the twin may be without the others, and its port is known with it.
        one.ready(node)
        wait_for_problem(node, ["two nodes claim the id A02"], seconds=10)
        assert "fabric port" not in node.info("cluster-problems"), "what comes of it is not named beside it"
    one.kill(twin)
    one.nodes.pop()
    one.wait_for(one.nodes)


# ---- Noise ----

def noises():
    chance = random.Random(7)
    body = chance.randbytes(100_000)
    good = fabric.hello(fabric.FABRIC_PORT)
    return {
        "http": b"GET / HTTP/1.1\r\nHost: nobody\r\n\r\n" + bytes(range(256)) * 64,
        "random": body,
        "magic": b"APFS" + body,
        "kind": fabric.frame(99, b"x"),
        "checksum": good[:-1] + b"\0",
        "no hello": fabric.frame(fabric.PULSE, b"\0" * 30),
        "empty hello": fabric.frame(fabric.HELLO, b""),
        "too large": fabric.header(fabric.HELLO, 0xFFFFFFFF),
    }


@pytest.mark.parametrize("noise", noises())
def test_noise_is_refused_at_once(cluster_of_two, plane, noise):
    with undisturbed(cluster_of_two):
        for _ in range(20):
            with dial(cluster_of_two, plane) as stranger:
                with contextlib.suppress(ConnectionError):
                    stranger.sendall(noises()[noise])
                assert is_closed(stranger)


@pytest.fixture(scope="module")
def cluster_of_two():
    from clusters import Cluster
    one = Cluster(nodes=2)
    yield one
    one.end()


@pytest.mark.parametrize("sent", [0, 15, 16, 40])
def test_half_a_frame_and_silence(cluster_of_two, plane, sent):
    """Whoever has not said who it is after two detection times is not waited for."""
    with undisturbed(cluster_of_two), dial(cluster_of_two, plane) as stranger:
        stranger.sendall(fabric.hello(kind_of(plane))[:sent])
        assert is_closed(stranger)


def test_slow_loris(cluster_of_two, plane):
    """A byte now and then from 50 strangers: they cost a connection each, and nothing else."""
    data = fabric.header(fabric.HELLO, 60_000)
    with undisturbed(cluster_of_two) as check, contextlib.ExitStack() as stack:
        strangers = [stack.enter_context(dial(cluster_of_two, plane)) for _ in range(50)]
        for at in range(20):
            for one in strangers:
                with contextlib.suppress(ConnectionError):
                    one.sendall(data[at:at + 1] or b"x")
            time.sleep(0.05)
        check()


def test_a_thousand_connections(cluster_of_two, plane):
    with undisturbed(cluster_of_two) as check, contextlib.ExitStack() as stack:
        strangers = [stack.enter_context(dial(cluster_of_two, plane)) for _ in range(1000)]
        check()
        assert all(is_closed(one) for one in strangers)


@pytest.mark.parametrize("says_hello", [False, True])
def test_announced_bodies_cost_what_was_sent_at_most(cluster, plane, says_hello):
    """64 MiB announced by 20 strangers, who send as much of it as they are let."""
    one = cluster(nodes=2)
    with undisturbed(one, growth=192 * MIB) as check, contextlib.ExitStack() as stack:
        chunk = bytes(MIB)
        before = one.nodes[0].anonymous_kilobytes()
        peak = 0
        for number in range(20):
            stranger = stack.enter_context(dial(one, plane))
            with contextlib.suppress(ConnectionError, TimeoutError):
                if says_hello:
                    stranger.sendall(fabric.hello(kind_of(plane), node=0xB00 + number, incarnation=number + 1))
                stranger.sendall(fabric.header(fabric.VIEW, 64 * MIB))
                for _ in range(63):
                    stranger.sendall(chunk)
            peak = max(peak, one.nodes[0].anonymous_kilobytes())
        assert peak - before < 192 << 10, f"{peak - before >> 10} MiB more"
        check()


def test_strangers_who_say_hello_are_no_members(cluster, plane):
    """Three hundred, nowhere to be found: nobody waits for them."""
    one = cluster(nodes=2)
    with undisturbed(one) as check, contextlib.ExitStack() as stack:
        for number in range(300):
            stranger = stack.enter_context(dial(one, plane))
            stranger.sendall(fabric.hello(kind_of(plane), node=0xC00 + number))
        for _ in range(3):
            check()
