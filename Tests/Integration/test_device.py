"""storage-engine device: real files, real kills, and everything an operator can do wrong. Nothing is lost by a refused start."""
import hashlib
import os
import re
import shutil
import signal
import subprocess
import time

import aerospike
import pytest
from aerospike import exception

from conftest import BINARY, RawClient, Server, digest, get, put

pytestmark = pytest.mark.memory_only
MEBIBYTE = 1 << 20
SIZE = 256 * MEBIBYTE


def namespace(files, more="", name="ssd", size="256M"):
    lines = "\n".join(f"    file {path}" for path in files)
    size_line = f"    filesize {size}" if size else ""
    # In ordinary memory, so that a start reads the devices: test_media.py has the rest.
    return (f"namespace {name} {{ nsup-period 120\n allow-ttl-without-nsup true\n  index-type heap\n  storage-engine device {{\n{lines}\n{size_line}\n"
            f"    {more}\n  }}\n}}\n")


def start(directory, files=("a.dat",), more="", wait=True, namespaces=None, **named):
    paths = [os.path.join(directory, name) for name in files]
    return Server(namespaces or namespace(paths, more), wait=wait, directory=str(directory), **named)


def refusal(directory, pattern, **named):
    """The node does not start, says why in words, and changes no file."""
    before = hashes(directory)
    node = start(directory, wait=False, **named)
    code, log = node.end_with_failure()
    assert code == 1, log
    assert re.search(pattern, log), log
    assert hashes(directory) == before
    return log


def hashes(directory):
    """Of all data files, parts of them; sparse and large ones in a moment."""
    values = {}
    for name in sorted(os.listdir(directory)):
        path = os.path.join(directory, name)
        if name.endswith(".dat") and os.path.isfile(path):
            with open(path, "rb") as file:
                head = file.read(16 * MEBIBYTE)
            values[name] = (os.path.getsize(path), hashlib.sha256(head).hexdigest())
    return values


def fill(client, count=300, base=0, name="ssd"):
    for number in range(base, base + count):
        client.put((name, "demo", number), {"n": number, "text": "x" * (number % 700)})


def fill_large(client, count):
    """So much that most of it is on the devices only when caches are off."""
    for number in range(count):
        client.put(("ssd", "demo", number), {"b": bytes([number % 256]) * 200_000})


def holds(client, count=300, base=0, name="ssd"):
    for number in range(base, base + count):
        assert client.get((name, "demo", number))[2] == {"n": number, "text": "x" * (number % 700)}


@pytest.fixture
def filled(tmp_path):
    """A directory with a file that holds 300 records."""
    node = start(tmp_path)
    fill(node.client())
    assert node.stop() == 0, node.log
    return tmp_path


# ---- What works ----

def test_restart_growth_and_where_a_record_lies(filled):
    node = start(filled)
    client = node.client()
    holds(client)
    assert "cold start: 300 records" in node.log
    statistics = node.statistics("namespace/ssd")
    assert statistics["objects"] == "300" and statistics["backend"] == "device"
    total = int(statistics["data_total_bytes"])
    assert int(statistics["storage-engine.file[0].used_bytes"]) > 0 and statistics["storage-engine.file[0].read_errors"] == "0"
    told = subprocess.run([BINARY, "record", "ssd", "demo", "7", "--integer", "--host", f"127.0.0.1:{node.port}"],
                          capture_output=True, text=True)
    assert told.returncode == 0, told.stderr
    facts = dict(line.split(None, 1) for line in told.stdout.splitlines() if len(line.split(None, 1)) == 2)
    assert facts["generation"] == "1" and facts["set"] == "demo" and facts["void-time"] == "never"
    assert facts["device"].endswith("a.dat") and int(facts["block"]) >= 0 and int(facts["offset"]) >= 8 * MEBIBYTE
    assert 0 <= int(facts["partition"]) < 4096 and abs(float(facts["last-update-time"]) - time.time()) < 120
    missing = subprocess.run([BINARY, "record", "ssd", "demo", "nobody", "--host", f"127.0.0.1:{node.port}"],
                             capture_output=True, text=True)
    assert missing.returncode == 1 and "not found" in missing.stderr
    assert node.info("resize-storage:namespace=ssd;filesize=512M") == "ok"
    node.wait_for_log(r"resize-storage: .*512|resize-storage: .*536870912")
    assert int(node.statistics("namespace/ssd")["data_total_bytes"]) == total + 256 * MEBIBYTE
    fill(client, base=1000)
    assert node.stop() == 0, node.log
    again = start(filled)
    holds(again.client())
    holds(again.client(), base=1000)
    assert int(again.statistics("namespace/ssd")["data_total_bytes"]) == total + 256 * MEBIBYTE
    assert again.stop() == 0, again.log


def test_several_files_in_any_order(tmp_path):
    names = ["a.dat", "b.dat", "c.dat"]
    node = start(tmp_path, names)
    fill(node.client())
    statistics = node.statistics("namespace/ssd")
    assert all(int(statistics[f"storage-engine.file[{number}].used_bytes"]) > 0 for number in range(3))
    assert node.stop() == 0, node.log
    again = start(tmp_path, reversed(names))
    holds(again.client())
    assert again.stop() == 0, again.log


def test_durable_deletes_last(filled):
    """Tombstones stay as long as an older image is on the device, whatever is overwritten meanwhile, and last over restarts."""
    node = start(filled)
    client = node.client()
    for number in range(100):
        client.remove(("ssd", "demo", number), policy={"durable_delete": True})
    assert node.statistics("namespace/ssd")["tombstones"] == "100"
    told = node.info(f"record:namespace=ssd;digest={aerospike.calc_digest('ssd', 'demo', 5).hex()}")
    assert "kind=tombstone" in told
    assert node.stop() == 0, node.log
    for restart in range(3):
        node = start(filled)
        client = node.client()
        statistics = node.statistics("namespace/ssd")
        assert statistics["objects"] == "200"
        # Once the block with the older images is written again they are needless.
        assert restart > 0 or statistics["tombstones"] == "100", statistics["tombstones"]
        for number in range(100):
            with pytest.raises(exception.RecordNotFound):
                client.get(("ssd", "demo", number))
        holds(client, 200, 100)
        # Tombstones written after a start are none of those that were found needless.
        client.put(("ssd", "demo", 7), {"n": 1})
        client.remove(("ssd", "demo", 7), policy={"durable_delete": True})
        fill(client, 200, 100)
        time.sleep(0.2)
        assert node.stop() == 0, node.log


def test_durable_deletes_make_room(tmp_path):
    """Where nothing can be written any more a durable delete still can."""
    node = start(tmp_path, more="stop-writes-used-pct 0\n stop-writes-avail-pct 0\n post-write-cache 8M")
    client = node.client()
    blob = os.urandom(900_000)
    with pytest.raises(exception.AerospikeError) as caught:
        for number in range(400):
            client.put(("ssd", "demo", number), {"b": blob}, policy={"max_retries": 0})
    assert caught.value.code == 8
    for number in range(20):
        client.remove(("ssd", "demo", number), policy={"durable_delete": True})
    assert node.stop() == 0, node.log


def test_memory_of_the_device_is_bounded_and_pressure_waits(tmp_path):
    """More is written at once than max-write-cache: writers wait, and none fails."""
    node = start(tmp_path, more="max-write-cache 8M\n post-write-cache 8M")
    with RawClient(node.port) as raw:
        value = os.urandom(500_000)
        from conftest import message, operation
        frames = [message(digest(number), [operation(2, 4, b"b", value)], info2=1, namespace=b"ssd") for number in range(60)]
        for one in frames:
            assert raw.ask(one).result == 0
    assert node.stop() == 0, node.log


def test_a_full_device_answers_8_and_deletes_go_on(tmp_path):
    node = start(tmp_path, more="stop-writes-used-pct 0\n stop-writes-avail-pct 0\n post-write-cache 8M")
    client = node.client()
    blob = os.urandom(900_000)
    stored = 0
    with pytest.raises(exception.AerospikeError) as caught:
        for number in range(400):
            client.put(("ssd", "demo", number), {"b": blob}, policy={"max_retries": 0})
            stored += 1
    assert caught.value.code == 8, caught.value
    assert stored * 900_000 > 0.6 * (SIZE - 8 * MEBIBYTE)
    for number in range(stored // 2):
        client.remove(("ssd", "demo", number))
    deadline = time.time() + 20
    while True:
        try:
            client.put(("ssd", "demo", 1000), {"b": blob})
            break
        except exception.AerospikeError as error:
            assert error.code in (8, 18) and time.time() < deadline, error
            time.sleep(0.1)
    for number in range(stored // 2, stored):
        assert client.get(("ssd", "demo", number))[2]["b"] == blob
    assert node.stop() == 0, node.log


def test_without_io_uring(filled):
    node = start(filled, environment={"APUS_NO_IO_URING": "1"})
    client = node.client()
    holds(client)
    fill(client, base=1000)
    assert "io_uring is switched off by APUS_NO_IO_URING=1" in node.log, "the node says why it is slower"
    assert node.stop() == 0, node.log


# ---- What is refused ----

def test_in_use_by_another_node(filled):
    node = start(filled)
    other = Server(namespace([filled / "a.dat"]), wait=False)
    code, log = other.end_with_failure()
    assert code == 1 and re.search(r"a\.dat.*in use by another process", log), log
    holds(node.client())
    assert node.stop() == 0, node.log


def test_two_namespaces_on_one_file(tmp_path):
    path = tmp_path / "a.dat"
    link = tmp_path / "b.dat"
    node = Server(namespace([path]) , directory=str(tmp_path))
    assert node.stop() == 0
    os.link(path, link)
    log = refusal(tmp_path, r"b\.dat", namespaces=namespace([path]) + namespace([link], name="other"))
    assert re.search(r"same file|already|namespace 'ssd'", log), log


def test_another_namespaces_file(filled):
    refusal(filled, r"namespace 'ssd', not of 'other'", namespaces=namespace([filled / "a.dat"], name="other"))


def test_somebody_elses_data(tmp_path):
    with open(tmp_path / "a.dat", "wb") as file:
        file.write(b"not ours" * 100)
        file.truncate(SIZE)
    refusal(tmp_path, r"apus wipe")


def test_truncated_file(filled):
    os.truncate(filled / "a.dat", SIZE // 2)
    refusal(filled, r"a\.dat.*(truncated|smaller)", namespaces=namespace([filled / "a.dat"], size=""))


def test_damaged_superblocks(filled):
    with open(filled / "a.dat", "r+b") as file:
        file.write(b"\xff" * 16384)
    refusal(filled, r"a\.dat")


def test_missing_file_of_a_set(tmp_path):
    names = ["a.dat", "b.dat"]
    node = start(tmp_path, names)
    fill(node.client())
    assert node.stop() == 0, node.log
    os.rename(tmp_path / "b.dat", tmp_path / "hidden")
    refusal(tmp_path, r"(missing|1 of 2)", files=["a.dat"])
    node = start(tmp_path, ["a.dat"], "on-missing-device continue")
    client = node.client()
    found = 0
    for number in range(300):
        try:
            client.get(("ssd", "demo", number))
            found += 1
        except exception.RecordNotFound:
            pass
    assert 50 < found < 250
    assert node.stop() == 0, node.log


def test_no_space_for_the_file(tmp_path):
    free = shutil.disk_usage(tmp_path).free
    log = refusal(tmp_path, r"(space|free)", namespaces=namespace([tmp_path / "a.dat"], size=f"{(free >> 30) + 100}G"))
    assert "a.dat" in log and not os.path.exists(tmp_path / "a.dat")


@pytest.mark.parametrize("make,pattern", [
    (lambda path: os.mkdir(path), r"directory"),
    (lambda path: open(path, "wb").write(b"\0" * 1000), r"(whole|aligned|sector)"),
    (lambda path: open(path, "wb").truncate(4 * MEBIBYTE), r"(small|at least)"),
], ids=["directory", "unaligned", "tiny"])
def test_files_that_cannot_be(tmp_path, make, pattern):
    make(tmp_path / "a.dat")
    refusal(tmp_path, pattern, namespaces=namespace([tmp_path / "a.dat"], size=""))


def test_settings_that_make_no_sense(tmp_path):
    refusal(tmp_path, r"(device|file)", namespaces="namespace ssd { storage-engine device {\n}\n}\n")
    refusal(tmp_path, r"filesize", namespaces=namespace([tmp_path / "a.dat"], size=""))
    twice = namespace([tmp_path / "a.dat", tmp_path / "a.dat"])
    refusal(tmp_path, r"a\.dat", namespaces=twice)
    assert not os.path.exists(tmp_path / "a.dat")


def test_wipe_asks_first(filled):
    path = str(filled / "a.dat")
    before = hashes(filled)
    no = subprocess.run([BINARY, "wipe", path], input="no\n", capture_output=True, text=True)
    assert no.returncode == 1 and "ssd" in no.stdout + no.stderr and hashes(filled) == before
    node = start(filled)
    busy = subprocess.run([BINARY, "wipe", path, "--yes"], capture_output=True, text=True)
    assert busy.returncode == 1 and "in use" in busy.stderr
    assert node.stop() == 0, node.log
    yes = subprocess.run([BINARY, "wipe", path, "--yes"], capture_output=True, text=True)
    assert yes.returncode == 0, yes.stderr
    node = start(filled)
    assert node.statistics("namespace/ssd")["objects"] == "0"
    assert node.stop() == 0, node.log


# ---- Damage ----

def test_damage_is_named_and_never_served(filled):
    """Records of one block are overwritten with noise while the node is down: the others are served, these are not, or as they were."""
    path = filled / "a.dat"
    with open(path, "r+b") as file:
        file.seek(8 * MEBIBYTE + 20_000)
        file.write(os.urandom(3000))
    node = start(filled)
    client = node.client()
    lost = 0
    for number in range(300):
        try:
            assert client.get(("ssd", "demo", number))[2] == {"n": number, "text": "x" * (number % 700)}
        except exception.RecordNotFound:
            lost += 1
    assert 0 < lost < 60, lost
    assert re.search(r"a\.dat.*block \d+", node.log), node.log
    assert int(node.statistics("namespace/ssd")["storage-engine.file[0].damaged_blocks"]) == 1
    assert node.stop() == 0, node.log


def test_rot_under_a_running_node_answers_1(filled):
    node = start(filled, more="post-write-cache 0")
    client = node.client()
    holds(client)
    with open(filled / "a.dat", "r+b") as file:
        file.seek(8 * MEBIBYTE + 20_000)
        file.write(os.urandom(3000))
        os.fsync(file.fileno())
    codes = {}
    for number in range(300):
        try:
            client.get(("ssd", "demo", number), policy={"max_retries": 0})
            codes[0] = codes.get(0, 0) + 1
        except exception.AerospikeError as error:
            codes[error.code] = codes.get(error.code, 0) + 1
    assert set(codes) == {0, 1} and codes[1] < 60, codes
    assert int(node.statistics("namespace/ssd")["records_unreadable"]) == codes[1]
    assert node.stop() == 0, node.log


def test_a_device_that_fails_is_given_up(tmp_path):
    """The file of one of two devices is cut short under the node: its reads fail, it is named, the other one serves."""
    node = start(tmp_path, ["a.dat", "b.dat"], "post-write-cache 0\n flush-max-ms 50")
    client = node.client()
    fill_large(client, 300)
    time.sleep(0.3)
    os.truncate(tmp_path / "a.dat", 4096)
    bad = 0
    for number in range(300):
        try:
            client.get(("ssd", "demo", number), policy={"max_retries": 0})
        except exception.AerospikeError as error:
            assert error.code == 1, error
            bad += 1
    assert 50 < bad < 200
    node.wait_for_log(r"a\.dat is given up")
    fill(client, base=5000)
    holds(client, base=5000)
    assert node.statistics("namespace/ssd")["storage-engine.file[0].fenced"] == "true"
    node.stop()


def test_a_failing_device_can_stop_the_node(tmp_path):
    node = start(tmp_path, more="post-write-cache 0\n flush-max-ms 50\n on-device-failure stop")
    client = node.client()
    fill_large(client, 200)
    time.sleep(0.3)
    os.truncate(tmp_path / "a.dat", 4096)
    for number in range(200):
        try:
            client.get(("ssd", "demo", number), policy={"max_retries": 0})
        except exception.AerospikeError:
            pass
    assert node.process.wait(15) == 1, node.log
    assert "stopping: namespace ssd: device" in node.log
