"""What outlives a process, on every backend that promises it. APUS_KILLS is how often each is killed (3)."""
import os
import random
import signal
import subprocess
import threading
import time

import aerospike
import pytest
from aerospike import exception

from conftest import (ENGINES, FULL, OURS, RawClient, Server, command_of, delete, digest, engines, get, needs_full, plugin_block,
                      put)

pytestmark = pytest.mark.memory_only
KILLS = int(os.environ.get("APUS_KILLS", "3"))
PERSISTENT = engines(*(name for name in ENGINES if name != "memory"))


def namespaces(engine, more=""):
    """A namespace on `engine`, with `more` among its settings."""
    text = ENGINES[engine]
    # The index in ordinary memory: this is about what the medium alone keeps (test_media.py has the rest).
    heap = "index-type heap\n " if engine in OURS else ""
    text = text.replace("{ ", "{ " + more + "\n ", 1) if "{" in text else text + " { " + more + "\n}"
    return f"{plugin_block(engine)}namespace test {{ nsup-period 120\n allow-ttl-without-nsup true\n {heap}{text}\n}}\n"


def start(engine, directory=None, more=""):
    return Server(namespaces(engine, more), command=command_of(engine), directory=directory)


def write_all_kinds(client, count, is_durable):
    """Records of several sets and sizes, with and without a time to live, written again and deleted. What is left, by number."""
    for number in range(count):
        key = ("test", f"set{number % 3}", number)
        client.put(key, {"n": number, "text": "x" * (number % 500)}, meta={"ttl": 3600 if number % 2 else -1},
                   policy={"key": aerospike.POLICY_KEY_SEND})
        if number % 4 == 0:
            client.increment(key, "n", 1)
        if number % 10 == 0:
            client.remove(key, policy={"durable_delete": is_durable})
    return {number: client.get(("test", f"set{number % 3}", number)) for number in range(count) if number % 10}


def check_all_kinds(client, count, before):
    """Everything is as `write_all_kinds` has left it, deletes too."""
    for number in range(count):
        key = ("test", f"set{number % 3}", number)
        if number % 10 == 0:
            with pytest.raises(exception.RecordNotFound):
                client.get(key)
            continue
        (_, meta, bins), (_, old_meta, old_bins) = client.get(key), before[number]
        assert bins == old_bins and meta["gen"] == old_meta["gen"]
        assert abs(meta["ttl"] - old_meta["ttl"]) <= 5


@pytest.mark.parametrize("engine", PERSISTENT)
def test_records_outlive_a_restart(engine):
    node = start(engine)
    client = node.client()
    before = write_all_kinds(client, 2000, is_durable=True)
    client.put(("test", "large", 1), {"blob": bytearray(os.urandom(1_000_000))})
    blob = client.get(("test", "large", 1))[2]
    client.put(("test", "short", 1), {"a": 1}, meta={"ttl": 1})
    assert node.stop() == 0, node.log
    time.sleep(2.1)
    again = start(engine, node.directory)
    client = again.client()
    check_all_kinds(client, 2000, before)
    assert client.get(("test", "large", 1))[2] == blob
    with pytest.raises(exception.RecordNotFound):
        client.get(("test", "short", 1))
    # A log finds what has expired, too: an older image must not take its place.
    assert f"cold start: {1802 if engine in OURS else 1801} records" in again.log, again.log
    sets = again.info("sets/test/set1")
    assert f"objects={sum(1 for n in range(2000) if n % 3 == 1 and n % 10)}" in sets
    assert again.stop() == 0, again.log


# What a device without commit-to-device may lose: flush-max-ms, and the time that a write takes to the device.
FLUSH_SECONDS = 0.2 + 0.15


class Writer(threading.Thread):
    """Puts and deletes keys of its own as fast as they are answered; knows what was acknowledged when, and what was under way."""

    def __init__(self, port, number, keys, loss_seconds=0, durable_deletes=True):
        super().__init__()
        self.durable_deletes = durable_deletes
        self.loss_seconds = loss_seconds
        self.history = {}
        self.raw = RawClient(port)
        self.keys = [digest(number * 1000 + key + 1) for key in range(keys)]
        self.random = random.Random(number)
        self.acknowledged = {}
        self.first = {}
        self.under_way = None
        self.count = 0
        self.problem = None

    def run(self):
        value = 0
        try:
            while True:
                value += 1
                key = self.random.randrange(len(self.keys))
                is_delete = self.random.random() < 0.2
                self.under_way = (key, None if is_delete else value)
                answer = self.raw.ask(delete(self.keys[key], durable=self.durable_deletes) if is_delete else put(self.keys[key], value))
                if answer.result not in (0, 2):
                    self.problem = answer.result
                    return
                self.acknowledged[key] = self.under_way[1]
                self.history.setdefault(key, []).append((time.monotonic(), self.under_way[1]))
                self.under_way = None
                self.count += 1
        except (EOFError, OSError):
            self.ended = time.monotonic()

    def allowed(self, key):
        """Values that `key` may have after the node was killed."""
        values = [self.acknowledged.get(key)]
        if self.under_way and self.under_way[0] == key:
            values.append(self.under_way[1])
        if self.loss_seconds:
            history = [(0, self.first.get(key)), *self.history.get(key, [])]
            safe = max(place for place, (when, _) in enumerate(history) if when < self.ended - self.loss_seconds)
            values += [value for _, value in history[safe:]]
        return values


def check(writer, port):
    with RawClient(port) as raw:
        for key in range(len(writer.keys)):
            answer = raw.ask(get(writer.keys[key]))
            assert answer.result in (0, 2), f"key {key} answers {answer.result}"
            found = int.from_bytes(answer.bins[0][2], "big") if answer.result == 0 else None
            allowed = writer.allowed(key)
            assert found in allowed, f"key {key} has {found}, acknowledged or under way were {allowed}"


@pytest.mark.parametrize("commit", ["false", "true"])
@pytest.mark.parametrize("engine", PERSISTENT)
def test_kill_under_load(engine, commit):
    """Every acknowledged write and delete is there after kill -9, with and without commit-to-device; what was under way happened or not.
    A device without commit-to-device may have lost what was acknowledged within the last flush-max-ms."""
    directory = None
    previous = []
    for _ in range(KILLS):
        node = start(engine, directory, f"commit-to-device {commit}")
        directory = node.directory
        loss_seconds = FLUSH_SECONDS if engine == "device" and commit == "false" else 0
        writers = [Writer(node.port, number, 40, loss_seconds) for number in range(8)]
        for writer, old in zip(writers, previous):
            check(old, node.port)
            writer.acknowledged = current(old, node.port)
            writer.first = dict(writer.acknowledged)
        for writer in writers:
            writer.start()
        time.sleep(random.uniform(0.3, 1.2))
        node.process.send_signal(signal.SIGKILL)
        node.process.wait(10)
        for writer in writers:
            writer.join()
            assert writer.problem is None, f"a write answered {writer.problem}\n{node.log[-2000:]}"
        assert sum(writer.count for writer in writers) > 10, "there was load"
        previous = writers
    node = start(engine, directory, f"commit-to-device {commit}")
    for writer in previous:
        check(writer, node.port)
    assert node.statistics("namespace/test")["records_unreadable"] == "0"
    assert node.stop() == 0, node.log


def current(writer, port):
    """What the keys of a writer hold now."""
    values = {}
    with RawClient(port) as raw:
        for key in range(len(writer.keys)):
            answer = raw.ask(get(writer.keys[key]))
            values[key] = int.from_bytes(answer.bins[0][2], "big") if answer.result == 0 else None
    return values


@needs_full
def test_the_full_server_lists_its_backends():
    text = subprocess.run([FULL, "backends"], capture_output=True, text=True, check=True).stdout
    for engine in ("memory", "rocksdb", "tiered", "template"):
        assert f"\n{engine}\n" in "\n" + text
    details = subprocess.run([FULL, "backends", "rocksdb"], capture_output=True, text=True, check=True).stdout
    assert "promises: durable-at-commit, deletes-last, keyed, blocking" in details
    assert "storage-threads  a number from 1 to 256; default" in details and "directory  text; no default" in details
