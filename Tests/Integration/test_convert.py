"""apus convert: a namespace from one backend to another. The real binaries, the real client; nothing is lost, nothing is invented."""
import hashlib
import os
import re
import signal
import subprocess
import time

import aerospike
import pytest
from aerospike import exception

from conftest import BINARY, ENGINES, FULL, LMDB, OURS, ROOT, Server, command_of, delete, digest, get, needs_full, plugin_block, put

pytestmark = pytest.mark.memory_only
COUNT = 800
# More of the same: `make soak` runs it.
soak = pytest.mark.skipif(os.environ.get("APUS_CONVERSIONS") != "all", reason="part of make soak")


def usable(*names):
    """Marks of a test that needs these backends."""
    marks = [needs_full] if any(name not in OURS for name in names) else []
    if "lmdb" in names:
        marks.append(pytest.mark.skipif(not os.path.exists(LMDB), reason="the LMDB plugin was not built"))
    return marks


def configuration(engine, directory, text=None, more="", name="test"):
    """Configuration text of a namespace on `engine`, whose file, if it has one, lies in `directory`."""
    text = (text or ENGINES[engine]).replace("%FILE", f"{directory}/ssd.dat")
    # What else runs on this machine has no say here.
    return (f"{plugin_block(engine)}namespace {name} {{ nsup-period 120\n allow-ttl-without-nsup true\n"
            f" stop-writes-sys-memory-pct 0\n {more}\n {text}\n}}\n")


class Place:
    """A directory with a configuration, and the nodes that run there."""

    def __init__(self, path, engine, text=None, more="", name="test"):
        path.mkdir(exist_ok=True)
        self.directory = str(path)
        self.engine = engine
        self.namespaces = configuration(engine, path, text, more, name)
        self.file = str(path / "convert.conf")
        with open(self.file, "w") as file:
            file.write(f"service {{ work-directory {path}/var\n service-threads 2\n}}\n"
                       f"network {{ service {{ address 127.0.0.1\n port 0\n}}\n}}\n{self.namespaces}")

    def start(self, **named):
        return Server(self.namespaces, command=command_of(self.engine), directory=self.directory, **named)


def convert(source, target, *words, name="test", answer="convert\n", seconds=60):
    binary = BINARY if {source.engine, target.engine} <= set(OURS) else FULL
    return subprocess.run([binary, "convert", name, "--from", source.file, "--to", target.file, *words], input=answer,
                          capture_output=True, text=True, timeout=seconds)


def refused(source, target, *messages, code=1, **named):
    """The conversion does not begin, and changes nothing."""
    before = tree(source.directory), tree(target.directory)
    done = convert(source, target, "--yes", **named)
    assert done.returncode == code, done.stderr
    for message in messages:
        assert message in done.stderr, done.stderr
    assert "records were copied" not in done.stderr and done.stdout == ""
    assert (tree(source.directory), tree(target.directory)) == before
    return done.stderr


def tree(path):
    """Every file below and what is in it."""
    found = {}
    for folder, _, names in os.walk(path):
        for name in names:
            full = os.path.join(folder, name)
            with open(full, "rb") as file:
                found[os.path.relpath(full, path)] = hashlib.sha256(file.read()).hexdigest()
    return found


def key_of(number):
    return ("test", f"set{number % 3}" if number % 4 else None, number)


def fill(client, count=COUNT):
    """Records of several kinds."""
    for number in range(count):
        key = key_of(number)
        bins = {"n": number, "text": "x" * (number % 700), "f": number / 7}
        if number % 5 == 0:
            bins |= {"list": [number, "a"], "map": {"k": number}, "b": bytearray(number % 50), "yes": True}
        client.put(key, bins, meta={"ttl": 3600 if number % 2 else -1},
                   policy={"key": aerospike.POLICY_KEY_SEND if number % 3 else aerospike.POLICY_KEY_DIGEST})
        for _ in range(number % 4):
            client.increment(key, "n", 1)
        if number % 10 == 0:
            client.remove(key, policy={"durable_delete": number % 20 == 0})
    for number in range(4):
        client.put(("test", "large", number), {"blob": bytearray(os.urandom(1_000_000 - number))})
    for number in range(50):
        client.put(("test", "short", number), {"a": number}, meta={"ttl": 1})


def everything(node):
    """What a node serves, by key: bins, and what its index says."""
    client = node.client()
    found = {}
    keys = [key_of(number) for number in range(COUNT)] + [("test", "large", number) for number in range(4)]
    keys += [("test", "short", number) for number in range(50)]
    with node.raw() as raw:
        for key in keys:
            try:
                _, meta, bins = client.get(key)
            except exception.RecordNotFound:
                continue
            hexadecimal = aerospike.calc_digest(key[0], key[1] or "", key[2]).hex()
            said = dict(pair.split("=", 1) for pair in raw.info(f"record:namespace=test;digest={hexadecimal}").split(";"))
            facts = {name: said[name] for name in ("generation", "last-update-time", "void-time", "size", "key-stored", "set")}
            found[key] = (bins, meta["gen"], facts)
    return found


def sets_of(node):
    """Records of each set, but for those that have expired, which a conversion leaves out."""
    rows = [dict(pair.split("=", 1) for pair in row.split(":") if "=" in pair) for row in node.info("sets/test").split(";") if row]
    return {row["set"]: row["objects"] for row in rows if row["set"] != "short"}


def filled(place):
    """A place whose namespace was filled, and what it served after another start."""
    node = place.start()
    fill(node.client())
    assert node.stop() == 0, node.log
    time.sleep(2.1)
    node = place.start()
    served = everything(node), sets_of(node)
    assert node.stop() == 0, node.log
    assert len(served[0]) >= COUNT * 9 // 10 + 4 and ("test", "short", 1) not in served[0]
    return served


DEVICES = """storage-engine device { file %FILE
 file %FILE2
 filesize 160M
 flush-max-ms 200
}"""


@pytest.mark.parametrize("old, new, text", [
    pytest.param("device", "device", DEVICES, id="device-devices"),
    pytest.param("device", "rocksdb", None, marks=usable("rocksdb"), id="device-rocksdb"),
    pytest.param("rocksdb", "device", None, marks=usable("rocksdb"), id="rocksdb-device"),
    pytest.param("lmdb", "template", None, marks=[*usable("lmdb", "template"), soak], id="lmdb-template"),
    pytest.param("template", "tiered", None, marks=[*usable("template", "tiered"), soak], id="template-tiered"),
    pytest.param("tiered", "lmdb", None, marks=[*usable("tiered", "lmdb"), soak], id="tiered-lmdb"),
    pytest.param("lmdb", "lmdb", "storage-engine lmdb { map-size 2G\n}", marks=[*usable("lmdb"), soak], id="lmdb-lmdb"),
])
def test_everything_is_there(tmp_path, old, new, text):
    source = Place(tmp_path / "old", old)
    target = Place(tmp_path / "new", new, text and text.replace("%FILE2", f"{tmp_path}/new/more.dat"))
    served, sets = filled(source)
    done = convert(source, target)
    assert done.returncode == 0, done.stderr
    assert re.search(r"namespace test: \d+ records \(\d+ MB\) copied from storage-engine", done.stdout), done.stdout
    assert "the same byte for byte" in done.stdout and re.search(r"checksum [0-9a-f]{16}", done.stdout)
    node = target.start()
    assert everything(node) == served
    assert sets_of(node) == sets
    assert node.statistics("namespace/test")["records_unreadable"] == "0"
    assert node.stop() == 0, node.log
    # And the source is as it was.
    node = source.start()
    assert everything(node) == served
    assert node.stop() == 0, node.log


def small(place, count=200):
    """A place with a few records."""
    node = place.start()
    with node.raw() as raw:
        for number in range(count):
            assert raw.ask(put(digest(number + 1), number)).result == 0
    assert node.stop() == 0, node.log


def holds(place, count=200):
    node = place.start()
    with node.raw() as raw:
        for number in range(count):
            assert int.from_bytes(raw.ask(get(digest(number + 1))).bins[0][2], "big") == number
    assert node.stop() == 0, node.log


@pytest.fixture
def source(tmp_path):
    """A device with 200 records."""
    place = Place(tmp_path / "old", "device")
    small(place)
    return place


def test_expired_records_stay_in_a_source_that_would_delete_them(tmp_path):
    """A cold start of a keyed backend deletes what has expired; a conversion only reads."""
    engine = "template" if os.path.exists(FULL) else "device"
    source = Place(tmp_path / "old", engine)
    target = Place(tmp_path / "new", "device")
    node = source.start()
    client = node.client()
    for number in range(20):
        client.put(("test", "short", number), {"a": number}, meta={"ttl": 1})
    client.put(("test", "long", 1), {"a": 1}, meta={"ttl": 1000})
    assert node.stop() == 0, node.log
    time.sleep(2.1)
    before = {name: content for name, content in tree(source.directory).items() if "/data/" in name}
    done = convert(source, target, "--yes")
    assert done.returncode == 0, done.stderr
    assert "namespace test: 1 records" in done.stdout and "20 records had expired and were left out" in done.stdout
    after = {name: content for name, content in tree(source.directory).items() if "/data/" in name}
    if engine == "template":
        changed = {name for name in before | after if before.get(name) != after.get(name)}
        assert {os.path.basename(name) for name in changed} <= {"apus-medium", "apus-medium.lock"}


def test_deletes_last(tmp_path):
    """A durable delete stays one on the next log, and its tombstone is of no use elsewhere."""
    source = Place(tmp_path / "old", "device")
    target = Place(tmp_path / "new", "device")
    node = source.start()
    client = node.client()
    for number in range(10):
        client.put(("test", "s", number), {"a": number})
    for number in range(4):
        client.remove(("test", "s", number), policy={"durable_delete": True})
    assert node.stop() == 0, node.log
    done = convert(source, target, "--yes")
    assert done.returncode == 0 and "namespace test: 10 records" in done.stdout, done.stdout
    node = target.start()
    client = node.client()
    for number in range(10):
        if number < 4:
            with pytest.raises(exception.RecordNotFound):
                client.get(("test", "s", number))
        else:
            assert client.get(("test", "s", number))[2] == {"a": number}
    assert node.stop() == 0, node.log
    if os.path.exists(FULL):
        target = Place(tmp_path / "third", "template")
        done = convert(source, target, "--yes")
        assert done.returncode == 0 and "4 tombstones are not needed there" in done.stdout, done.stdout
        assert "namespace test: 6 records" in done.stdout


def test_an_empty_namespace(tmp_path):
    source = Place(tmp_path / "old", "device")
    assert source.start().stop() == 0
    target = Place(tmp_path / "new", "device")
    done = convert(source, target, "--yes")
    assert done.returncode == 0 and "namespace test: 0 records" in done.stdout, done.stderr
    holds(target, 0)


# ---- What is refused ----

def test_somebody_says_no(source, tmp_path):
    target = Place(tmp_path / "new", "device")
    before = tree(tmp_path)
    for answer in ("no\n", ""):
        done = convert(source, target, answer=answer)
        assert done.returncode == 1 and "nothing was changed" in done.stderr
        assert "Namespace 'test' is copied from storage-engine 'device'" in done.stdout and "Type 'convert'" in done.stdout
    assert tree(tmp_path) == before


def test_a_running_node(tmp_path):
    source = Place(tmp_path / "old", "device", more="index-type shmem")
    target = Place(tmp_path / "new", "device")
    small(source)
    node = source.start()
    done = convert(source, target, "--yes")
    assert done.returncode == 1 and f"process {node.process.pid} uses it" in done.stderr, done.stderr
    assert "stop it first" in done.stderr
    assert not os.path.exists(f"{target.directory}/ssd.dat")
    assert node.stop() == 0, node.log


def test_a_running_node_without_shared_memory(tmp_path):
    source = Place(tmp_path / "old", "device", more="index-type heap")
    target = Place(tmp_path / "new", "device")
    small(source)
    node = source.start()
    done = convert(source, target, "--yes")
    assert done.returncode == 1 and "is in use by another process" in done.stderr, done.stderr
    assert f"process id {node.process.pid}" in done.stderr and "stop it first" in done.stderr
    assert not os.path.exists(f"{target.directory}/ssd.dat")
    assert node.stop() == 0, node.log


def test_a_killed_node(tmp_path):
    """What it had acknowledged and not written out is in shared memory: a conversion goes on from that as the node would."""
    source = Place(tmp_path / "old", "device", more="index-type shmem")
    target = Place(tmp_path / "new", "device")
    node = source.start()
    with node.raw() as raw:
        for number in range(210):
            assert raw.ask(put(digest(number + 1), number)).result == 0
        for number in range(200, 210):
            assert raw.ask(delete(digest(number + 1))).result == 0
        node.process.send_signal(signal.SIGKILL)
    node.process.wait(10)
    without = Place(tmp_path / "old", "device", more="index-type heap")
    refused(without, target, "its node was killed, and what it had not written out lies in /dev/shm/",
            "start it with the one that it had, and stop it")
    source = Place(tmp_path / "old", "device", more="index-type shmem")
    done = convert(source, target, "--yes")
    # The deletes, too: a start that had to read the medium would not know of them.
    assert done.returncode == 0 and "namespace test: 200 records" in done.stdout, done.stderr
    holds(target)
    node = source.start()
    assert "warm start: 200 records" in node.log, node.log
    assert node.stop() == 0, node.log


@needs_full
def test_a_running_node_on_a_directory(tmp_path):
    source = Place(tmp_path / "old", "template")
    target = Place(tmp_path / "new", "device")
    node = source.start()
    done = convert(source, target, "--yes")
    assert done.returncode == 1 and f"is in use by process {node.process.pid}: stop it" in done.stderr
    assert node.stop() == 0


def test_a_target_that_is_not_empty(tmp_path, source):
    target = Place(tmp_path / "new", "device")
    small(target, 3)
    refused(source, target, "the target of a conversion must be empty", f"`apus wipe {target.directory}/ssd.dat`")
    holds(target, 3)
    # Wiped, it is taken.
    done = subprocess.run([BINARY, "wipe", "--yes", f"{target.directory}/ssd.dat"], capture_output=True, text=True)
    assert done.returncode == 0
    done = convert(source, target, "--yes")
    assert done.returncode == 0, done.stderr
    holds(target)


@needs_full
def test_a_target_directory_that_is_not_empty(tmp_path, source):
    target = Place(tmp_path / "new", "rocksdb")
    small(target, 3)
    refused(source, target, "the target of a conversion must be empty",
            f"remove the directory {target.directory}/var/data/test")
    other = Place(tmp_path / "new", "template")
    refused(source, other, "it was written by storage-engine 'rocksdb', not by 'template'", "must be empty")


@needs_full
def test_the_node_says_how_to_convert(tmp_path):
    place = Place(tmp_path / "old", "template")
    small(place, 3)
    changed = Place(tmp_path / "old", "rocksdb")
    node = changed.start(wait=False)
    code, log = node.end_with_failure()
    assert code == 1
    assert ("it was written by storage-engine 'template', not by 'rocksdb': `apus convert test --from <old configuration>"
            " --to <new one>` copies it") in log


def test_the_same_place(tmp_path, source):
    refused(source, source, f"{source.directory}/ssd.dat is where the source is")


def test_unknown_namespaces_and_problems_of_both_files(tmp_path, source):
    target = Place(tmp_path / "new", "device", name="other")
    refused(source, target, f"{target.file}: there is no namespace 'test'; it has: other", code=2)
    refused(source, target, f"{source.file}: there is no namespace 'third'; it has: test",
            f"{target.file}: there is no namespace 'third'; it has: other", code=2, name="third")
    broken = Place(tmp_path / "new", "device", more="proto-fd-mx 5\n")
    missing = Place(tmp_path / "new2", "device")
    os.unlink(missing.file)
    refused(broken, missing, f"{broken.file}:", "'proto-fd-mx' is not known", f"cannot read the configuration {missing.file}",
            code=2)


def test_memory_has_nothing_to_copy(tmp_path, source):
    memory = Place(tmp_path / "new", "memory")
    refused(memory, memory, "its records are in memory only (storage-engine 'memory'): there is no medium to copy from",
            "there is no medium to copy to")
    refused(source, memory, "its records are in memory only (storage-engine 'memory'): there is no medium to copy to")


def test_a_source_that_is_not_there(tmp_path):
    """A path that was misspelt must not become a new, empty device."""
    source, target = Place(tmp_path / "old", "device"), Place(tmp_path / "new", "device")
    refused(source, target, f"nothing was ever written to {source.directory}/ssd.dat: there is nothing to copy")
    if os.path.exists(FULL):
        refused(Place(tmp_path / "old", "template"), target, "nothing was ever written to")


def test_a_setting_that_forgets_everything(tmp_path, source):
    target = Place(tmp_path / "new", "device")
    forgetful = ENGINES["device"].replace("{ ", "{ cold-start-empty true\n ", 1)
    refused(Place(tmp_path / "old", "device", forgetful), target, "cold-start-empty is set")
    refused(source, Place(tmp_path / "new", "device", forgetful), "cold-start-empty is set")
    holds(source)


# ---- What ends in the middle ----

def test_a_target_that_is_too_small(tmp_path):
    source = Place(tmp_path / "old", "device", ENGINES["device"].replace("96M", "256M"))
    target = Place(tmp_path / "new", "device", ENGINES["device"].replace("96M", "64M"))
    node = source.start()
    client = node.client()
    for number in range(120):
        client.put(("test", "s", number), {"b": os.urandom(900_000)})
    assert node.stop() == 0, node.log
    done = convert(source, target, "--yes")
    assert done.returncode == 1, done.stderr
    assert "the target is full: make it larger" in done.stderr
    copied, of = re.search(r"(\d+) of (\d+) records were copied: the target is not complete", done.stderr).groups()
    assert 0 < int(copied) < int(of) == 120
    assert f"Empty the target before the next attempt: `apus wipe {target.directory}/ssd.dat`" in done.stderr
    refused(source, target, "the target of a conversion must be empty")
    larger = Place(tmp_path / "third", "device", ENGINES["device"].replace("96M", "256M"))
    done = convert(source, larger, "--yes")
    assert done.returncode == 0 and "namespace test: 120 records" in done.stdout, done.stderr


@needs_full
def test_a_record_that_the_target_cannot_hold(tmp_path):
    """A device holds a little less than other backends."""
    source = Place(tmp_path / "old", "template", more="max-record-size 8388608")
    target = Place(tmp_path / "new", "device")
    node = source.start()
    client = node.client(write={"total_timeout": 20000})
    # The largest that the source takes.
    with pytest.raises(exception.RecordTooBig):
        for size in range(8_388_450, 8_388_640, 8):
            client.put(("test", "large", 1), {"b": bytes(size)})
    assert node.stop() == 0, node.log
    done = convert(source, target, "--yes")
    assert done.returncode == 1, done.stderr
    assert re.search(r"record [0-9a-f]{40} of set 'large' takes \d+ bytes, storage-engine 'device' holds records up to \d+\.",
                     done.stderr), done.stderr
    assert "0 of 1 records were copied" in done.stderr


@pytest.mark.parametrize("number", [
    signal.SIGINT, pytest.param(signal.SIGTERM, marks=soak), pytest.param(signal.SIGKILL, marks=soak)])
def test_a_signal_in_the_middle(tmp_path, number):
    count = 150_000
    source = Place(tmp_path / "old", "device", ENGINES["device"].replace("96M", "256M"))
    target = Place(tmp_path / "new", "device", ENGINES["device"].replace("96M", "256M"))
    node = source.start()
    load = subprocess.run([BINARY, "bench", "load", "--hosts", f"127.0.0.1:{node.port}", "--keys", f"{count}", "--depth", "8"],
                          capture_output=True, text=True, timeout=100)
    assert load.returncode == 0, load.stderr
    assert node.stop() == 0, node.log
    process = subprocess.Popen([BINARY, "convert", "test", "--from", source.file, "--to", target.file, "--yes"],
                               stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    seen = ""
    for line in process.stderr:
        seen += line
        # The target is open: copying has begun.
        if "} target: 0 records" in line:
            time.sleep(0.1)
            process.send_signal(number)
            break
    seen += process.stderr.read()
    code = process.wait(20)
    assert process.stdout.read().count("read back") == 0
    if number == signal.SIGKILL:
        assert code == -signal.SIGKILL
    else:
        assert code == 1 and "stopped by a signal" in seen, seen
        assert "the target is not complete and not to be used" in seen
        assert re.search(rf"\d+ of {count} records were copied", seen), seen
    refused(source, target, "the target of a conversion must be empty", "of a conversion that was interrupted")
    subprocess.run([BINARY, "wipe", "--yes", f"{target.directory}/ssd.dat"], check=True, capture_output=True)
    done = convert(source, target, "--yes")
    assert done.returncode == 0 and f"namespace test: {count} records" in done.stdout, done.stderr


# ---- What the comparison is for ----

@pytest.fixture(scope="module")
def liar(tmp_path_factory):
    """A backend that does what APUS_LIE says."""
    path = tmp_path_factory.mktemp("liar") / "liar.so"
    subprocess.run(["gcc", "-shared", "-fPIC", "-Wall", "-Werror", f"-I{ROOT}/Sources/Backends/CBackend/include",
                    f"{ROOT}/Tests/Integration/plugins/liar.c", "-o", path], check=True)
    return path


def liars(path, liar):
    """A place whose namespace is on that backend."""
    place = Place(path, "device", "storage-engine liar")
    with open(place.file, "a") as file:
        file.write(f"plugin {{ path {liar}\n}}\n")
    return place


@pytest.mark.parametrize("lie, message", [
    ("nothing", None),
    ("hesitates", None),
    ("forgets", "1 records of the target are missing or differ; the target holds 199 records, copied were 200"),
    ("invents", "the target holds 201 records, copied were 200"),
    ("changes", "1 records of the target are missing or differ"),
    ("breaks", "100 of 200 records were copied: the target is not complete"),
])
def test_a_target_that_lies(tmp_path, source, liar, lie, message, monkeypatch):
    monkeypatch.setenv("APUS_LIE", lie)
    monkeypatch.setenv("APUS_LIAR", f"{tmp_path}/liar")
    target = liars(tmp_path / "new", liar)
    done = convert(source, target, "--yes")
    if message is None:
        assert done.returncode == 0 and "namespace test: 200 records" in done.stdout, done.stderr
    else:
        assert done.returncode == 1 and message in done.stderr, done.stderr
        assert "read back" not in done.stdout and "not to be used" in done.stderr


def test_a_record_that_cannot_be_read(tmp_path, source, liar, monkeypatch):
    """The source has shown a record and does not give it: everything else is copied, and that is said."""
    monkeypatch.setenv("APUS_LIAR", f"{tmp_path}/liar")
    middle, target = liars(tmp_path / "middle", liar), Place(tmp_path / "new", "device")
    done = convert(source, middle, "--yes")
    assert done.returncode == 0, done.stderr
    monkeypatch.setenv("APUS_LIE", "loses")
    done = convert(middle, target, "--yes")
    assert done.returncode == 1, done.stderr
    lost = re.search(r"record ([0-9a-f]{40}) cannot be read from the source: it is not there", done.stderr).group(1)
    assert "1 records of the source could not be read, see above: they are not in the target, everything else is" in done.stderr
    assert "namespace test: 199 records" in done.stdout
    node = target.start()
    with node.raw() as raw:
        for number in range(200):
            of = digest(number + 1)
            assert raw.ask(get(of)).result == (2 if of.hex() == lost else 0)
    assert node.stop() == 0, node.log


@pytest.mark.parametrize("index", ["heap", "shmem"])
def test_a_damaged_record_is_told_of(tmp_path, index):
    """A record whose bytes have changed on the medium. An index that is built from the medium does not know it: the target
    serves what the source does. One that has outlived the node does, and the source answers that the record is damaged."""
    source, target = Place(tmp_path / "old", "device", more=f"index-type {index}"), Place(tmp_path / "new", "device")
    small(source)
    with open(f"{source.directory}/ssd.dat", "r+b") as file:
        content = file.read()
        victim = content.index(digest(7), 8 << 20)
        file.seek(victim + 30)
        file.write(bytes([content[victim + 30] ^ 0xFF]))
    done = convert(source, target, "--yes")
    assert "namespace test: 199 records" in done.stdout, done.stderr
    if index == "heap":
        assert done.returncode == 0 and "1 places of the source's medium could not be read" in done.stdout, done.stdout
    else:
        assert done.returncode == 1, done.stderr
        assert f"record {digest(7).hex()} cannot be read from the source: it is not what was written" in done.stderr
        assert "1 records of the source could not be read" in done.stderr
