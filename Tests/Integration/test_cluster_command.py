"""`apus cluster`: a cluster on one machine in one command, what it looks like, and what is said when it is not whole."""
import contextlib
import fcntl
import itertools
import os
import pty
import re
import signal
import socket
import struct
import subprocess
import termios
import time

import aerospike
import pytest
from clusters import free_ports
from conftest import BINARY, ROOT, RawClient

pytestmark = pytest.mark.memory_only


class Local:
    """A directory, and the commands that are given it."""

    def __init__(self, directory):
        self.directory = str(directory / "local")

    def run(self, *words, code=0, seconds=60):
        """What a command prints; both streams."""
        done = subprocess.run([BINARY, "cluster", *words, "--directory", self.directory], capture_output=True, text=True,
                              timeout=seconds)
        assert done.returncode == code, done.stdout + done.stderr
        return done.stdout + done.stderr

    def up(self, *words, **more):
        return self.run("up", "--detach", "--interval", "50", *words, **more)

    @property
    def nodes(self):
        """Port for clients of each node, by id."""
        with open(os.path.join(self.directory, "cluster")) as file:
            rows = [line.split() for line in file if line.startswith("node ")]
        return {f"A{int(number):02X}": int(service) for _, number, service, _, _ in rows}

    def process(self, number):
        """The process id of a node by its number from 1."""
        with open(os.path.join(self.directory, f"node{number}", "work", "apus.lock")) as file:
            return int(file.readline())

    def info(self, node, command):
        with RawClient(self.nodes[node]) as raw:
            return raw.info(command)

    def client(self):
        return aerospike.client({"hosts": [("127.0.0.1", port) for port in self.nodes.values()]}).connect()

    def wait_for_status(self, pattern, seconds=20):
        deadline = time.monotonic() + seconds
        while True:
            done = subprocess.run([BINARY, "cluster", "status", "--directory", self.directory], capture_output=True, text=True)
            if re.search(pattern, done.stdout):
                return done
            assert time.monotonic() < deadline, done.stdout + done.stderr
            time.sleep(0.1)

    def end(self):
        if os.path.exists(os.path.join(self.directory, "cluster")):
            subprocess.run([BINARY, "cluster", "down", "--directory", self.directory], timeout=60, check=True,
                           stdout=subprocess.DEVNULL)


@pytest.fixture
def local(tmp_path):
    one = Local(tmp_path)
    yield one
    one.end()


def rows(text, title):
    """The rows of a table below the line that begins with `title`, and the line of names, as words."""
    lines = text.split("\n")
    first = next(number for number, line in enumerate(lines) if line.startswith(title)) + 1
    return [line.split() for line in lines[first:first + lines[first:].index("")]]


def test_a_name_without_an_address():
    done = subprocess.run([BINARY, "cluster", "status", "no-such-host.invalid:3000"], capture_output=True, text=True, timeout=60)
    assert done.returncode == 2
    assert "cannot connect to no-such-host.invalid:3000: there is no address of that name" in done.stderr


# ---- Up, status, down ----

def test_up_status_explain_down(local):
    text = local.up("--nodes", "3", "--racks", "2")
    assert re.search(rf"A01 +127.0.0.1:{local.nodes['A01']} +1 +{local.process(1)} ", text)
    assert "apus cluster down" in text
    for node in local.nodes:
        assert local.info(node, "racks:") in ("ns=test:rack_1=A01,A03:rack_2=A02", "ns=test:rack_1=A03,A01:rack_2=A02")

    status = local.run("status")
    key = dict(pair.split("=", 1) for pair in local.info("A02", "statistics").split(";"))["cluster_key"]
    assert f"key {key}, principal A03, 3 members" in status and status.endswith("the cluster is whole\n")
    assert "\x1b" not in status, "no colours but on terminals"
    table = {row[0]: row for row in rows(status, "namespace test") if row[0].startswith("A0")}
    assert [int(row[2]) for row in table.values()] == [1365, 1366, 1365]
    assert sum(int(row[3]) for row in table.values()) == 4096
    assert table["A02"][3] == "2730", "the only node of its rack has a copy of everything"
    assert "0 partitions without a master; 0 copies wait" in status

    told = local.run("explain", "7")
    assert told.startswith("partition 7 of namespace test") and told.count("\n") > 10 and ";" not in told
    port = next(iter(local.nodes.values()))
    assert subprocess.run([BINARY, "cluster", "explain", "7", f"127.0.0.1:{port}"], capture_output=True, text=True,
                          check=True).stdout == told

    assert "run already" in local.up(code=1)
    assert "3 nodes" in local.run("down")
    assert "no node" in local.run("down")
    local.run("status", code=2)


def test_one_address_leads_to_all_nodes(local):
    local.up("--nodes", "3", "--in-memory")
    for port in local.nodes.values():
        done = subprocess.run([BINARY, "cluster", "status", f"127.0.0.1:{port}"], capture_output=True, text=True)
        assert done.returncode == 0 and all(f"127.0.0.1:{other}" in done.stdout for other in local.nodes.values())


def test_started_again_it_goes_on(local):
    local.up("--nodes", "2")
    before, identities = local.nodes, [local.info(node, "node") for node in local.nodes]
    client = local.client()
    for number in range(100):
        client.put(("test", "demo", number), {"n": number})
    client.close()
    local.run("down")
    assert "give --nodes 2 or more" in local.up("--nodes", "1", code=1)
    local.up()
    assert local.nodes == before and [local.info(node, "node") for node in local.nodes] == identities
    client = local.client()
    assert [client.get(("test", "demo", number))[2] for number in range(100)] == [{"n": number} for number in range(100)]
    client.close()
    assert "keeps its records in files" in local.up("--in-memory", code=1)
    assert "before anything is changed" in local.up("--nodes", "3", "--racks", "3", code=1), "while nodes run"
    local.up("--nodes", "3")
    assert list(local.nodes) == ["A01", "A02", "A03"] and "3 members" in local.run("status")


def test_a_port_that_somebody_took_is_replaced(local):
    local.up("--nodes", "2", "--in-memory")
    local.run("down")
    before = local.nodes
    with socket.socket() as taken:
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        taken.bind(("127.0.0.1", before["A01"]))
        taken.listen()
        local.up()
        assert local.nodes["A01"] != before["A01"] and local.nodes["A02"] == before["A02"]
        local.run("down")
        text = local.up("--base-port", str(before["A01"]), code=1)
        assert f"127.0.0.1:{before['A01']} is in use" in text and "--base-port" in text


def test_base_port(local):
    base = next(port for port in free_ports(60) if port % 10 == 0)
    local.up("--nodes", "2", "--in-memory", "--base-port", str(base))
    assert local.nodes == {"A01": base, "A02": base + 10}


# ---- What is not whole ----

def test_a_killed_node_is_missed_and_started_again(local):
    local.up("--nodes", "3", "--in-memory")
    gone = local.nodes["A02"]
    os.kill(local.process(2), signal.SIGKILL)
    done = local.wait_for_status(r"2 members(?s:.*)\n0 partitions without(?s:.*)not whole")
    assert done.returncode == 1 and f"cannot connect to 127.0.0.1:{gone}" in done.stdout
    others = subprocess.run([BINARY, "cluster", "status", f"127.0.0.1:{local.nodes['A01']}"], capture_output=True, text=True)
    assert others.returncode == 0 and "2 members" in others.stdout, "who is not a member is not missed"
    processes = local.process(1), local.process(3)
    assert "starting 1 node " in local.up()
    assert (local.process(1), local.process(3)) == processes
    assert "3 members" in local.run("status")


def test_two_clusters_are_not_one(local, cluster):
    """Nodes that run and do not know each other: named by view."""
    local.up("--nodes", "2", "--in-memory")
    other = cluster(nodes=1)
    with open(os.path.join(local.directory, "cluster"), "a") as file:
        file.write(f"node 3 {other.nodes[0].port} 1 1\n")
    text = local.run("status", code=1)
    assert "not all nodes are in one view: A01, A02 in" in text and "not all nodes are in one view: A00 in" in text
    assert "4096 partitions with more than one master" in text


def test_two_at_once_do_not_wreck_each_other(local):
    command = [BINARY, "cluster", "up", "--detach", "--interval", "50", "--in-memory", "--directory", local.directory]
    both = [subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) for _ in range(2)]
    told = [one.communicate(timeout=60)[0] for one in both]
    assert sorted(one.returncode for one in both) == [0, 1], told
    assert sum("another 'apus cluster up' starts nodes in" in text or "run already" in text for text in told) == 1, told
    assert len(local.nodes) == 3 and local.run("status").endswith("the cluster is whole\n")


def on_terminal(local, columns):
    """What `status` draws on a terminal that is so wide."""
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 50, columns, 0, 0))
    done = subprocess.Popen([BINARY, "cluster", "status", "--directory", local.directory], stdout=slave,
                            env={**os.environ, "NO_COLOR": "1"})
    os.close(slave)
    text = b""
    with open(master, "rb", buffering=0) as reader, contextlib.suppress(OSError):
        while part := reader.read(65536):
            text += part
    done.wait(10)
    return text.decode().splitlines()


def test_status_fits_the_terminal(local):
    local.up("--nodes", "2", "--in-memory")
    assert local.info("A01", "set-config:context=namespace;namespace=test;replication-factor=1") == "ok"
    assert local.info("A02", "recluster:") == "ok"
    local.wait_for_status("replication-factor is 1")
    narrow, wide = on_terminal(local, 60), on_terminal(local, 200)
    assert max(len(line) for line in narrow) <= 60, narrow
    assert max(len(line) for line in wide) > 80 and len(wide) < len(narrow)
    assert any(line.startswith("A01") and "#" in line for line in narrow)


def test_status_in_no_view_says_why_and_nothing_of_copies(local):
    local.up("--nodes", "2", "--in-memory")
    assert local.info("A01", "set-config:context=service;min-cluster-size=2") == "ok"
    os.kill(local.process(2), signal.SIGKILL)
    done = local.wait_for_status("A01 belongs to no view: there are 1 nodes, min-cluster-size is 2")
    assert done.returncode == 1 and "the cluster is not whole" in done.stdout
    assert "copies wait" not in done.stdout and "of each partition" not in done.stdout


def test_problems_are_shown_with_who_sees_them(local):
    local.up("--nodes", "2", "--in-memory")
    assert local.info("A01", "set-config:context=namespace;namespace=test;replication-factor=1") == "ok"
    assert local.info("A02", "recluster:") == "ok"
    done = local.wait_for_status("(?s)A01, A02: [^\n]*replication-factor.*\nthe cluster is whole, but has problems")
    assert done.returncode == 0, "settings that differ do not make it less whole"
    assert "1 copy of each partition" in done.stdout


def test_a_node_that_cannot_start_is_shown(local):
    local.up("--nodes", "2")
    local.run("down")
    with open(os.path.join(local.directory, "node2", "test.dat"), "r+b") as file:
        file.write(b"something else entirely" * 1000)
    text = local.up(code=1)
    assert "node2 ended with exit code 1; the end of its log" in text and "test.dat" in text
    assert "the cluster was not started" in text
    local.run("status", code=2)


def test_nobody_answers():
    port, = free_ports(1)
    for words in (["status", f"127.0.0.1:{port}"], ["explain", "1", f"127.0.0.1:{port}"]):
        done = subprocess.run([BINARY, "cluster", *words], capture_output=True, text=True)
        assert done.returncode == (2 if words[0] == "status" else 1)
        assert f"cannot connect to 127.0.0.1:{port}" in done.stderr


@pytest.mark.parametrize("words", [
    ("up", "--nodes", "0"), ("up", "--nodes", "33"), ("up", "--interval", "1"), ("up", "--base-port", "65535"),
    ("explain", "4096"), ("explain", "x"), ("status", "nobody"),
])
def test_usage(words):
    assert subprocess.run([BINARY, "cluster", *words], capture_output=True).returncode == 64


def test_a_directory_that_cannot_be_written_in_a_configuration(tmp_path):
    assert "cannot stand in a configuration file" in Local(tmp_path / "two words").up(code=1)


def test_a_damaged_file_is_named(local):
    os.makedirs(local.directory)
    with open(os.path.join(local.directory, "cluster"), "w") as file:
        file.write("racks 2\nnode 1 3000 3001\n")
    for command in ("up", "status", "explain 7", "down"):
        assert "cluster is damaged at 'node 1 3000 3001'" in local.run(*command.split(), code=2 if command == "status" else 1)
    os.remove(os.path.join(local.directory, "cluster"))


def test_the_example_of_the_docs_is_good(tmp_path):
    with open(os.path.join(ROOT, "docs", "CLUSTER.md")) as file:
        text = file.read().split("## Setting up", 1)[1]
    lines = itertools.takewhile(lambda line: line.startswith("    "), text[text.index("    service {"):].split("\n"))
    path = tmp_path / "apus.conf"
    path.write_text("\n".join(lines) + "\n")
    assert "is good: namespaces test" in subprocess.run([BINARY, "config", "check", path], capture_output=True, text=True,
                                                        check=True).stdout


# ---- In the foreground ----

@pytest.fixture
def foreground(local):
    """A cluster in the foreground, when it stands."""
    log = os.path.join(os.path.dirname(local.directory), "up.log")
    with open(log, "w") as output:
        process = subprocess.Popen([BINARY, "cluster", "up", "--nodes", "2", "--in-memory", "--interval", "50", "--directory",
                                    local.directory], stdout=output, stderr=output)
    process.text = lambda: open(log).read()
    wait_for(lambda: "Ctrl-C" in process.text() or process.poll() is not None, process)
    assert process.poll() is None, process.text()
    yield process
    if process.poll() is None:
        process.kill()
        process.wait(10)


def wait_for(condition, process, seconds=30):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, process.text()
        time.sleep(0.02)


def test_ctrl_c_stops_all(local, foreground):
    foreground.send_signal(signal.SIGINT)
    assert foreground.wait(30) == 0 and "stopping 2 nodes" in foreground.text()
    for number in (1, 2):
        with open(os.path.join(local.directory, f"node{number}", "log")) as file:
            text = file.read()
        assert "leaving the cluster" in text and text.rstrip().endswith("stopped")


def test_a_node_that_dies_is_named_and_the_others_go_on(local, foreground):
    os.kill(local.process(1), signal.SIGKILL)
    wait_for(lambda: "node1 ended by signal 9; the end of its log" in foreground.text(), foreground)
    assert foreground.poll() is None and local.info("A02", "status") == "ok"
    foreground.send_signal(signal.SIGTERM)
    assert foreground.wait(30) == 0


def test_down_ends_the_foreground(local, foreground):
    local.run("down")
    assert foreground.wait(10) == 0 and "no node runs any more" in foreground.text()
