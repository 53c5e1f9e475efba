"""Clusters whose nodes have a network each: cables can be pulled, and the network can be cut in two. Needs root."""
import contextlib
import ctypes
import itertools
import os
import subprocess

from clusters import Cluster
from conftest import BINARY, RawClient, Server

COUNTER = itertools.count()
NEW_NETWORK = 0x40000000


def ip(network, *lines):
    """Runs commands of `ip` in a network."""
    subprocess.run(["ip", "-n", network, "-batch", "-"], input="\n".join(lines) + "\n", text=True, check=True)


def available():
    """Whether this system lets us make networks."""
    name = f"apus-{os.getpid()}-try"
    if subprocess.run(["ip", "netns", "add", name], capture_output=True).returncode != 0:
        return False
    made = subprocess.run(["ip", "-n", name, "link", "add", "west", "type", "bridge"], capture_output=True)
    subprocess.run(["ip", "netns", "delete", name], capture_output=True)
    return made.returncode == 0


def enter(network):
    """Moves this thread; `os.setns` came with Python 3.12."""
    if ctypes.CDLL(None, use_errno=True).setns(network.fileno(), NEW_NETWORK) != 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()), network.name)


@contextlib.contextmanager
def inside(network):
    """Sockets that this thread makes belong to that network, for good."""
    with open("/proc/thread-self/ns/net") as home, open(f"/run/netns/{network}") as other:
        enter(other)
        try:
            yield
        finally:
            enter(home)


class NetworkNode(Server):
    """A node in a network of its own. Its info port is on the loopback there: no cut hides it from the test."""

    def __init__(self, place, *arguments, **named):
        self.place = place
        super().__init__(*arguments, command=["ip", "netns", "exec", place, BINARY, "serve", "--config"], **named)

    def raw(self, port=None):
        with inside(self.place):
            return RawClient(port or self.port)


class NetworkCluster(Cluster):
    """Node `n` has address 10.77.0.n+1 and hangs at one of two switches, which are joined by one cable. `east` has the numbers
    of those at the second."""

    def __init__(self, nodes=3, east=(), **named):
        self.prefix = f"apus-{os.getpid()}-{next(COUNTER)}"
        self.switch = f"{self.prefix}-s"
        self.east = set(east)
        self.networks = []
        subprocess.run(["ip", "netns", "add", self.switch], check=True)
        self.networks.append(self.switch)
        self.on_switch("link add west type bridge", "link add east type bridge", "link set west up", "link set east up",
                       "link add joint0 type veth peer name joint1", "link set joint0 master west up",
                       "link set joint1 master east up")
        for number in range(nodes):
            self.plug(number)
        super().__init__(nodes, **named)

    def on_switch(self, *lines):
        ip(self.switch, *lines)

    def plug(self, number):
        network = self.network(number)
        subprocess.run(["ip", "netns", "add", network], check=True)
        self.networks.append(network)
        self.on_switch(f"link add port{number} type veth peer name cable netns {network}",
                       f"link set port{number} master {'east' if number in self.east else 'west'} up")
        ip(network, "link set lo up", f"address add {self.address(number)}/24 dev cable", "link set cable up")

    def network(self, number):
        return f"{self.prefix}-{number}"

    def address(self, number):
        return f"10.77.0.{number + 1}"

    def ports(self, nodes):
        return [3002] * nodes, [3001] * nodes

    def server(self, number, *arguments, **named):
        return NetworkNode(self.network(number), *arguments, **named)

    def cut(self):
        """West and east lose each other: silence, nobody is told."""
        self.on_switch("link set joint0 down")

    def heal(self):
        self.on_switch("link set joint0 up")

    def pull(self, *numbers):
        """Takes the cables of these nodes out of their switch."""
        self.on_switch(*(f"link set port{number} nomaster" for number in numbers))

    def plug_in_again(self, *numbers):
        self.on_switch(*(f"link set port{number} master {'east' if number in self.east else 'west'}" for number in numbers))

    def end(self):
        super().end()
        for network in self.networks:
            subprocess.run(["ip", "netns", "delete", network], capture_output=True)
