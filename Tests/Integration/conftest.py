"""Servers for the tests: the shipped binary, real ports, real processes. The binary is APUS_BIN, else .build/release/apus.

With APUS_ENGINE=name the namespaces that say nothing but `storage-engine memory` run on that backend, in apus-full."""
import itertools
import os
import re
import resource
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import time
import zlib

import aerospike
import pytest

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
# A node with backends of the tests' own, from the checked build.
TEST_NODE = os.environ.get("APUS_TEST_NODE", os.path.join(ROOT, ".build-checked", "release", "TestNode"))
BINARY = os.environ.get("APUS_BIN", os.path.join(ROOT, ".build", "release", "apus"))
# The server with the plugins by source, and the LMDB plugin as a shared object (scripts/plugins build).
FULL = os.environ.get("APUS_FULL", os.path.join(ROOT, ".build-full", "release", "apus-full"))
LMDB = os.environ.get("APUS_LMDB", os.path.join(ROOT, ".build-full", "lmdb", "apus-lmdb.so"))
ENGINES = {
    "memory": "storage-engine memory",
    "device": "storage-engine device { file %FILE\n filesize 96M\n post-write-cache 8M\n flush-max-ms 200\n}",
    "pmem": "storage-engine pmem { file %FILE\n filesize 96M\n}",
    "rocksdb": "storage-engine rocksdb",
    "lmdb": "storage-engine lmdb { map-size 1G\n}",
    "template": "storage-engine template",
    "tiered": "storage-engine tiered { hot-size 16M\n cold rocksdb\n}",
}
ENGINE = os.environ.get("APUS_ENGINE", "memory")
# Backends of the plain binary.
OURS = ("memory", "device", "pmem")
# What was not built, because its library could not be installed, is not tested.
needs_full = pytest.mark.skipif(not os.path.exists(FULL), reason="apus-full was not built: no librocksdb")


def shm_segments(mount, owner):
    """Directories of the segments on a mount that a node with this work directory has made."""
    rows = subprocess.run([BINARY, "shm", "list", "--mount", mount], capture_output=True, text=True, check=True).stdout
    return [line.split()[-1] for line in rows.splitlines() if os.path.realpath(owner) in line]


def engines(*names):
    """These backends as parameters of a test."""
    return [pytest.param(name, marks=[] if name in OURS else [needs_full, pytest.mark.skipif(
        name == "lmdb" and not os.path.exists(LMDB), reason="the LMDB plugin was not built")]) for name in names]


def command_of(engine):
    """The server that has this backend."""
    return [BINARY if engine in OURS else FULL, "serve", "--config"]


def plugin_block(engine):
    return f"plugin {{ path {LMDB}\n}}\n" if engine == "lmdb" else ""

THREE_NAMESPACES = """
namespace test { nsup-period 120
  storage-engine memory
}
namespace ttl { default-ttl 100
  nsup-period 120
  default-read-touch-ttl-pct 50
  storage-engine memory
}
namespace small { max-record-size 2K
  disallow-null-setname true
  storage-engine memory
}
"""


class Server:
    """One node. `namespaces` is configuration text; `service` and `network` are lines of those sections."""
    everyone = []

    def __init__(self, namespaces=THREE_NAMESPACES, service="", network=None, environment=None, descriptors=None,
                 logging="", wait=True, threads=2, command=None, directory=None):
        self.directory = directory or tempfile.mkdtemp(prefix="apus-test-")
        self.owns_directory = directory is None
        if ENGINE != "memory" and command is None and "storage-engine memory\n" in namespaces:
            namespaces = plugin_block(ENGINE) + namespaces.replace("storage-engine memory\n", ENGINES[ENGINE] + "\n")
            command = command_of(ENGINE)
        # Each namespace on a device has a file of its own.
        files = itertools.count()
        namespaces = re.sub("%FILE", lambda _: f"{self.directory}/ssd{next(files)}.dat", namespaces)
        # Shared memory of a node outlives it: it is removed at the end.
        self.keeps_memory = "index-type" in namespaces or re.search("storage-engine (device|pmem)", namespaces) is not None
        network = network or "service { address 127.0.0.1\n port 0\n}\n"
        self.configuration = os.path.join(self.directory, "apus.conf")
        with open(self.configuration, "w") as file:
            file.write(f"service {{ work-directory {self.directory}/var\n service-threads {threads}\n{service}\n}}\n"
                       f"{logging}\nnetwork {{\n{network}\n}}\n{namespaces}\n")
        self.command = [*(command or [BINARY, "serve", "--config"]), self.configuration]
        starts = sum(name.startswith("log") for name in os.listdir(self.directory))
        self.log_path = os.path.join(self.directory, f"log{starts}")
        limit = (lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (descriptors, descriptors))) if descriptors else None
        with open(self.log_path, "w") as log:
            self.process = subprocess.Popen(
                self.command, stdout=log, stderr=log, preexec_fn=limit,
                env={**os.environ, "PMEM_IS_PMEM_FORCE": "1", **(environment or {})}, cwd=self.directory)
        Server.everyone.append(self)
        self.endpoints = []
        self.clients = []
        if wait:
            ready = self.wait_for_log(r"service ready on (\S.*): namespaces")
            self.endpoints = ready.group(1).split(", ")
            self.port = int(self.endpoints[0].rsplit(":", 1)[1])

    @property
    def log(self):
        with open(self.log_path) as file:
            return file.read()

    def wait_for_log(self, pattern, seconds=10):
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            found = re.search(pattern, self.log)
            if found:
                return found
            if self.process.poll() is not None:
                raise AssertionError(f"the node ended with {self.process.returncode}:\n{self.log}")
            time.sleep(0.02)
        raise AssertionError(f"no {pattern!r} in:\n{self.log}")

    def client(self, **policies):
        client = aerospike.client({"hosts": [("127.0.0.1", self.port)], "policies": policies}).connect()
        self.clients.append(client)
        return client

    def raw(self, port=None):
        return RawClient(port or self.port)

    def info(self, command, port=None):
        with self.raw(port) as raw:
            return raw.info(command)

    def statistics(self, command="statistics"):
        return dict(pair.split("=", 1) for pair in self.info(command).split(";"))

    def anonymous_kilobytes(self):
        """What the process has in ordinary memory; shared and persistent memory holds what it keeps."""
        with open(f"/proc/{self.process.pid}/status") as file:
            return next(int(line.split()[1]) for line in file if line.startswith("RssAnon"))

    def end_with_failure(self, seconds=10):
        """The exit code and what was printed of a node that cannot start."""
        return self.process.wait(seconds), self.log

    def stop(self, number=signal.SIGTERM):
        for client in self.clients:
            client.close()
        if self.process.poll() is None:
            self.process.send_signal(number)
        try:
            return self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            raise AssertionError(f"the node did not stop:\n{self.log}") from None


class RawClient:
    """The protocol by hand."""

    def __init__(self, port, host="127.0.0.1"):
        self.socket = socket.create_connection((host, port), timeout=10)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.socket.close()

    def send(self, data):
        self.socket.sendall(data)

    def receive(self, count):
        data = b""
        while len(data) < count:
            piece = self.socket.recv(count - len(data))
            if not piece:
                raise EOFError(f"closed after {len(data)} of {count} bytes")
            data += piece
        return data

    def frame(self):
        """Type and body of the next frame."""
        head = struct.unpack(">Q", self.receive(8))[0]
        assert head >> 56 == 2
        return head >> 48 & 0xFF, self.receive(head & 0xFFFFFFFFFFFF)

    def ask(self, data):
        self.send(data)
        kind, body = self.frame()
        if kind == 4:
            whole = zlib.decompress(body[8:])
            assert len(whole) == struct.unpack(">Q", body[:8])[0]
            kind, body = whole[1], whole[8:]
        assert kind == 3
        return Answer(body)

    def info(self, command):
        self.send(frame(1, command.encode() + b"\n"))
        kind, body = self.frame()
        assert kind == 1
        line = body.decode().rstrip("\n")
        assert line.startswith(command + "\t"), line
        return line[len(command) + 1:]

    def is_closed(self):
        try:
            return self.socket.recv(1) == b""
        except ConnectionResetError:
            return True


class Answer:
    def __init__(self, body):
        head = struct.unpack(">BBBBBBIIIHH", body[:22])
        assert head[0] == 22
        self.info3, self.result, self.generation, self.void_time = head[3], head[5], head[6], head[7]
        self.bins = []
        at = 22
        assert head[9] == 0, "answers to single records have no fields"
        for _ in range(head[10]):
            size, _, kind, _, name = struct.unpack(">IBBBB", body[at:at + 8])
            self.bins.append((body[at + 8:at + 8 + name].decode(), kind, body[at + 8 + name:at + 4 + size]))
            at += 4 + size
        assert at == len(body)


def frame(kind, body):
    return struct.pack(">Q", 2 << 56 | kind << 48 | len(body)) + body


def field(number, value):
    return struct.pack(">IB", len(value) + 1, number) + value


def operation(code, kind, name, value=b""):
    return struct.pack(">IBBBB", 4 + len(name) + len(value), code, kind, 0, len(name)) + name + value


def integer(value):
    return struct.pack(">q", value)


def message(digest, operations=(), info1=0, info2=0, info3=0, generation=0, ttl=0, timeout=1000, fields=(),
            namespace=b"test", set_name=b"raw"):
    all_fields = [field(0, namespace), field(1, set_name), field(4, digest), *fields]
    head = struct.pack(">BBBBBBIIIHH", 22, info1, info2, info3, 0, 0, generation, ttl, timeout, len(all_fields),
                       len(operations))
    return frame(3, head + b"".join(all_fields) + b"".join(operations))


def digest(number):
    """A digest for each number, another one in each file: files share a server, and may take any set for theirs."""
    file = zlib.crc32(os.path.basename(sys._getframe(1).f_code.co_filename).encode())
    return struct.pack("<QQI", number * 0x9E3779B97F4A7C15 % 2**64, number, file)


def get(of, **more):
    return message(of, info1=3, **more)


def put(of, value, name=b"a", **more):
    return message(of, [operation(2, 1, name, integer(value))], info2=1, **more)


def delete(of, durable=False, **more):
    return message(of, info2=0x13 if durable else 3, **more)


def pytest_sessionfinish():
    """What a failed test has left running."""
    for node in Server.everyone:
        if node.process.poll() is None:
            node.process.kill()
            node.process.wait()
    for directory in {node.directory for node in Server.everyone if node.keeps_memory}:
        subprocess.run([BINARY, "shm", "remove", "--owner", f"{directory}/var", "--yes"], capture_output=True)
    for node in Server.everyone:
        if node.owns_directory:
            shutil.rmtree(node.directory, ignore_errors=True)


def pytest_configure(config):
    config.addinivalue_line("markers", "memory_only: what it tests is a property of the memory backend or of no backend at all")


def pytest_collection_modifyitems(config, items):
    """On another backend only what touches records, and does not choose its backend itself, is worth running again."""
    if ENGINE != "memory":
        gone = [item for item in items if item.get_closest_marker("memory_only")
                or "engine" in getattr(getattr(item, "callspec", None), "params", {})]
        config.hook.pytest_deselected(items=gone)
        items[:] = [item for item in items if item not in gone]


@pytest.fixture(scope="session")
def server():
    node = Server()
    yield node
    assert node.stop() == 0, node.log
    assert "CRITICAL" not in node.log


@pytest.fixture(scope="session")
def client(server):
    return server.client()


@pytest.fixture
def own_server():
    """Makes servers for one test and stops what is left of them."""
    nodes = []

    def make(*arguments, **named):
        nodes.append(Server(*arguments, **named))
        return nodes[-1]

    yield make
    for node in nodes:
        if node.process.poll() is None:
            assert node.stop() == 0, node.log


def clusters_of(kind):
    """Makes clusters for one test and ends what is left of their nodes."""
    made = []

    def make(*arguments, **named):
        # Known before its nodes have found each other: a test that fails then leaves nothing running.
        one = kind.__new__(kind)
        made.append(one)
        one.__init__(*arguments, **named)
        return one

    yield make
    for one in made:
        one.end()


@pytest.fixture
def cluster():
    """Makes clusters on the loopback."""
    from clusters import Cluster
    yield from clusters_of(Cluster)


@pytest.fixture
def network_cluster():
    """Makes clusters whose nodes have a network each."""
    import networks
    if not networks.available():
        pytest.skip("this system does not let us make networks: run the tests as root")
    yield from clusters_of(networks.NetworkCluster)


@pytest.fixture
def key(request):
    """A key of this test's own."""
    return ("test", "demo", request.node.nodeid)
