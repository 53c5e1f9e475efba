"""Statistics are true, and info answers have the grammar that tools read."""
import base64
import re
import time

import pytest
from conftest import delete, digest, get, integer, message, operation, put

CONTEXTS = """misc alloc arenax hardware msg os secrets socket tls vault vmapx xmem aggr appeal as audit batch batch-sub bin
config clustering deprecation drv-mem drv_pmem drv_ssd exchange exp fabric flat geo hb health hlc index info info-command
key-busy migrate mrt-audit mrt-monitor namespace nsup particle partition proto proxy proxy-divert query record roster rw
rw-client security service service-list sindex skew smd storage truncate tsvc udf xdr xdr-client masking""".split()
HISTOGRAMS = ["read", "write", "udf", "batch-sub-read", "batch-sub-write", "batch-sub-udf", "pi-query", "si-query"]
SET_NAMES = """objects tombstones data_used_bytes truncate_lut sindexes index_populating truncating
default-read-touch-ttl-pct default-ttl disable-eviction enable-index stop-writes-count stop-writes-size""".split()


@pytest.fixture(scope="module")
def node():
    """A node that nobody else talks to."""
    from conftest import Server
    one = Server()
    yield one
    assert one.stop() == 0, one.log


@pytest.fixture
def raw(node):
    with node.raw() as raw:
        yield raw


def numbers(node, command):
    return {name: int(value) for name, value in node.statistics(command).items() if re.fullmatch(r"-?\d+", value)}


def change(node, command, do):
    """What `do` changes of the counters; not what others change meanwhile: the file system's free space belongs to everybody."""
    before = numbers(node, command)
    do()
    after = numbers(node, command)
    ignored = {"current_time", "uptime", "data_total_bytes", "data_allocated_bytes", "index_used_bytes", "data_used_bytes",
               "data_avail_pct"}
    return {name: after[name] - before[name] for name in after if after[name] != before[name] and name not in ignored
            and not name.startswith(("backend.", "storage-engine."))}


# ---- Counters ----

def all_of(raw, requests, code):
    for request in requests:
        assert raw.ask(request).result == code


@pytest.mark.parametrize("code,make,counters", [
    (0, lambda n: put(digest(n), 1), {"client_write_success": 5, "objects": 5, "master_objects": 5}),
    (0, lambda n: put(digest(n), 2), {"client_write_success": 5}),
    (0, lambda n: get(digest(n)), {"client_read_success": 5}),
    (0, lambda n: message(digest(n), info1=0x21), {"client_read_success": 5}),
    (2, lambda n: get(digest(n + 500)), {"client_read_not_found": 5}),
    (3, lambda n: message(
        digest(n), [operation(2, 1, b"a", integer(1))], info2=5, generation=9),
     {"client_write_error": 5, "fail_generation": 5}),
    (5, lambda n: message(digest(n), [operation(2, 1, b"a", integer(1))], info2=0x21), {"client_write_error": 5}),
    (12, lambda n: message(digest(n), [operation(9, 3, b"a", b"x")], info2=1), {"client_write_error": 5}),
    (4, lambda n: get(digest(n), set_name=b"other"), {"client_read_error": 5}),
    (0, lambda n: message(digest(n), [operation(2, 0, b"a")], info2=1),
     {"client_write_success": 5, "deleted_last_bin": 5, "objects": -5, "master_objects": -5}),
    (0, lambda n: put(digest(n), 1), {"client_write_success": 5, "objects": 5, "master_objects": 5}),
    (0, lambda n: delete(digest(n)), {"client_delete_success": 5, "objects": -5, "master_objects": -5}),
    (2, lambda n: delete(digest(n)), {"client_delete_not_found": 5}),
], ids=lambda value: "make" if callable(value) else str(value))
def test_exactly_these_counters_change(node, raw, code, make, counters):
    assert change(node, "namespace/test", lambda: all_of(raw, map(make, range(5)), code)) == counters


def test_too_big(node, raw):
    big = message(digest(1), [operation(2, 4, b"x", bytes(3000))], info2=1, namespace=b"small")
    assert change(node, "namespace/small", lambda: all_of(raw, [big, big], 13)) == {
        "client_write_error": 2, "fail_record_too_big": 2}


def test_bytes_used(node, raw):
    def used():
        return int(node.statistics("namespace/test")["data_used_bytes"])

    def set_bytes():
        return int(re.search(r"data_used_bytes=(\d+)", node.info("sets/test/bytes"))[1])

    def write(size):
        return message(digest(3000), [operation(2, 4, b"x", bytes(size))], info2=1, set_name=b"bytes")

    before = used()
    all_of(raw, [write(100_000)], 0)
    assert 100_000 <= used() - before <= 100_300 and 100_000 <= set_bytes() <= 100_300
    all_of(raw, [write(10)], 0)
    assert 10 <= used() - before <= 300 and 10 <= set_bytes() <= 300
    all_of(raw, [delete(digest(3000), set_name=b"bytes")], 0)
    assert used() == before and set_bytes() == 0


def test_objects_of_sets_namespaces_and_node(node, raw):
    def objects():
        sets = {name: int(count) for name, count in re.findall(r"set=([^:]+):objects=(\d+)", node.info("sets/test"))}
        return (sets.get("red", 0), sets.get("blue", 0), int(node.statistics("namespace/test")["objects"]),
                int(node.statistics("namespace/ttl")["objects"]), int(node.statistics()["objects"]))

    before = objects()
    all_of(raw, [put(digest(4000 + n), 1, set_name=b"red") for n in range(3)], 0)
    all_of(raw, [put(digest(4100 + n), 1, set_name=b"blue") for n in range(4)], 0)
    all_of(raw, [put(digest(4200 + n), 1, namespace=b"ttl", set_name=b"red") for n in range(5)], 0)
    assert [a - b for a, b in zip(objects(), before)] == [3, 4, 7, 5, 12]
    all_of(raw, [delete(digest(4000 + n), set_name=b"red") for n in range(3)], 0)
    assert [a - b for a, b in zip(objects(), before)] == [0, 4, 4, 5, 9]


def test_connections(node, raw):
    def settle(count):
        """Statistics asked over `raw` once they show `count` connections, or after a second."""
        deadline = time.monotonic() + 1
        while True:
            found = dict(pair.split("=") for pair in raw.info("statistics").split(";"))
            if found["client_connections"] == str(count) or time.monotonic() > deadline:
                return found
            time.sleep(0.01)

    before = settle(1)
    assert before["client_connections"] == "1"
    raws = [node.raw() for _ in range(10)]
    for one in raws:
        one.info("status")
    assert settle(11)["client_connections"] == "11"
    for one in raws:
        one.socket.close()
    after = settle(1)
    assert after["client_connections"] == "1"
    for name in ("client_connections_opened", "client_connections_closed"):
        assert int(after[name]) == int(before[name]) + 10, name


def test_info_requests(node, raw):
    def do():
        for _ in range(7):
            raw.info("status")

    assert change(node, "statistics", do)["info_complete"] == 8, "seven, and one of the statistics"


def test_uptime_and_time(node):
    begun = time.monotonic()
    before = numbers(node, "statistics")["uptime"]
    time.sleep(1.1)
    assert 1 <= numbers(node, "statistics")["uptime"] - before <= time.monotonic() - begun + 1
    # Whole seconds, of the turn in which it is answered: that may have begun a little before the question came.
    earliest = time.time() - 1262304000 - 0.1
    current = numbers(node, "namespace/test")["current_time"]
    assert int(earliest) <= current <= time.time() - 1262304000


# ---- Grammar ----

def test_tend_values(node):
    assert re.fullmatch(r"[1-9A-F][0-9A-F]{0,15}", node.info("node"))
    assert node.info("build") == "8.1.2.0" and node.info("partitions") == "4096"
    assert node.info("cluster-name") == "null" and node.info("peers-generation").isdigit()
    assert int(node.info("partition-generation")) >= 0 and node.info("rebalance-generation").isdigit()
    for kind in ("clear-std", "clear-alt", "tls-std", "tls-alt"):
        assert node.info(f"peers-{kind}") == f"{node.info('peers-generation')},3000,[]"
    assert [node.info(f"service-{kind}") for kind in ("clear-alt", "tls-std", "tls-alt")] == ["", "", ""]
    words = set(node.info("features").split(";"))
    assert words >= {"batch-any", "float", "peers", "pipelining", "pquery", "pscans", "query-show", "replicas"}
    assert node.info("rack-ids") == "test:0;ttl:0;small:0"


def test_columns_of_replicas(node):
    for command in ("replicas", "replicas:max=1", "replicas:max=3"):
        for entry in node.info(command).split(";"):
            name, regime, columns, bitmap = re.fullmatch(r"(\w+):(\d+),(\d+),([^,]{684})", entry).groups()
            assert (regime, columns, base64.b64decode(bitmap)) == ("0", "1", b"\xff" * 512), name


def test_cluster_stable(node):
    key = node.info("cluster-stable:")
    assert re.fullmatch(r"[0-9A-F]+", key) and key == node.statistics()["cluster_key"]
    assert node.info("cluster-stable:size=1;ignore-migrations=false;namespace=test") == key
    assert node.info("cluster-stable:size=2").startswith("ERROR:7:")


def test_errors_of_parameters(node):
    assert node.info("get-config:context=namespace").startswith("ERROR:20:missing 'namespace'")
    assert node.info("get-config:context=namespace;namespace=none") == "ERROR:20:namespace not found on node"
    assert node.info("sets/none") == "ns_type=unknown" and node.info("namespace/none") == "type=unknown"
    assert node.info("query-show:trid=1") == "ERROR:2:job not found"


def test_properties_of_a_set(node, raw):
    all_of(raw, [put(digest(4300), 1, set_name=b"grammar")], 0)
    text = node.info("sets/test/grammar")
    assert text.endswith(";") and text.count(";") == 1
    assert [pair.split("=")[0] for pair in text[:-1].split(":")] == SET_NAMES
    assert f"ns=test:set=grammar:{text}" in node.info("sets") and node.info("sets").endswith(";")


def test_log_levels_of_every_context(node):
    assert node.info("log/0") == ";".join(f"{context}:INFO" for context in CONTEXTS)
    assert node.info("log-set:id=0;any=warning") == "ok"
    assert set(pair.split(":")[1] for pair in node.info("log/0").split(";")) == {"WARNING"}
    assert node.info("log-set:id=0;any=info") == "ok" and node.info("log/0/rw") == "rw:INFO"
    for wrong in ("log-set:id=0;rw=loud", "log-set:id=7;rw=info", "log-set:rw=info"):
        assert node.info(wrong).startswith("ERROR:4:")


def test_latencies_name_every_histogram(node):
    expected = ["batch-index"] + [f"{{{name}}}-{kind}" for name in ("test", "ttl", "small") for kind in HISTOGRAMS]
    assert [entry.split(":")[0] for entry in node.info("latencies:").split(";")] == expected


def test_namespace_answers_its_settings_too(node):
    statistics, settings = node.statistics("namespace/ttl"), node.statistics("get-config:context=namespace;id=ttl")
    assert settings["default-ttl"] == "100" and settings["default-read-touch-ttl-pct"] == "50"
    assert {name: statistics.get(name) for name in settings} == settings
    assert not node.info("namespace/ttl").endswith(";")


def test_settings_of_all_contexts_together(node):
    whole = node.info("get-config:")
    for context in ("service", "network", "security"):
        part = node.info(f"get-config:context={context}")
        assert part in whole and not part.endswith(";")
    assert "src-id=0" in node.info("get-config:context=xdr").split(";")
