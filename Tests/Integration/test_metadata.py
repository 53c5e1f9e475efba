"""System metadata: names are bytes, limits, storage of another node, sets that do not exist; and the control thread behind it."""
import base64
import os
import shutil
import signal
import socket
import struct
import threading
import time

import pytest

from conftest import Server, digest, frame, get, put

pytestmark = pytest.mark.memory_only


def device(name="test"):
    # The index in ordinary memory: a restart is cold.
    return (f"namespace {name} {{ nsup-period 120\n index-type heap\n storage-engine device {{ file %FILE\n filesize 96M\n"
            " flush-max-ms 50\n}\n}\n")


def fill(node, sets, namespace=b"test", count=10):
    with node.raw() as raw:
        for number, name in enumerate(sets):
            for key in range(count):
                assert raw.ask(put(digest(1000 * number + key), key, namespace=namespace, set_name=name)).result == 0


def present(node, sets, namespace=b"test", count=10):
    with node.raw() as raw:
        return [sum(raw.ask(get(digest(1000 * number + key), namespace=namespace, set_name=name)).result == 0
                    for key in range(count)) for number, name in enumerate(sets)]


def command(node, line):
    """A line of any bytes."""
    with node.raw() as raw:
        raw.send(frame(1, line + b"\n"))
        answer = raw.frame()[1]
        assert answer.startswith(line + b"\t"), answer
        return answer[len(line) + 1:].decode().strip()


def flushed(node):
    """What was written is on the device: a stop writes it out."""
    assert node.stop() == 0, node.log


def kill(node):
    node.process.send_signal(signal.SIGKILL)
    node.process.wait()


# ---- Names ----

def test_names_of_sets_are_bytes():
    sets = ["caf\u00e9".encode(), "cafe\u0301".encode(), "\u0301abc".encode(), b"abc", b"\xff\xfeset", b"\xff\xfdset",
            "\ufffd\ufffdset".encode(), b"a|b"]
    node = Server(device())
    fill(node, sets)
    flushed(node)
    node = Server(device(), directory=node.directory)
    for place in (0, 1, 2, 4, 7):
        assert command(node, b"truncate:namespace=test;set=" + sets[place]) == "ok"
    expected = [0, 0, 0, 10, 0, 10, 10, 0]
    assert present(node, sets) == expected
    assert node.info("smd-info").startswith("truncate=5;"), node.info("smd-info")
    kill(node)
    node = Server(device(), directory=node.directory)
    assert present(node, sets) == expected
    assert command(node, b"truncate-undo:namespace=test;set=" + sets[0]) == "ok"
    assert command(node, b"set-config:context=namespace;namespace=test;set=" + sets[4] + b";stop-writes-count=7") == "ok"
    assert "stop-writes-count=7:" in command(node, b"sets/test/" + sets[4])
    assert "stop-writes-count=0:" in command(node, b"sets/test/" + sets[5])
    assert node.stop() == 0, node.log


def test_names_of_namespaces_are_bytes():
    both = device("n\u00e9") + device("test")
    sets = [b"abc", b"bc"]
    name = "n\u00e9".encode()
    node = Server(both)
    fill(node, sets, name)
    assert node.info("truncate:namespace=n\u00e9;set=abc") == "ok"
    assert present(node, sets, name) == [0, 10]
    flushed(node)
    node = Server(both, directory=node.directory)
    assert present(node, sets, name) == [0, 10]
    assert node.stop() == 0, node.log


# ---- Limits ----

def checksum(data):
    table = []
    for number in range(256):
        for _ in range(8):
            number = number >> 1 ^ (0x82F63B78 if number & 1 else 0)
        table.append(number)
    value = 0xFFFFFFFF
    for byte in data:
        value = table[(value ^ byte) & 255] ^ value >> 8
    return value ^ 0xFFFFFFFF


def test_more_than_the_storage_keeps():
    """The node starts, and takes no change that makes it more."""
    node = Server(device())
    fill(node, [b"s"])
    flushed(node)
    lines = b"".join(b"sets\ttest|%04d%s|stop-writes-count\t1\t1000\t%s\n" % (number, b"x" * 56, b"0" * 250 + b"9")
                     for number in range(3300))
    text = b"apus-smd 1\n" + lines
    files = os.path.join(node.directory, "var", "smd")
    with open(os.path.join(files, "sets.smd"), "wb") as file:
        file.write(text + b"end 3300 %08x\n" % checksum(text))
    node = Server(device(), directory=node.directory)
    assert "the storage takes no copy of the system metadata: it has" in node.log
    refused = node.info("set-config:context=namespace;namespace=test;set=s;stop-writes-count=5")
    assert refused.startswith("ERROR:4:nothing has changed: the system metadata of namespace test"), refused
    assert "stop-writes-count=0:" in node.info("sets/test/s")
    assert node.info("truncate:namespace=test;set=s").startswith("ERROR::nothing has changed"), "truncates count, too"
    assert present(node, [b"s"]) == [10]
    first = "0000" + "x" * 56
    assert node.info(f"set-config:context=namespace;namespace=test;set={first};stop-writes-count=5") == "ok", "that is less"
    assert node.stop() == 0, node.log


# ---- Storage of another node ----

@pytest.mark.parametrize("undoes", [False, True])
def test_a_device_of_another_node(undoes):
    """The other node has changed the same item later, and knew nothing of these records: they stay truncated."""
    one = Server(device())
    fill(one, [b"s", b"other"])
    before = time.time_ns() - 10**12
    assert one.info("truncate:namespace=test;set=s") == "ok"
    flushed(one)
    two = Server(device())
    fill(two, [b"s"])
    assert two.info(f"truncate:namespace=test;set=s;lut={before}") == "ok"
    if undoes:
        assert two.info("truncate-undo:namespace=test;set=s") == "ok"
    flushed(two)
    shutil.copy(one.directory + "/ssd0.dat", two.directory + "/ssd0.dat")
    for _ in range(2):
        two = Server(device(), directory=two.directory)
        assert present(two, [b"s", b"other"]) == [0, 10]
        assert two.stop() == 0, two.log
    first = open(os.path.join(two.directory, "log1")).read()
    assert "{test} its storage comes from another node" in first
    # Of two first changes either may have the higher version: the ids of the nodes decide. An undo is a second one.
    raised = "{test|s} its storage comes from another node: of the truncates of both nodes the later time counts" in first
    assert raised or not undoes
    assert "comes from another node" not in two.log, "now it is the node's own"
    # What the node itself takes back stays so.
    two = Server(device(), directory=two.directory)
    assert two.info("truncate-undo:namespace=test;set=s") == "ok"
    kill(two)
    two = Server(device(), directory=two.directory)
    assert two.info("smd-show:module=truncate") == "<empty>"
    assert two.stop() == 0, two.log


# ---- Sets that do not exist ----

def test_truncate_of_a_set_that_does_not_exist():
    node = Server(device())
    for number in range(20):
        assert node.info(f"truncate:namespace=test;set=day-{number}") == "ok"
    assert node.info("truncate:namespace=test;set=day;lut=x").startswith("ERROR:4:")
    assert node.info("truncate-undo:namespace=test;set=day-1") == "ok"
    assert node.info("sets/test") == "" and node.info("smd-info").startswith("truncate=0;")
    fill(node, [b"day-1"])
    assert present(node, [b"day-1"]) == [10]
    assert node.info("truncate:namespace=test;set=day-1") == "ok"
    assert present(node, [b"day-1"]) == [0] and node.info("smd-info").startswith("truncate=1;")
    assert node.stop() == 0, node.log


def test_items_make_no_sets_at_a_start():
    node = Server("namespace test { nsup-period 120\n storage-engine memory\n}\n")
    fill(node, [b"s"])
    assert node.info("truncate:namespace=test;set=s") == "ok"
    assert node.stop() == 0, node.log
    node = Server("namespace test { nsup-period 120\n storage-engine memory\n}\n", directory=node.directory)
    assert node.info("sets/test") == "" and node.info("smd-info").startswith("truncate=1;")
    fill(node, [b"s"])
    assert present(node, [b"s"]) == [10], "they are younger"
    assert node.info("truncate-undo:namespace=test;set=s") == "ok"
    assert node.info("smd-show:module=truncate") == "<empty>"
    assert node.stop() == 0, node.log


# ---- The control thread ----

def test_signals_do_not_hold_the_ticks_back():
    node = Server("namespace test { nsup-period 1\n storage-engine memory\n}\n", service="ticker-interval 1\n")
    node.wait_for_log("node: client-connections")
    before = node.log.count("node: client-connections")
    deadline = time.monotonic() + 10
    while node.log.count("node: client-connections") < before + 1:
        assert time.monotonic() < deadline, "no tick"
        node.process.send_signal(signal.SIGHUP)
        node.info("truncate-undo:namespace=test;set=nothing")
        time.sleep(0.05)
    assert node.stop() == 0, node.log


def test_a_stop_comes_before_jobs():
    """Commands of many connections, one behind the other; the node stops, and each has been answered or closed."""
    node = Server("namespace test { nsup-period 120\n storage-engine memory\n}\n")
    fill(node, [b"s"])
    begun = threading.Barrier(9)
    answers = []

    def ask():
        with node.raw() as raw:
            try:
                for number in range(100_000):
                    answers.append(raw.info("truncate:namespace=test;set=s"))
                    if number == 0:
                        begun.wait()
            except (EOFError, ConnectionError):
                pass

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    begun.wait()
    assert node.stop() == 0, node.log
    for thread in threads:
        thread.join()
    ends = ("ok", "ERROR:11:", "ERROR:9:it may have happened: the node is stopping")
    assert all(answer.startswith(ends) for answer in answers), set(answers)


def test_names_of_clients_end_with_their_connections():
    """Also if the command behind it is answered late, and the client does not wait for it."""
    node = Server("namespace test { nsup-period 120\n storage-engine memory\n}\n")
    for number in range(100):
        name = base64.b64encode(b"1,leak-%d,x" % number).decode()
        with socket.create_connection(("127.0.0.1", node.port)) as client:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            client.sendall(frame(1, f"user-agent-set:value={name}\ntruncate-undo:namespace=test;set=s\n".encode() * 3))
    deadline = time.monotonic() + 10
    while int(node.statistics()["client_connections"]) > 1:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    # Behind all that the control thread still had to do.
    assert node.info("truncate-undo:namespace=test;set=s") == "ok"
    names = [base64.b64decode(pair.split("=")[1].split(":")[0] + "==") for pair in node.info("user-agents").split(";")]
    assert not [name for name in names if b"leak" in name], names
    with node.raw() as raw:
        raw.send(frame(1, b"user-agent-set:value=YQ==\ntruncate-undo:namespace=test;set=s\nuser-agent-set:value=YQ==\nnode\n"))
        answers = [line.split("\t")[1] for line in raw.frame()[1].decode().strip().split("\n")]
        assert answers[:2] == ["ok", "ok"] and answers[2].startswith("ERROR:4:already set") and len(answers) == 4
    assert node.stop() == 0, node.log
