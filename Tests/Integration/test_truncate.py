"""Truncate of sets and namespaces: what is gone, what stays, and that it stays so over kills, on every kind of backend."""
import os
import signal
import time

import pytest
from aerospike import exception

from conftest import (BINARY, ENGINES, LMDB, OURS, Server, delete, digest, frame, get, integer, message, operation, plugin_block,
                      put)

pytestmark = pytest.mark.memory_only
BACKENDS = [*OURS, pytest.param("lmdb", marks=pytest.mark.skipif(not os.path.exists(LMDB), reason="the LMDB plugin was not built"))]
PERSISTENT = BACKENDS[1:]
COMMAND = [BINARY, "serve", "--config"]


def start(engine, directory=None, more="", **named):
    # The index in ordinary memory: a restart is cold.
    heap = "index-type heap\n " if engine in OURS else ""
    text = f"{plugin_block(engine)}namespace test {{ nsup-period 120\n {heap}{more}\n {ENGINES[engine]}\n}}\n"
    return Server(text, command=COMMAND, directory=directory, **named)


def fill(client, sets=("one", "two"), count=300):
    for number in range(count):
        for name in sets:
            client.put(("test", name, number), {"n": number})


def present(client, name, count=300):
    found = 0
    for number in range(count):
        try:
            client.get(("test", name, number))
            found += 1
        except exception.RecordNotFound:
            pass
    return found


def nanoseconds():
    return time.time_ns()


def wait_until_freed(node, name=None, seconds=10):
    """Waits for the walk after a truncate."""
    deadline = time.monotonic() + seconds
    command = f"sets/test/{name}" if name else "namespace/test"
    while "truncating=true" in node.info(command):
        assert time.monotonic() < deadline, node.info(command)
        time.sleep(0.02)


def value(text, name):
    return next(pair.split("=")[1] for pair in text.replace(";", ":").split(":") if pair.startswith(name + "="))


@pytest.mark.parametrize("engine", BACKENDS)
def test_set(engine):
    node = start(engine)
    client = node.client()
    fill(client)
    client.truncate("test", "one", 0)
    assert present(client, "one") == 0 and present(client, "two") == 300
    # What is written now is there, also where something was.
    for number in range(100):
        client.put(("test", "one", number), {"n": -number})
    wait_until_freed(node, "one")
    assert present(client, "one") == 100
    assert client.get(("test", "one", 7))[1]["gen"] == 1, "the record before it counts for nothing"
    text = node.info("sets/test/one")
    assert value(text, "objects") == "100" and int(value(text, "truncate_lut")) > 0
    assert 200 <= int(value(node.info("namespace/test"), "truncated_records")) <= 300
    assert value(node.info("sets/test/two"), "truncate_lut") == "0"
    assert node.stop() == 0, node.log


@pytest.mark.parametrize("engine", BACKENDS)
def test_namespace(engine):
    node = start(engine)
    client = node.client()
    fill(client)
    client.put(("test", None, "without a set"), {"n": 1})
    client.truncate("test", None, 0)
    assert present(client, "one") == 0 and present(client, "two") == 0
    with pytest.raises(exception.RecordNotFound):
        client.get(("test", None, "without a set"))
    wait_until_freed(node)
    statistics = node.statistics("namespace/test")
    assert statistics["objects"] == "0" and int(statistics["truncate_lut"]) > 0
    assert int(statistics["truncated_records"]) == 601 and statistics["truncating"] == "false"
    client.put(("test", "one", 1), {"n": 1})
    assert present(client, "one") == 1
    assert node.stop() == 0, node.log


def test_lut_parts_old_from_new():
    node = start("memory")
    client = node.client()
    for number in range(50):
        client.put(("test", "one", number), {"n": 0})
    time.sleep(0.01)
    middle = nanoseconds()
    time.sleep(0.01)
    for number in range(25, 75):
        client.put(("test", "one", number), {"n": 1})
    client.truncate("test", "one", middle)
    assert present(client, "one", 25) == 0 and present(client, "one", 75) == 50
    # An earlier time changes nothing.
    before = node.info("sets/test/one")
    assert node.info(f"truncate:namespace=test;set=one;lut={middle - 10**9}") == "ok"
    assert value(node.info("sets/test/one"), "truncate_lut") == value(before, "truncate_lut")


@pytest.mark.parametrize("request_text, code", [
    ("truncate:namespace=test", 4), ("truncate:set=one", 20), ("truncate:namespace=none;set=one", 20),
    ("truncate-namespace:namespace=test;set=one", 4), ("truncate:namespace=test;set=one;lut=x", 4),
    ("truncate:namespace=test;set=one;lut=-1", 4), ("truncate:namespace=test;set=one;lut=1000", 4),
    ("truncate:namespace=test;set=one;lut=99999999999999999999999", 4),
    ("truncate:namespace=test;set=" + "x" * 64, 4), ("truncate-undo:namespace=test", 4),
])
def test_bad_requests(request_text, code, server):
    assert server.info(request_text).startswith(f"ERROR:{code}:"), server.info(request_text)


def test_a_time_in_the_future(server):
    assert server.info(f"truncate:namespace=test;set=one;lut={nanoseconds() + 10**10}").startswith("ERROR:4:")
    assert server.info(f"truncate-namespace:namespace=test;lut={nanoseconds() + 10**10}").startswith("ERROR:4:")


def test_other_lines_and_requests_behind_it():
    node = start("memory")
    with node.raw() as raw:
        raw.send(frame(1, b"node\ntruncate:namespace=test;set=one\nbuild\n"))
        answer = raw.frame()[1].decode()
        lines = [line.split("\t") for line in answer.split("\n") if line]
        assert [line[0] for line in lines] == ["node", "truncate:namespace=test;set=one", "build"]
        assert lines[1][1] == "ok"
        assert raw.ask(put(digest(1), 1)).result == 0 and raw.ask(get(digest(1))).result == 0
        raw.send(frame(1, b"truncate:namespace=test;set=one\n" * 17))
        answer = raw.frame()[1].decode()
        assert answer.count("ERROR:4:") == 17
    assert node.stop() == 0, node.log


def test_deletes_and_checks_see_nothing():
    node = start("memory")
    with node.raw() as raw:
        for number in range(10):
            assert raw.ask(put(digest(number), 1)).result == 0
        assert node.info("truncate-namespace:namespace=test") == "ok"
        assert raw.ask(delete(digest(0))).result == 2
        assert raw.ask(put(digest(1), 1, info3=1 << 3)).result == 2, "update only"
        assert raw.ask(message(digest(2), [operation(2, 1, b"a", integer(1))], info2=1 | 1 << 5)).result == 0, "create only"
        assert raw.ask(get(digest(3))).result == 2


def test_undo():
    node = start("memory", threads=1)
    client = node.client()
    fill(client, ("one",), 10)
    client.truncate("test", "one", 0)
    assert node.info("smd-show:module=truncate").startswith("test|one=")
    assert node.info("truncate-undo:namespace=test;set=one") == "ok"
    assert value(node.info("sets/test/one"), "truncate_lut") == "0"
    assert node.info("smd-show:module=truncate") == "<empty>"
    assert node.info("truncate-undo:namespace=test;set=one") == "ok", "a second time"
    assert node.info("truncate-namespace:namespace=test") == "ok"
    assert node.info("truncate-namespace-undo:namespace=test") == "ok"
    assert node.statistics("namespace/test")["truncate_lut"] == "0"


@pytest.mark.parametrize("engine", PERSISTENT)
@pytest.mark.parametrize("is_whole", [False, True])
def test_killed_right_after_the_answer(engine, is_whole):
    node = start(engine)
    client = node.client()
    fill(client)
    time.sleep(0.5)
    command = "truncate-namespace:namespace=test" if is_whole else "truncate:namespace=test;set=one"
    assert node.info(command) == "ok"
    node.process.send_signal(signal.SIGKILL)
    node.process.wait()
    for _ in range(2):
        node = start(engine, node.directory)
        client = node.client()
        assert present(client, "one") == 0
        assert present(client, "two") == (0 if is_whole else 300)
        client.put(("test", "one", "later"), {"n": 1})
        wait_until_freed(node)
        assert client.get(("test", "one", "later"))[2] == {"n": 1}
        assert int(node.statistics("namespace/test")["objects"]) == (1 if is_whole else 301)
        time.sleep(0.5)
        node.process.send_signal(signal.SIGKILL)
        node.process.wait()


def test_memory_that_outlives_the_process(tmp_path):
    text = "namespace test { nsup-period 120\n index-type shmem\n storage-engine memory { data-size 64M\n}\n}\n"
    node = Server(text, directory=str(tmp_path))
    client = node.client()
    fill(client)
    assert node.info("truncate:namespace=test;set=one") == "ok"
    node.process.send_signal(signal.SIGKILL)
    node.process.wait()
    node = Server(text, directory=str(tmp_path))
    assert "warm start:" in node.log
    client = node.client()
    assert present(client, "one") == 0 and present(client, "two") == 300
    wait_until_freed(node)
    assert node.statistics("namespace/test")["objects"] == "300"
    assert node.stop() == 0, node.log


@pytest.mark.parametrize("engine", PERSISTENT[:2])
def test_the_storage_knows_without_the_files(engine):
    """A device that is moved to another node: the files of system metadata are not there."""
    node = start(engine)
    client = node.client()
    fill(client)
    assert node.info("truncate:namespace=test;set=one") == "ok"
    assert node.info("set-config:context=namespace;namespace=test;set=two;stop-writes-count=7") == "ok"
    node.process.send_signal(signal.SIGKILL)
    node.process.wait()
    files = os.path.join(node.directory, "var", "smd")
    for name in os.listdir(files):
        os.remove(os.path.join(files, name))
    node = start(engine, node.directory)
    client = node.client()
    assert present(client, "one") == 0
    assert value(node.info("sets/test/two"), "stop-writes-count") == "7"
    assert "newer system metadata" in node.log
    assert sorted(os.listdir(files)) == ["sets.smd", "truncate.smd"]
    assert node.stop() == 0, node.log


@pytest.mark.parametrize("damage, words", [
    (lambda text: text[:-5], "damaged"), (lambda text: text.replace("one", "two"), "damaged"), (lambda text: "", "damaged"),
    (lambda text: text.replace("apus-smd 2", "apus-smd 3"), "format 3"),
])
def test_damaged_file(damage, words):
    node = start("memory")
    fill(node.client(), ("one",), 1)
    assert node.info("truncate:namespace=test;set=one") == "ok"
    assert node.stop() == 0, node.log
    path = os.path.join(node.directory, "var", "smd", "truncate.smd")
    with open(path) as file:
        text = file.read()
    assert "\ttest|one\t1\t" in text
    with open(path, "w") as file:
        file.write(damage(text))
    again = start("memory", node.directory, wait=False)
    assert again.process.wait(10) != 0
    assert words in again.log and path.rsplit("/", 2)[-1] in again.log, again.log


def test_truncate_under_load():
    """Whatever was answered before the truncate is gone, whatever was begun after its answer is there."""
    node = start("memory", threads=2)
    client = node.client()
    for round_number in range(20):
        for number in range(200):
            client.put(("test", "one", number), {"round": round_number})
        assert node.info("truncate:namespace=test;set=one") == "ok"
        client.put(("test", "one", 0), {"round": round_number + 1})
        assert present(client, "one", 200) == 1
    wait_until_freed(node, "one")
    assert value(node.info("sets/test/one"), "objects") == "1"
    assert node.stop() == 0, node.log
