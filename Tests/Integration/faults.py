"""What can happen to a cluster of real processes. Each fault is a function of a cluster that is whole; it answers how many
seconds passed from the event until all survivors had the same view, intact, and the same map, and leaves the cluster whole or
lets it be ended. `scripts/bench-cluster` repeats them and holds them against bars; the tests only print the time."""
import base64
import re
import signal
import time

from clusters import Watch

LIMIT = 10


def key_of(node):
    return node.statistics()["cluster_key"]


def without(cluster, gone):
    return [node for node in cluster.nodes if node not in gone]


def lost(cluster, gone):
    """These nodes are killed at once."""
    with Watch(without(cluster, gone)) as watch:
        begun = time.monotonic()
        for node in gone:
            node.process.send_signal(signal.SIGKILL)
        seconds = watch.wait(LIMIT, begun=begun)
    for node in gone:
        node.process.wait(10)
    cluster.nodes = without(cluster, gone)
    return seconds


def killed(cluster):
    """The principal is killed."""
    return lost(cluster, [cluster.nodes[-1]])


def rack_killed(cluster):
    return lost(cluster, [node for node in cluster.nodes if cluster.racks[node.number] == 2])


def all_but_one_killed(cluster):
    return lost(cluster, cluster.nodes[1:])


def restarted_at_once(cluster):
    """Killed, and started at once with what it has kept: its seeds and its ports are the same."""
    node = cluster.nodes[1]
    others = without(cluster, [node])
    key = key_of(others[0])
    begun = time.monotonic()
    cluster.kill(node)
    cluster.restart(node)
    cluster.wait_for(cluster.nodes, LIMIT, other_than=key)
    return time.monotonic() - begun


def paused(cluster, detections=25):
    """Stopped for so many detection times, then continued: how long the others, and then all, took."""
    node = cluster.nodes[-1]
    with Watch(without(cluster, [node])) as others, Watch(cluster.nodes) as everyone:
        begun = time.monotonic()
        node.process.send_signal(signal.SIGSTOP)
        departed = others.wait(LIMIT, begun=begun)
        time.sleep(max(0, detections * cluster.interval * cluster.timeout / 1000 - departed))
        begun = time.monotonic()
        node.process.send_signal(signal.SIGCONT)
        return departed, everyone.wait(LIMIT, begun=begun)


def started_at_once(cluster):
    """All nodes of a cluster that was told to start and has not been waited for."""
    return cluster.wait_for(cluster.nodes, LIMIT)


def started_again(cluster):
    """All are killed, and all are started with what they have kept."""
    for node in cluster.nodes:
        cluster.kill(node)
    begun = time.monotonic()
    for node in list(cluster.nodes):
        cluster.restart(node)
    cluster.wait_for(cluster.nodes, LIMIT)
    return time.monotonic() - begun


# ---- Needs networks ----

def cut_and_healed(cluster):
    """The network between the halves: how long until both are clusters of their own, and, healed, until they are one again."""
    halves = [[node for node in cluster.nodes if (node.number in cluster.east) == is_east] for is_east in (False, True)]
    with Watch(halves[0]) as west, Watch(halves[1]) as east, Watch(cluster.nodes) as everyone:
        begun = time.monotonic()
        cluster.cut()
        while not (west.agree(west.views()) and east.agree(east.views())):
            assert time.monotonic() - begun < LIMIT, (west.views(), east.views())
            time.sleep(0.005)
        apart = time.monotonic() - begun
        # As long as a person needs, in detection times: nobody tries every moment any more.
        time.sleep(10 * cluster.interval * cluster.timeout / 1000)
        begun = time.monotonic()
        cluster.heal()
        return apart, everyone.wait(LIMIT, begun=begun)


def rack_pulled(cluster):
    """The cables of all nodes of a rack, and plugged in again."""
    gone = [node for node in cluster.nodes if cluster.racks[node.number] == 2]
    numbers = [node.number for node in gone]
    with Watch(without(cluster, gone)) as watch, Watch(cluster.nodes) as everyone:
        begun = time.monotonic()
        cluster.pull(*numbers)
        departed = watch.wait(LIMIT, begun=begun)
        time.sleep(10 * cluster.interval * cluster.timeout / 1000)
        begun = time.monotonic()
        cluster.plug_in_again(*numbers)
        return departed, everyone.wait(LIMIT, begun=begun)


# ---- Planned changes ----

def reclustered(cluster):
    with Watch(cluster.nodes) as watch:
        key = key_of(cluster.nodes[0])
        begun = time.monotonic()
        assert cluster.nodes[-1].info("recluster:") == "ok"
        return watch.wait(LIMIT, other_than=key, begun=begun)


def quiesced(cluster):
    """A node is quiesced, and the cluster agrees again."""
    with Watch(cluster.nodes) as watch:
        key = key_of(cluster.nodes[0])
        begun = time.monotonic()
        assert cluster.nodes[0].info("quiesce:") == "ok"
        assert cluster.nodes[-1].info("recluster:") == "ok"
        seconds = watch.wait(LIMIT, other_than=key, begun=begun)
    assert cluster.nodes[0].statistics("namespace/test")["effective_is_quiesced"] == "true"
    assert cluster.nodes[0].info("quiesce-undo:") == "ok"
    return seconds


def left(cluster):
    """A node is told to stop: until the others serve all that it served, and until they are a cluster without it. In between it
    still answers clients who do not know that yet."""
    leaver, others = cluster.nodes[0], cluster.nodes[1:]
    with Watch(cluster.nodes) as everyone, Watch(others) as watch, leaver.raw() as last:
        key = key_of(others[0])
        begun = time.monotonic()
        leaver.process.send_signal(signal.SIGTERM)
        served = everyone.wait(LIMIT, other_than=key, begun=begun)
        published = last.info("replicas").split(";")[0].split(",")
        assert base64.b64decode(published[2]) == bytes(512), "nobody is told any more that it is master of anything"
        gone = watch.wait(LIMIT, begun=begun)
    cluster.nodes = others
    return served, gone


def joined(cluster):
    """A node that was away comes: from the first pulse that another has heard of it."""
    node = cluster.nodes[0]
    lost(cluster, [node])
    first = cluster.nodes[0]
    told = len(first.log)
    cluster.nodes.insert(0, node)
    again = cluster.restart(node)
    pattern = re.compile(rf"node {cluster.id(node.number)}/\w+ has arrived")
    with Watch(cluster.nodes[1:]) as watch:
        while not pattern.search(first.log, told):
            time.sleep(0.002)
        begun = time.monotonic()
        while {view[0] for view in watch.views()} != {str(len(cluster.nodes))}:
            assert time.monotonic() - begun < LIMIT, watch.views()
            time.sleep(0.005)
        cluster.ready(again)
        cluster.wait_for(cluster.nodes, LIMIT)
        return time.monotonic() - begun
