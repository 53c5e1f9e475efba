"""Limits of a node and of a namespace: stop-writes, sizes of records, the admin port, what a configuration may say."""
import os
import socket
import subprocess
import time

import pytest
from conftest import ENGINE, BINARY, RawClient, delete, digest, get, message, operation, put

ADMIN = "service { address 127.0.0.1\n port 0\n}\nadmin { address 127.0.0.1\n port 0\n}\n"


def blob(of, size, **more):
    return message(of, [operation(2, 4, b"x", bytes(size))], info2=1, **more)


def wait_for(node, name, value, seconds=3):
    deadline = time.monotonic() + seconds
    while node.statistics("namespace/test")[name] != value and time.monotonic() < deadline:
        time.sleep(0.05)
    assert node.statistics("namespace/test")[name] == value


# ---- Stop-writes ----

def check_stopped(node):
    with node.raw() as raw:
        assert raw.ask(put(digest(987654), 2)).result == 8
        assert raw.ask(put(digest(1), 2, namespace=b"other")).result == 0, "the other namespace goes on"
        assert raw.ask(get(digest(0))).result == 0, "reads go on"
        assert raw.ask(delete(digest(0))).result == 0, "deletes go on"


OTHER = "namespace other { storage-engine memory\n}\n"


def test_stop_writes_by_data(own_server):
    node = own_server("namespace test { storage-engine memory { data-size 512M\n stop-writes-used-pct 5\n }\n}\n" + OTHER)
    with node.raw() as raw:
        for number in range(30):
            assert raw.ask(blob(digest(number), 1_000_000)).result == 0
    assert int(node.statistics("namespace/test")["data_used_pct"]) == 5
    wait_for(node, "stop_writes", "true")
    check_stopped(node)
    with node.raw() as raw:
        for number in range(1, 30):
            assert raw.ask(delete(digest(number))).result == 0
    wait_for(node, "stop_writes", "false")
    with node.raw() as raw:
        assert raw.ask(put(digest(1), 2)).result == 0
    assert "stop-writes-used-pct" in node.log


@pytest.mark.memory_only
def test_stop_writes_by_index(own_server):
    node = own_server("namespace test { indexes-memory-budget 4M\n storage-engine memory\n}\n" + OTHER)
    with node.raw() as raw:
        assert raw.ask(put(digest(0), 1)).result == 0
        for start in range(0, 100_000, 2000):
            raw.send(b"".join(put(digest(number), 1) for number in range(start, start + 2000)))
            assert {raw.frame()[1][5] for _ in range(2000)} <= {0, 8}
    wait_for(node, "stop_writes", "true")
    check_stopped(node)


def test_no_room_left_answers_8(own_server):
    """Full to the last block: an error for this write, and the node goes on."""
    node = own_server("namespace test { stop-writes-sys-memory-pct 0\n"
                      " storage-engine memory { data-size 16M\n stop-writes-used-pct 0\n stop-writes-avail-pct 0\n }\n}\n")
    with node.raw() as raw:
        results = [raw.ask(blob(digest(number), 500_000)).result for number in range(60)]
        first = results.index(8)
        assert 8 <= first <= 34 and set(results) == {0, 8}
        for number in range(first):
            assert raw.ask(get(digest(number))).result == 0, "what was accepted is kept"
        for number in range(first):
            assert raw.ask(delete(digest(number))).result == 0
        deadline = time.monotonic() + 3
        while raw.ask(blob(digest(999), 500_000)).result == 8 and time.monotonic() < deadline:
            time.sleep(0.05)
        assert raw.ask(blob(digest(999), 500_000)).result == 0, "room is found again"


# ---- Records ----

# What fits into a write block of a device.
LARGEST = (8 << 20) - 48 if ENGINE == "device" else 8 << 20


@pytest.mark.parametrize("limit", [2048, 1 << 20, LARGEST])
def test_size_of_records(own_server, limit):
    node = own_server(f"namespace test {{ max-record-size {limit}\n storage-engine memory\n}}\n")
    with node.raw() as raw:
        assert raw.ask(blob(digest(1), limit - 300)).result == 0
        assert raw.ask(blob(digest(1), limit)).result == 13
        assert raw.ask(message(digest(1), [operation(9, 4, b"x", bytes(300))], info2=1)).result == 13
        assert len(raw.ask(get(digest(1))).bins[0][2]) == limit - 300
        assert raw.ask(blob(digest(2), 100)).result == 0 and raw.ask(blob(digest(2), 20 << 20)).result == 13


# ---- The admin port ----

def admin_port(node):
    return int(node.info("admin-clear-std").rsplit(":", 1)[1])


def test_admin_port_of_its_own_choice(own_server):
    node = own_server(network=ADMIN)
    with RawClient(admin_port(node)) as admin:
        assert admin.info("connection") == "admin=true" and admin.info("status") == "ok"
        assert "objects=0" in admin.info("namespace/test").split(";")


@pytest.mark.parametrize("kind", [3, 4])
def test_admin_port_closes_on_data(own_server, kind):
    node = own_server(network=ADMIN)
    with RawClient(admin_port(node)) as admin:
        admin.send(bytes([2, kind]) + put(digest(1), 1)[2:])
        assert admin.is_closed()
    with node.raw() as raw:
        assert raw.ask(get(digest(1))).result == 2


def test_a_hundred_admin_connections(own_server):
    node = own_server(network=ADMIN)
    admins = [RawClient(admin_port(node)) for _ in range(100)]
    assert all(admin.info("status") == "ok" for admin in admins)
    with RawClient(admin_port(node)) as extra:
        extra.socket.settimeout(2)
        assert extra.is_closed(), "the 101st"
    assert node.info("status") == "ok"
    assert node.statistics()["admin_connections"] == "100"
    for admin in admins:
        admin.socket.close()


def test_admin_port_when_clients_have_taken_all(own_server):
    node = own_server(network=ADMIN, service="proto-fd-max 10")
    port = admin_port(node)
    time.sleep(0.1)
    clients = [node.raw() for _ in range(10)]
    assert all(one.info("status") == "ok" for one in clients)
    with RawClient(port) as admin:
        assert admin.info("status") == "ok"
    for one in clients:
        one.socket.close()


# ---- Addresses ----

def test_addresses_told_to_clients(own_server):
    node = own_server(network="service { address 127.0.0.1\n port 0\n access-address 192.0.2.7\n access-port 4000\n"
                              " alternate-access-address 198.51.100.7\n alternate-access-port 5000\n}", wait=False)
    node.wait_for_log("service ready on")
    port = listening_port(node.process.pid)
    with RawClient(port) as raw:
        assert raw.info("service-clear-std") == "192.0.2.7:4000"
        assert raw.info("service-clear-alt") == "198.51.100.7:5000"


def listening_port(pid):
    inodes = " ".join(os.readlink(f"/proc/{pid}/fd/{name}") for name in os.listdir(f"/proc/{pid}/fd"))
    with open("/proc/net/tcp") as file:
        for line in file.readlines()[1:]:
            words = line.split()
            if words[3] == "0A" and f"[{words[9]}" in inodes:
                return int(words[1].split(":")[1], 16)
    raise AssertionError("no listener")


def test_only_ipv6(own_server):
    node = own_server(network="service { address ::1\n port 0\n}")
    with RawClient(node.port, "::1") as raw:
        assert raw.ask(put(digest(1), 1)).result == 0
        assert raw.info("service-clear-std") == f"[::1]:{node.port}"
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", node.port), timeout=2)


# ---- Configurations ----

@pytest.mark.parametrize("text,line,words", [
    ("namespace test {\n storage-engine memory\n max-record-size 9M\n}\n", 3, "max-record-size"),
    ("namespace test {\n storage-engine memory\n default-ttl 11Y\n}\n", 3, "default-ttl"),
    ("namespace " + "n" * 32 + " {\n storage-engine memory\n}\n", 1, "31"),
    ("namespace a {\n storage-engine memory\n}\nnamespace a {\n storage-engine memory\n}\n", 4, "'namespace a'"),
    ("service {\n proto-fd-max many\n}\nnamespace a {\n storage-engine memory\n}\n", 2, "proto-fd-max"),
    ("service {\n proto-fd-max 5\n proto-fd-max 6\n}\nnamespace a {\n storage-engine memory\n}\n", 3, "proto-fd-max"),
    ("namespace test {\n storage-engine memory\n", 1, "never closed"),
    ("namespace test {\n storage-engine memory\n}\n}\n", 4, "}"),
    ("namespace test {\n storage-engine memory\n nsup-perod 5\n}\n", 3, "nsup-period"),
    ("namespace test {\n}\n", 1, "storage-engine"),
    ("service {\n}\n", 1, "namespace"),
], ids=range(11))
def test_wrong_configurations(tmp_path, text, line, words):
    path = tmp_path / "wrong.conf"
    path.write_text(text)
    result = subprocess.run([BINARY, "config", "check", str(path)], capture_output=True, text=True, timeout=10)
    assert result.returncode == 2 and f"{path}:{line}: " in result.stderr and words in result.stderr, result.stderr


def test_every_problem_is_told_at_once(tmp_path):
    path = tmp_path / "wrong.conf"
    path.write_text("service {\n proto-fd-mx 5\n}\nnamespace test {\n storage-engine memory\n max-record-size 1\n}\n")
    result = subprocess.run([BINARY, "config", "check", str(path)], capture_output=True, text=True, timeout=10)
    assert f"{path}:2: " in result.stderr and f"{path}:6: " in result.stderr
