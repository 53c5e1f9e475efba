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


def view_of(statistics):
    return tuple(statistics[name] for name in ("cluster_size", "cluster_key", "cluster_integrity", "cluster_map_hash"))


class Watch:
    """Nodes that are asked again and again for what they see, over connections that stay open."""

    def __init__(self, nodes):
        self.nodes = list(nodes)
        self.connections = [node.raw() for node in self.nodes]

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for connection in self.connections:
            connection.socket.close()

    def views(self):
        return [view_of(dict(pair.split("=", 1) for pair in connection.info("statistics").split(";")))
                for connection in self.connections]

    def agree(self, views, other_than=None, size=None):
        found, key, is_intact, _ = views[0]
        return len(set(views)) == 1 and (found, is_intact) == (str(size or len(views)), "true") and key != other_than

    def wait(self, seconds=10, other_than=None, begun=None, size=None):
        """Until they are in one cluster of this size, and all have its map; without a size no others are in it. Seconds from
        `begun`, a time of `time.monotonic`, or from now."""
        begun = time.monotonic() if begun is None else begun
        views = []
        while time.monotonic() - begun < seconds:
            views = self.views()
            if self.agree(views, other_than, size):
                return time.monotonic() - begun
            time.sleep(0.005)
        logs = "\n".join(f"---- {node.log_path}\n{node.log[-3000:]}" for node in self.nodes)
        raise AssertionError(f"no cluster of {size or len(self.nodes)}: {views}\n{logs}")


class Cluster:
    """Nodes that find each other by seeds. Node `n` has id `A0n`."""

    def __init__(self, nodes=3, racks=None, interval=50, timeout=4, name="blue", settings="", wait=True, service="",
                 names=None, ids=None, fabric_addresses=None):
        self.interval, self.timeout, self.settings, self.service = interval, timeout, settings, service
        self.names = names or [name] * nodes
        self.racks = racks or [0] * nodes
        # Where nodes say that their fabric is, if not at their address.
        self.fabric_addresses = fabric_addresses or {}
        self.ids = ids or [f"A0{number:X}" for number in range(nodes)]
        self.heartbeats, self.fabrics = self.ports(nodes)
        self.nodes = []
        for number in range(nodes):
            self.nodes.append(self.start(number))
        if wait:
            self.wait_for(self.nodes)

    def id(self, number):
        return self.ids[number]

    def address(self, number):
        """Where other nodes find it."""
        return "127.0.0.1"

    def ports(self, nodes):
        """The heartbeat ports of all nodes, and the fabric ports."""
        free = free_ports(2 * nodes)
        return free[:nodes], free[nodes:]

    def server(self, number, *arguments, **named):
        return Server(*arguments, **named)

    def start(self, number, directory=None):
        """A node; with the directory of one that has ended, that one again."""
        seeds = "".join(f"mesh-seed-address-port {self.address(other)} {port}\n" for other, port in enumerate(self.heartbeats))
        address = self.address(number)
        fabric = self.fabric_addresses.get(number, address)
        network = (
            f"service {{ address 127.0.0.1\n port 0\n}}\nfabric {{ address {fabric}\n port {self.fabrics[number]}\n}}\n"
            f"heartbeat {{ mode mesh\n address {address}\n port {self.heartbeats[number]}\n interval {self.interval}\n"
            f"timeout {self.timeout}\n{seeds}}}\n")
        service = f"cluster-name {self.names[number]}\nnode-id {self.id(number)}\nstart-wait 2\n{self.service}"
        namespace = NAMESPACE % f"rack-id {self.racks[number]}\n replication-factor 2\n{self.settings}"
        node = self.server(number, namespace, service=service, network=network, directory=directory, threads=1, wait=False)
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
        return view_of(node.statistics())

    def wait_for(self, nodes, seconds=20, other_than=None):
        """Until these nodes, and no others, are one cluster with one map, under another key than that. How long that took."""
        begun = time.monotonic()
        for node in nodes:
            self.ready(node, seconds)
        with Watch(nodes) as watch:
            watch.wait(seconds, other_than, begun)
        return time.monotonic() - begun

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
