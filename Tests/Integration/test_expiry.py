"""Records whose time is up go, records that make room go, and a namespace that runs full stops in two steps."""
import signal
import time

import aerospike
import pytest
from aerospike import exception as error
from conftest import ENGINES, command_of, engines, plugin_block

# Tests that are for every backend name them.
pytestmark = pytest.mark.memory_only
EVERYWHERE = engines("memory", "device", "pmem", "rocksdb")


def start(own_server, engine, settings="", storage="", name="test", **more):
    """A node with one namespace on this backend."""
    block = ENGINES[engine]
    if storage:
        block = block.rstrip("}") + storage + "\n}" if "{" in block else f"{block} {{ {storage}\n}}"
    text = f"{plugin_block(engine)}namespace {name} {{ {settings}\n {block}\n}}\n"
    return own_server(text, command=command_of(engine), **more)


def figure(node, name):
    return node.statistics("namespace/test")[name]


def wait_for(node, condition, seconds=15):
    """Until `condition` holds for the statistics of the namespace."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        statistics = node.statistics("namespace/test")
        if condition(statistics):
            return statistics
        time.sleep(0.05)
    raise AssertionError(f"not within {seconds} s: {node.statistics('namespace/test')}\n{node.log}")


def put(client, number, seconds, set_name="s", bins=None, namespace="test"):
    client.put((namespace, set_name, number), bins or {"n": number}, meta={"ttl": seconds})


# ---- Expiry ----

@pytest.mark.parametrize("engine", EVERYWHERE)
def test_expired_records_go(own_server, engine):
    node = start(own_server, engine, "nsup-period 1")
    client = node.client()
    for number in range(300):
        put(client, number, [2, 3600, aerospike.TTL_NEVER_EXPIRE][number % 3])
    put(client, 0, 3600)
    statistics = wait_for(node, lambda now: now["objects"] == "201")
    assert statistics["tombstones"] == "0" and statistics["client_delete_success"] == "0"
    statistics = wait_for(node, lambda now: now["expired_objects"] == "99" and now["non_expirable_objects"] == "100")
    assert statistics["evicted_objects"] == "0" and int(statistics["nsup_cycle_duration"]) <= 1
    assert client.get(("test", "s", 0))[2] == {"n": 0}, "it was renewed"
    assert client.exists(("test", "s", 3))[1] is None
    assert "99 expired" in node.log or "expired and 0 evicted of" in node.log
    sets = dict(pair.split("=") for pair in node.info("sets/test/s").rstrip(";").split(":"))
    assert sets["objects"] == "201"


@pytest.mark.parametrize("engine", engines("device", "pmem", "rocksdb"))
def test_expired_records_stay_away(own_server, engine, tmp_path):
    """Nothing comes back after a cold start, neither an expired record nor an older version that was to live for ever."""
    settings = "nsup-period 1\n" + ("" if engine == "rocksdb" else "index-type heap")
    node = start(own_server, engine, settings, directory=str(tmp_path))
    client = node.client()
    for number in range(50):
        put(client, number, 1)
        put(client, 1000 + number, aerospike.TTL_NEVER_EXPIRE)
        put(client, 1000 + number, 1)
        put(client, 2000 + number, aerospike.TTL_NEVER_EXPIRE)
    statistics = wait_for(node, lambda now: now["expired_objects"] == "100")
    assert statistics["objects"] == "50"
    assert statistics["tombstones"] == ("50" if engine == "device" else "0"), "only where an older version would come back"
    node.stop()
    again = start(own_server, engine, settings, directory=str(tmp_path))
    client = again.client()
    wait_for(again, lambda now: now["objects"] == "50")
    for number in range(50):
        assert client.exists(("test", "s", number))[1] is None
        assert client.exists(("test", "s", 1000 + number))[1] is None
        assert client.get(("test", "s", 2000 + number))[2] == {"n": 2000 + number}
    again.stop()


def test_expiry_can_be_switched_on(own_server):
    node = start(own_server, "memory", "allow-ttl-without-nsup true")
    client = node.client()
    for number in range(20):
        put(client, number, 1)
    time.sleep(3)
    assert figure(node, "objects") == "20" and client.exists(("test", "s", 1))[1] is None, "hidden, but there"
    assert node.info("set-config:context=namespace;namespace=test;nsup-period=1") == "ok"
    wait_for(node, lambda now: now["objects"] == "0")


# ---- Eviction ----

def fill(client, first, count, seconds, size, set_name="s"):
    for number in range(first, first + count):
        put(client, number, seconds + number, set_name, {"x": bytes(size)})


@pytest.mark.parametrize("engine", engines("memory", "device", "pmem"))
def test_eviction_makes_room(own_server, engine):
    """Above the threshold those that die first go, until it is no longer passed; a set may be spared."""
    data = "data-size 64M\n" if engine == "memory" else ""
    node = start(own_server, engine, "nsup-period 1\n evict-tenths-pct 200\n set spared { disable-eviction true\n}",
                 f"{data}evict-used-pct 20\n stop-writes-used-pct 0")
    client = node.client()
    fill(client, 0, 60, 1000, 100_000)
    fill(client, 100, 200, 100_000, 100_000)
    fill(client, 10_000, 10, 10, 1000, "spared")
    statistics = wait_for(node, lambda now: int(now["evicted_objects"]) > 0 and now["hwm_breached"] == "false", 30)
    evicted = int(statistics["evicted_objects"])
    assert int(statistics["data_used_pct"]) < 20
    assert int(statistics["objects"]) == 270 - evicted and statistics["expired_objects"] == "0"
    there = [client.exists(("test", "s", number))[1] is not None for number in list(range(60)) + list(range(100, 300))]
    assert there == sorted(there), "those that die first are gone"
    assert all(client.exists(("test", "spared", number))[1] for number in range(10_000, 10_010))
    assert int(statistics["evict_void_time"]) > 0 and statistics["smd_evict_void_time"] == statistics["evict_void_time"]
    assert node.info("smd-show:module=evict") == f"test={statistics['evict_void_time']}"
    assert "evict-used-pct is 20" in node.log
    assert node.info("eviction-reset:namespace=test") == "ok"
    assert figure(node, "smd_evict_void_time") == "0" and node.info("smd-show:module=evict") == "<empty>"
    assert node.info("eviction-reset:namespace=test;ttl=soon").startswith("ERROR:4:")
    assert node.info("eviction-reset:namespace=nowhere").startswith("ERROR:")


def test_eviction_by_command_and_after_a_restart(own_server, tmp_path):
    settings = "nsup-period 1\n index-type heap"
    node = start(own_server, "device", settings, directory=str(tmp_path))
    client = node.client()
    fill(client, 0, 10, 1000, 100)
    fill(client, 100, 10, 100_000, 100)
    assert node.info("eviction-reset:namespace=test;ttl=50000") == "ok"
    statistics = wait_for(node, lambda now: now["evicted_objects"] == "10")
    assert statistics["objects"] == "10"
    kept = statistics["smd_evict_void_time"]
    node.stop(signal.SIGKILL)
    again = start(own_server, "device", settings, directory=str(tmp_path))
    statistics = wait_for(again, lambda now: now["objects"] == "10" and now["evict_void_time"] == kept)
    assert statistics["smd_evict_void_time"] == kept
    again.stop()


# ---- Histograms ----

def test_histograms(own_server):
    node = start(own_server, "memory", "nsup-period 3600\n nsup-hist-period 1")
    client = node.client()
    fill(client, 0, 100, 1000, 1000)
    fill(client, 200, 50, 5000, 100_000, "large")

    def buckets(kind, more=""):
        return node.info(f"histogram:namespace=test;type={kind}{more}")

    deadline = time.monotonic() + 15
    while "[64K-128K)=50" not in buckets("object-size") and time.monotonic() < deadline:
        time.sleep(0.1)
    assert buckets("object-size") == "units=bytes:[1K-2K)=100:[64K-128K)=50"
    assert buckets("object-size", ";set=large") == "units=bytes:[64K-128K)=50"
    head, counts = buckets("object-size-linear").rsplit("=", 1)
    assert head == "units=bytes:hist-width=1048576:bucket-width=1024:buckets"
    assert len(counts.split(",")) == 1024 and sum(map(int, counts.split(","))) == 150
    head, counts = buckets("ttl", ";set=s").rsplit("=", 1)
    width = int(head.split("bucket-width=")[1].split(":")[0])
    assert head.startswith(f"units=seconds:hist-width={100 * width}:") and len(counts.split(",")) == 100
    assert sum(map(int, counts.split(","))) == 100
    assert buckets("ttl", ";set=none") == "hist-unavailable"
    assert buckets("colour") == "ERROR:4:unknown hist name"


# ---- Overflow ----

@pytest.mark.parametrize("engine", engines("memory", "device"))
def test_two_steps(own_server, engine):
    """First nothing new, then nothing but reads and deletes; every threshold says that it was it."""
    data = "data-size 64M\n" if engine == "memory" else ""
    node = start(own_server, engine, "nsup-period 1",
                 f"{data}stop-writes-used-pct 30\n stop-updates-used-pct 50\n stop-writes-avail-pct 0\n"
                 " stop-updates-avail-pct 0")
    client = node.client()
    number = 0
    with pytest.raises(error.DeviceFull if hasattr(error, "DeviceFull") else error.ServerFull):
        while number < 2000:
            put(client, number, 3600, bins={"x": bytes(250_000)})
            number += 1
            time.sleep(0.04)
    statistics = wait_for(node, lambda now: now["stop_writes"] == "true")
    assert statistics["stop_updates"] == "false" and statistics["stop_updates_reason"] == ""
    assert "stop-writes-used-pct is 30" in statistics["stop_writes_reason"]
    put(client, 0, 3600, bins={"x": bytes(250_001)})
    client.append(("test", "s", 1), "more", "text")
    # Updates go on and fill it further.
    full = error.DeviceFull if hasattr(error, "DeviceFull") else error.ServerFull
    with pytest.raises(full):
        for one in range(number):
            put(client, one, 3600, bins={"x": bytes(600_000), "y": b"z"})
            time.sleep(0.02)
        time.sleep(2)
        put(client, 0, 3600)
    statistics = wait_for(node, lambda now: now["stop_updates"] == "true")
    assert "stop-updates-used-pct is 50" in statistics["stop_updates_reason"]
    with pytest.raises(full):
        client.increment(("test", "s", 0), "n", 1)
    assert client.get(("test", "s", 0))[2]
    for one in range(number):
        client.remove(("test", "s", one))
    statistics = wait_for(node, lambda now: now["stop_writes"] == "false" and now["stop_updates"] == "false")
    assert statistics["stop_writes_reason"] == ""
    put(client, 0, 3600)
    for line in ("stop-writes: data used", "stop-updates: data used", "stop-writes is over"):
        assert line in node.log, node.log


def test_expiry_goes_on_while_nothing_can_be_written(own_server):
    node = start(own_server, "memory", "nsup-period 1", "data-size 64M\n stop-writes-used-pct 20\n stop-updates-used-pct 25")
    client = node.client()
    for number in range(40):
        put(client, number, 6, bins={"x": bytes(500_000)})
    wait_for(node, lambda now: now["stop_updates"] == "true", 5)
    wait_for(node, lambda now: now["objects"] == "0" and now["stop_writes"] == "false")
    put(client, 0, 100)
