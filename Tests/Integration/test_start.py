"""Start and stop: what a person sees when something is in the way."""
import os
import re
import signal
import socket
import subprocess
import time

import pytest
from conftest import BINARY, TEST_NODE, RawClient, digest, message, operation, put

pytestmark = pytest.mark.memory_only


def apus(*words, **more):
    return subprocess.run([BINARY, *words], capture_output=True, text=True, timeout=20, **more)


def test_port_in_use(own_server):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        node = own_server(network=f"service {{ address 127.0.0.1\n port {port}\n}}", wait=False)
        code, log = node.end_with_failure()
    assert code == 1 and f"127.0.0.1:{port} is in use" in log


def test_address_that_is_not_here(own_server):
    code, log = own_server(network="service { address 192.0.2.1\n port 0\n}", wait=False).end_with_failure()
    assert code == 1 and "has no such address" in log


def test_one_node_per_work_directory(own_server):
    first = own_server()
    second = subprocess.run(first.command, capture_output=True, text=True, timeout=10)
    assert second.returncode == 1 and f"process id {first.process.pid}" in second.stderr
    assert first.info("status") == "ok"


def test_node_id_is_kept(own_server):
    first = own_server()
    name = first.info("node")
    assert first.stop() == 0
    again = subprocess.Popen(first.command, stderr=subprocess.PIPE, text=True)
    line = next(line for line in again.stderr if "starts as node" in line)
    again.send_signal(signal.SIGTERM)
    assert again.wait(10) == 0 and name in line


def test_unreadable_configuration(tmp_path):
    missing = apus("serve", "--config", str(tmp_path / "none.conf"))
    assert missing.returncode == 2 and "cannot read the configuration" in missing.stderr and "none.conf" in missing.stderr


def test_misspelt_setting(tmp_path):
    path = tmp_path / "a.conf"
    path.write_text("service {\n  proto-fd-mx 5\n}\nnamespace test {\n  storage-engine memory\n}\n")
    for words in (["serve", "--config", path], ["config", "check", path]):
        result = apus(*map(str, words))
        assert result.returncode == 2 and f"{path}:2: 'proto-fd-mx'" in result.stderr and "'proto-fd-max'" in result.stderr


def test_good_configuration(tmp_path):
    path = tmp_path / "a.conf"
    path.write_text("service {\n  info-threads 4\n}\nnamespace test {\n  storage-engine memory\n}\n")
    result = apus("config", "check", str(path))
    assert result.returncode == 0 and "is good" in result.stdout and "'info-threads' is known" in result.stdout


def test_too_few_descriptors(own_server):
    node = own_server(service="proto-fd-max 5000", descriptors=256, wait=False)
    code, log = node.end_with_failure()
    assert code == 1 and "proto-fd-max 5000 needs" in log and "ulimit -n" in log


def test_fewer_descriptors_than_the_default_wants(own_server):
    """Nobody asked for 15000 clients: the node starts with what there is, and says so."""
    node = own_server(descriptors=1024)
    assert re.search(r"at most 856 clients", node.log) and node.info("status") == "ok"


def test_descriptors_of_many_threads(own_server):
    """Each reactor needs two: what is promised to clients is what is left."""
    code, log = own_server(descriptors=400, threads=200, wait=False).end_with_failure()
    assert code == 1 and "file descriptors" in log and "CRITICAL" not in log


def test_backend_that_is_not_there(tmp_path):
    path = tmp_path / "a.conf"
    path.write_text("namespace test {\n  storage-engine memry\n}\n")
    result = apus("config", "check", str(path))
    assert result.returncode == 2 and "did you mean 'memory'?" in result.stderr


def test_stops_quickly_with_clients(own_server):
    node = own_server()
    raws = [node.raw() for _ in range(20)]
    for raw in raws:
        assert raw.ask(put(digest(1), 1)).result == 0
    begun = time.monotonic()
    assert node.stop() == 0 and time.monotonic() - begun < 2
    assert all(raw.is_closed() for raw in raws) and "stopped" in node.log


def test_requests_on_the_way_are_answered_at_stop(own_server):
    node = own_server()
    raw = node.raw()
    raw.send(b"".join(put(digest(number), 1) for number in range(1000)))
    time.sleep(0.05)
    node.process.send_signal(signal.SIGTERM)
    for _ in range(1000):
        assert raw.frame()[1][5] == 0
    assert raw.is_closed() and node.process.wait(10) == 0


def test_a_cold_start_says_how_far_it_is_and_can_be_stopped(own_server):
    node = own_server("namespace test { storage-engine endless\n}", command=[TEST_NODE], wait=False)
    node.wait_for_log(r"\{test\} cold start: \d+ images so far")
    began = time.monotonic()
    node.process.send_signal(signal.SIGTERM)
    code, log = node.end_with_failure()
    assert time.monotonic() - began < 2
    assert "is damaged: it is left where it is and not served" in log and "given up after" in log
    # This backend cannot close: what may be lost is said, and the exit code tells.
    assert code == 1 and "{test} does not close: the last sync failed with error 5" in log


def test_interrupt_stops_cleanly(own_server):
    assert own_server().stop(signal.SIGINT) == 0


def test_log_rotation(own_server, tmp_path):
    path = tmp_path / "node.log"
    node = own_server(logging=f"logging {{ file {path} {{ context any info\n }}\n console {{ context any info\n }}\n}}")
    os.rename(path, tmp_path / "node.log.1")
    node.process.send_signal(signal.SIGHUP)
    node.wait_for_log("log files opened again")
    assert "service ready" in (tmp_path / "node.log.1").read_text()
    assert "opened again" in path.read_text()


def test_log_file_that_cannot_be_opened(own_server):
    node = own_server(logging="logging { file /nowhere/node.log { context any info\n }\n}", wait=False)
    code, log = node.end_with_failure()
    assert code == 1 and "/nowhere/node.log" in log


def test_notes_about_settings_without_effect(own_server):
    node = own_server(service="info-threads 4")
    assert re.search(r"WARNING \(config\): .*'info-threads' is known but has no effect yet", node.log)


def test_ipv6_and_several_addresses(own_server):
    node = own_server(network="service { address 127.0.0.1\n address ::1\n port 0\n}")
    ports = {e.rsplit(":", 1)[0]: int(e.rsplit(":", 1)[1]) for e in node.endpoints}
    with RawClient(ports["127.0.0.1"]) as four, RawClient(ports["[::1]"], "::1") as six:
        assert four.ask(put(digest(1), 1)).result == 0 and six.ask(put(digest(1), 2)).generation == 2
        assert "[::1]" in six.info("service-clear-std")


def test_admin_port_serves_info_only(own_server):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    node = own_server(network=f"service {{ address 127.0.0.1\n port 0\n}}\nadmin {{ address 127.0.0.1\n port {port}\n}}")
    with RawClient(port) as admin:
        assert admin.info("status") == "ok" and admin.info("connection") == "admin=true"
        admin.send(put(digest(1), 1))
        assert admin.is_closed()
    assert node.info("admin-clear-std") == f"127.0.0.1:{port}"


def test_pinned_reactors(own_server):
    for kind in ("cpu", "numa"):
        node = own_server(service=f"auto-pin {kind}")
        allowed = os.sched_getaffinity(node.process.pid)
        pinned = []
        for thread in os.listdir(f"/proc/{node.process.pid}/task"):
            with open(f"/proc/{node.process.pid}/task/{thread}/comm") as file:
                if file.read().startswith("reactor-"):
                    pinned.append(os.sched_getaffinity(int(thread)))
        assert len(pinned) == 2 and all(len(one) == 1 and one <= allowed for one in pinned)


def test_a_signal_leaves_a_report(own_server):
    node = own_server()
    node.process.send_signal(signal.SIGSEGV)
    assert node.process.wait(10) == -signal.SIGSEGV
    assert re.search(r"CRITICAL \(as\): signal 11", node.log) and "backtrace" in node.log


def test_a_trap_leaves_a_report_with_the_request(own_server):
    """The node dies of the signal; who reads the log sees the request's header and where it happened."""
    node = own_server("namespace test { storage-engine trap\n}", command=[TEST_NODE])
    with node.raw() as raw:
        assert raw.ask(put(digest(1), 1)).result == 0
        request = message(digest(77), [operation(2, 3, b"s", b"please trap")], info2=1)
        raw.send(request)
        assert raw.is_closed()
    assert node.process.wait(10) in (-signal.SIGILL, -signal.SIGTRAP, -signal.SIGABRT)
    report = re.search(r"CRITICAL \(as\): signal \d+ at address \S+, executing the request ([0-9a-f]+), backtrace:\n(.*)",
                       node.log, re.S)
    assert report and report.group(1) == request[8:8 + 64].hex()
    assert len(report.group(2).split("\n")) > 5 and "TestNode" in report.group(2)


def test_info_answers_while_the_node_starts(own_server):
    """The namespace takes two seconds to open; clients see a node that is there and not ready."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    begun = time.monotonic()
    node = own_server("namespace test { storage-engine slow\n}", command=[TEST_NODE], wait=False,
                      network=f"service {{ address 127.0.0.1\n port {port}\n}}")
    raw = None
    while raw is None:
        try:
            raw = RawClient(port)
        except ConnectionRefusedError:
            time.sleep(0.02)
    with raw:
        assert raw.info("status") == "starting" and raw.info("partition-generation") == "-1"
        assert time.monotonic() - begun < 1
        assert raw.info("namespaces") == ""
        assert raw.ask(put(digest(1), 1)).result == 11
        node.wait_for_log("service ready")
        assert raw.info("status") == "ok" and raw.info("partition-generation") == "1"
        assert raw.ask(put(digest(1), 1)).result == 0


def test_version_and_help():
    assert re.match(r"apus \d+\.\d+\.\d+, protocol 8", apus("version").stdout)
    help_text = apus("--help").stdout
    for word in ("serve", "config", "info", "bench", "version"):
        assert word in help_text
    assert apus("nonsense").returncode == 64


def test_info_command(server):
    one = apus("info", f"127.0.0.1:{server.port}", "status")
    assert one.returncode == 0 and one.stdout == "ok\n"
    two = apus("info", f"127.0.0.1:{server.port}", "status", "partitions")
    assert two.stdout == "status\tok\npartitions\t4096\n"
    assert apus("info", f"127.0.0.1:{server.port}", "nonsense").returncode == 1
    assert apus("info", "127.0.0.1:1", "status").returncode == 2


@pytest.mark.parametrize("words", [
    ["load", "--keys", "2000", "--depth", "4"],
    ["run", "--keys", "2000", "--seconds", "0.3", "--read-percent", "50", "--distribution", "zipfian"],
    ["run", "--keys", "2000", "--seconds", "0.3", "--read-percent", "50", "--rate", "5000", "--bin", "fifteen-letters"],
])
def test_bench_command(server, words):
    result = apus("bench", *words, "--hosts", f"127.0.0.1:{server.port}", "--connections", "8", "--json", "--set", "benchtest")
    assert result.returncode == 0, result.stderr
    assert '"errors": {}' in result.stdout and '"p99.9"' in result.stdout
    assert "objects=2000" in server.info("sets/test/benchtest")
