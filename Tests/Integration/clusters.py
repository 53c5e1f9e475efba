"""Clusters of real processes on 127.0.0.1: formed, watched, broken and ended by their process ids."""
import contextlib
import signal
import socket
import time

import aerospike
from conftest import Server

NAMESPACE = "namespace test { %s\n storage-engine memory\n}\n"


def free_ports(count):
    """Ports nobody listens on now, below those that the system gives to clients."""
    found = []
    with contextlib.ExitStack() as stack:
        for port in range(20000 + time.monotonic_ns() // 1000 % 8000, 32000):
            probe = stack.enter_context(socket.socket())
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            with contextlib.suppress(OSError):
                probe.bind(("127.0.0.1", port))
                found.append(port)
            if len(found) == count:
                return found
    raise AssertionError("no free ports")


class Cluster:
    """Nodes that find each other by seeds. Node `n` has id `A0n`."""

    def __init__(self, nodes=3, racks=None, interval=50, timeout=4, name="blue", settings="", wait=True, service="",
                 names=None):
        self.interval, self.timeout, self.settings, self.service = interval, timeout, settings, service
        self.names = names or [name] * nodes
        self.racks = racks or [0] * nodes
        self.heartbeats = free_ports(nodes)
        self.nodes = []
        for number in range(nodes):
            self.nodes.append(self.start(number))
        if wait:
            self.wait_for(self.nodes)

    def id(self, number):
        return f"A0{number:X}"

    def start(self, number, directory=None):
        """A node; with the directory of one that has ended, that one again."""
        seeds = "".join(f"mesh-seed-address-port 127.0.0.1 {port}\n" for port in self.heartbeats)
        network = (
            "service { address 127.0.0.1\n port 0\n}\nfabric { address 127.0.0.1\n port 0\n}\n"
            f"heartbeat {{ mode mesh\n address 127.0.0.1\n port {self.heartbeats[number]}\n interval {self.interval}\n"
            f"timeout {self.timeout}\n{seeds}}}\n")
        service = f"cluster-name {self.names[number]}\nnode-id {self.id(number)}\nstart-wait 2\n{self.service}"
        namespace = NAMESPACE % f"rack-id {self.racks[number]}\n replication-factor 2\n{self.settings}"
        node = Server(namespace, service=service, network=network, directory=directory, threads=1, wait=False)
        node.number = number
        return node

    def restart(self, node):
        """Starts a node that has ended again, with what it has kept, in the same place of the list."""
        again = self.start(node.number, directory=node.directory)
        self.nodes[self.nodes.index(node)] = again
        return again

    def ready(self, node, seconds=20):
        """The node serves: its port is known from here on."""
        if not node.endpoints:
            found = node.wait_for_log(r"service ready on (\S.*): namespaces", seconds)
            node.endpoints = found.group(1).split(", ")
            node.port = int(node.endpoints[0].rsplit(":", 1)[1])
        return node

    def view(self, node):
        """Size, key, integrity and map as a node sees them."""
        statistics = node.statistics()
        return tuple(statistics[name] for name in ("cluster_size", "cluster_key", "cluster_integrity", "cluster_map_hash"))

    def wait_for(self, nodes, seconds=20):
        """Until these nodes, and no others, are one cluster with one map. How long that took."""
        begun = time.monotonic()
        for node in nodes:
            self.ready(node, seconds)
        views = []
        while time.monotonic() - begun < seconds:
            views = [self.view(node) for node in nodes]
            if len(set(views)) == 1 and views[0][0] == str(len(nodes)) and views[0][2] == "true":
                return time.monotonic() - begun
            time.sleep(0.01)
        logs = "\n".join(f"---- node {self.id(node.number)}\n{node.log[-3000:]}" for node in nodes)
        raise AssertionError(f"no cluster of {len(nodes)}: {views}\n{logs}")

    def kill(self, node, number=signal.SIGKILL):
        node.process.send_signal(number)
        if number == signal.SIGKILL:
            node.process.wait(10)

    def client(self, *seeds, **policies):
        """A client that knows only these nodes."""
        hosts = [("127.0.0.1", node.port) for node in seeds or self.nodes]
        return aerospike.client({"hosts": hosts, "policies": policies}).connect()

    def end(self):
        for node in getattr(self, "nodes", []):
            if node.process.poll() is None:
                node.process.kill()
                node.process.wait(10)
