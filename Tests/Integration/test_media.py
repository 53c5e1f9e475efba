"""Indexes and records in memory that outlives the process: clean stops, kills at any moment, and memory that belongs to something else.
APUS_KILLS is how often each medium is killed under load (10 and 3)."""
import os
import random
import re
import shutil
import signal
import socket
import subprocess
import time

import pytest

from conftest import (BINARY, FULL, LMDB, Answer, RawClient, Server, delete, digest, get, needs_full, plugin_block, put,
                      shm_segments)
from test_durability import Writer, check, check_all_kinds, current, write_all_kinds

pytestmark = pytest.mark.memory_only
DEVICE = "storage-engine device {{ file {0}/a.dat\n filesize 192M\n post-write-cache 16M\n flush-max-ms 1000\n {1}\n}}"
# What a namespace says, and how often it is killed in `make test`. {0} is the directory of the test, {1} more settings.
MEDIA = {
    "device-shmem": ("index-type shmem\n" + DEVICE, 10),
    "device-pmem": ("index-type pmem {{ mount {0}/mount\n}}\n" + DEVICE, 10),
    "pmem": ("index-type pmem {{ mount {0}/mount\n}}\nstorage-engine pmem {{ file {0}/a.pmem\n filesize 192M\n {1}\n}}", 3),
    "memory-shmem": ("index-type shmem\nstorage-engine memory {{ data-size 192M\n}}", 3),
    "memory-file": ("index-type shmem\nstorage-engine memory {{ file {0}/a.dat\n filesize 192M\n {1}\n}}", 3),
}
EVERY = sorted(MEDIA)


def namespace(medium, directory, more="", name="test"):
    text = MEDIA[medium][0].format(directory, more)
    return f"namespace {name} {{ nsup-period 120\n allow-ttl-without-nsup true\n{text}\n}}\n"


def start(medium, directory, more="", **named):
    os.makedirs(f"{directory}/mount", exist_ok=True)
    return Server(namespace(medium, directory, more), directory=str(directory), **named)


def outlived(node):
    return "warm start:" in node.log and "cold start" not in node.log


# ---- What works ----

@pytest.mark.parametrize("medium", EVERY)
def test_clean_restart(medium, tmp_path):
    node = start(medium, tmp_path)
    client = node.client()
    before = write_all_kinds(client, 3000, is_durable=False)
    client.put(("test", "large", 1), {"blob": bytearray(b"large" * 180_000)})
    statistics = node.statistics("namespace/test")
    assert node.stop() == 0, node.log
    again = start(medium, tmp_path)
    assert outlived(again), again.log
    client = again.client()
    # Here even plain deletes last.
    check_all_kinds(client, 3000, before)
    assert client.get(("test", "large", 1))[2]["blob"] == bytearray(b"large" * 180_000)
    now = again.statistics("namespace/test")
    for figure in ("objects", "tombstones", "data_used_bytes"):
        assert now[figure] == statistics[figure], figure
    assert f"objects={sum(1 for n in range(3000) if n % 3 == 1 and n % 10)}" in again.info("sets/test/set1")
    # It goes on: new records, overwrites, deletes.
    for number in range(5000):
        client.put(("test", "set1", number), {"n": -number})
    for number in range(0, 5000, 5):
        assert client.get(("test", "set1", number))[2]["n"] == -number
    assert again.stop() == 0, again.log


@pytest.mark.parametrize("medium", EVERY)
def test_kill_under_load_loses_nothing(medium, tmp_path):
    """After kill -9 every key answers its last acknowledged value, or the one that was under way; without commit-to-device."""
    previous = []
    for number in range(int(os.environ.get("APUS_KILLS", MEDIA[medium][1]))):
        node = start(medium, tmp_path)
        assert number == 0 or outlived(node), node.log
        writers = [Writer(node.port, number, 60, durable_deletes=False) for number in range(8)]
        for writer, old in zip(writers, previous):
            check(old, node.port)
            writer.acknowledged = current(old, node.port)
        for writer in writers:
            writer.start()
        time.sleep(random.uniform(0.1, 0.6))
        node.process.send_signal(signal.SIGKILL)
        node.process.wait(10)
        for writer in writers:
            writer.join()
            assert writer.problem is None, f"a write answered {writer.problem}\n{node.log[-2000:]}"
        assert sum(writer.count for writer in writers) > 10, "there was load"
        previous = writers
    node = start(medium, tmp_path)
    assert outlived(node), node.log
    for writer in previous:
        check(writer, node.port)
    values = [current(writer, node.port) for writer in previous]
    assert node.statistics("namespace/test")["records_unreadable"] == "0"
    assert node.stop() == 0, node.log
    if medium in ("memory-shmem", "memory-file"):
        return
    # What was given up with the process is on the medium as well: a start that forgets the memory finds all but plain deletes.
    forget(tmp_path)
    node = start(medium, tmp_path)
    assert "cold start: " in node.log, node.log
    for writer, known in zip(previous, values):
        for key, value in current(writer, node.port).items():
            assert known[key] is None or value == known[key], f"key {key} has {value}, was {known[key]}"
    assert node.statistics("namespace/test")["records_unreadable"] == "0"
    assert not re.search(r"damaged [1-9]|spoiled", node.log), node.log
    assert node.stop() == 0, node.log


def forget(directory):
    """Removes the memory of all namespaces that ran in this directory."""
    subprocess.run([BINARY, "shm", "remove", "--owner", f"{directory}/var", "--mount", "/dev/shm", "--mount",
                    f"{directory}/mount", "--yes"], check=True, capture_output=True)


@pytest.mark.parametrize("medium", EVERY)
def test_kill_while_starting(medium, tmp_path):
    """A process that dies at any moment of its start leaves what the next one can go on from."""
    node = start(medium, tmp_path)
    raw = RawClient(node.port)
    for number in range(4000):
        assert raw.ask(put(digest(number + 1), number)).result == 0
    node.process.kill()
    node.process.wait(10)
    for number in range(10):
        node = start(medium, tmp_path, wait=False)
        time.sleep(random.uniform(0, 0.12))
        node.process.kill()
        node.process.wait(10)
    node = start(medium, tmp_path)
    assert outlived(node), node.log
    with RawClient(node.port) as raw:
        for number in range(4000):
            answer = raw.ask(get(digest(number + 1)))
            assert answer.result == 0 and int.from_bytes(answer.bins[0][2], "big") == number
    assert node.stop() == 0, node.log


def test_memory_with_a_file_reads_from_memory_and_survives_without_shared_memory(tmp_path):
    text = ("namespace test {{ index-type heap\n nsup-period 120\n storage-engine memory {{ file {0}/a.dat\n filesize 192M\n"
            " commit-to-device true\n}}\n}}\n").format(tmp_path)
    node = Server(text, directory=str(tmp_path))
    client = node.client()
    for number in range(2000):
        client.put(("test", "demo", number), {"b": bytes([number % 256]) * (number * 3)})
    node.process.kill()
    node.process.wait(10)
    node = Server(text, directory=str(tmp_path))
    assert "cold start: 2000 records" in node.log
    client = node.client()
    # The file is not needed to read.
    with open(tmp_path / "a.dat", "r+b") as file:
        file.seek(8 << 20)
        file.write(b"\0" * (64 << 20))
    for number in range(2000):
        assert client.get(("test", "demo", number))[2]["b"] == bytes([number % 256]) * (number * 3)
    assert node.stop() == 0, node.log


# ---- Memory that does not fit ----

def filled(medium, directory, value=1, **named):
    node = start(medium, directory, **named)
    raw = RawClient(node.port)
    for number in range(500):
        assert raw.ask(put(digest(number + 1), value)).result == 0
    return node


def holds(node, value=1):
    with RawClient(node.port) as raw:
        for number in range(500):
            answer = raw.ask(get(digest(number + 1)))
            assert answer.result == 0 and int.from_bytes(answer.bins[0][2], "big") == value


PERSISTENT = ["device-shmem", "device-pmem", "pmem"]


@pytest.mark.parametrize("medium", PERSISTENT)
def test_memory_of_an_older_session(medium, tmp_path):
    """Somebody has used the device without its memory meanwhile: what the memory says is old."""
    node = filled(medium, tmp_path)
    assert node.stop() == 0
    engine = namespace(medium, tmp_path)
    heap = re.sub(r"index-type (shmem|pmem \{[^}]*\})", "index-type heap", engine)
    assert heap != engine
    other = Server(heap, directory=str(tmp_path))
    with RawClient(other.port) as raw:
        for number in range(500):
            assert raw.ask(put(digest(number + 1), 2)).result == 0
    assert other.stop() == 0
    node = start(medium, tmp_path)
    assert re.search(r"cold start: .*(used since|was used without this memory since)", node.log), node.log
    holds(node, 2)
    assert node.stop() == 0


@pytest.mark.parametrize("medium", PERSISTENT)
def test_swapped_device(medium, tmp_path):
    """The memory of one device, the file of another."""
    name = "a.pmem" if medium == "pmem" else "a.dat"
    here, there = tmp_path / "here", tmp_path / "there"
    for directory, value in ((here, 1), (there, 2)):
        directory.mkdir()
        assert filled(medium, directory, value).stop() == 0
    shutil.copyfile(there / name, here / name)
    node = start(medium, here)
    assert re.search(r"cold start: .*a\.(dat|pmem)", node.log), node.log
    holds(node, 2)
    assert node.stop() == 0


@pytest.mark.parametrize("medium", ["device-shmem", "device-pmem", "memory-shmem"])
def test_segment_of_another_namespace_and_damaged_ones(medium, tmp_path):
    """Whatever is in the place of the segment: a cold start with the reason, never a wrong record."""
    node = filled(medium, tmp_path)
    assert node.stop() == 0
    mount = f"{tmp_path}/mount" if medium == "device-pmem" else "/dev/shm"
    (segment,) = shm_segments(mount, f"{tmp_path}/var")
    whole = f"{tmp_path}/whole"
    shutil.copytree(segment, whole)

    def restart(reason):
        node = start(medium, tmp_path)
        assert re.search(rf"cold start: .*({reason})", node.log) or medium == "memory-shmem" and re.search(reason, node.log), node.log
        if medium != "memory-shmem":
            holds(node)
        assert node.stop() == 0, node.log

    # Another namespace's, byte for byte.
    other = tmp_path / "other"
    other.mkdir()
    os.makedirs(other / "mount")
    stranger = Server(namespace(medium, other, name="other"), directory=str(other))
    stranger.raw().ask(put(digest(1), 9, namespace=b"other"))
    assert stranger.stop() == 0
    (theirs,) = shm_segments(f"{other}/mount" if medium == "device-pmem" else "/dev/shm", f"{other}/var")
    shutil.rmtree(segment)
    shutil.copytree(theirs, segment)
    restart("namespace")
    # A header of noise; one that is gone; a region that is cut short; an index of noise.
    for damage, reason in ((noise("header"), "header|damaged|format"), (remove("header"), "header|half|no segment|damaged"),
                           (cut("entries"), "entries|short|missing"), (remove("lines"), "lines|missing|short")):
        shutil.rmtree(segment)
        shutil.copytree(whole, segment)
        # The device has moved on since: the copy would be stale anyway, unless the damage is seen first.
        damage(segment)
        restart(reason + "|session|used since|key")


def noise(name):
    def damage(segment):
        for path in files(segment, name):
            with open(path, "r+b") as file:
                file.write(os.urandom(min(os.path.getsize(path), 1 << 16)))
    return damage


def remove(name):
    return lambda segment: [os.remove(path) for path in files(segment, name)]


def cut(name):
    return lambda segment: [os.truncate(path, 4096) for path in files(segment, name)]


def files(segment, name):
    found = [os.path.join(segment, one) for one in os.listdir(segment) if one.startswith(name)]
    assert found, f"no {name} in {os.listdir(segment)}"
    return found


def test_noise_in_the_index_is_found_by_the_walk(tmp_path):
    node = filled("device-shmem", tmp_path)
    node.process.kill()
    node.process.wait(10)
    (segment,) = shm_segments("/dev/shm", f"{tmp_path}/var")
    for path in files(segment, "lines"):
        with open(path, "r+b") as file:
            file.seek(4096)
            file.write(os.urandom(256 << 10))
    node = start("device-shmem", tmp_path)
    assert re.search(r"cold start: .*index is damaged", node.log), node.log
    # What was not flushed yet is lost with it; everything that is found is right.
    with RawClient(node.port) as raw:
        for number in range(500):
            answer = raw.ask(get(digest(number + 1)))
            assert answer.result in (0, 2)
    assert node.stop() == 0


# ---- The operator ----

def tool(*words):
    return subprocess.run([BINARY, *words], capture_output=True, text=True)


def test_shm_list_and_remove(tmp_path):
    owner = f"{tmp_path}/var"
    node = filled("device-shmem", tmp_path)
    text = tool("shm", "list").stdout
    assert re.search(rf"in use.*{node.process.pid}", text) and owner in text, text
    refused = tool("shm", "remove", "--owner", owner, "--yes")
    assert refused.returncode != 0 and str(node.process.pid) in refused.stderr, refused
    holds(node)
    node.process.kill()
    node.process.wait(10)
    assert shm_segments("/dev/shm", owner)
    done = tool("shm", "remove", "--owner", owner, "--yes")
    assert done.returncode == 0, done
    assert not shm_segments("/dev/shm", owner)
    assert owner not in tool("shm", "list").stdout


def test_index_types_that_do_not_fit(tmp_path):
    def refusal(text, pattern, environment=None, command=None):
        node = Server(text, wait=False, directory=str(tmp_path), environment=environment, command=command)
        code, log = node.end_with_failure()
        assert code in (1, 2) and re.search(pattern, log), log
    device = DEVICE.format(tmp_path, "")
    refusal(f"namespace test {{ index-type pmem\n {device}\n}}", "needs a mount")
    refusal(f"namespace test {{ index-type ram\n {device}\n}}", "types are heap, shmem, pmem")
    refusal(f"namespace test {{ index-type pmem {{ mount {tmp_path}/nowhere\n}}\n {device}\n}}", "nowhere")
    os.makedirs(tmp_path / "mount")
    refusal(f"namespace test {{ index-type pmem {{ mount {tmp_path}/mount\n}}\n {device}\n}}", "PMEM_IS_PMEM_FORCE|DAX",
            environment={"PMEM_IS_PMEM_FORCE": "0"})


@needs_full
def test_an_index_type_that_its_backend_cannot_use(tmp_path):
    node = Server("namespace test { index-type shmem\n storage-engine rocksdb\n}", wait=False, directory=str(tmp_path),
                  command=[FULL, "serve", "--config"])
    code, log = node.end_with_failure()
    assert code == 1 and "use index-type heap" in log, log


def test_pmem_on_an_ordinary_file_system_says_that_it_does_not_last(tmp_path):
    node = filled("device-pmem", tmp_path)
    assert "NOT durable" in node.log, node.log
    assert node.stop() == 0


@pytest.fixture
def small_tmpfs(tmp_path):
    """A tmpfs of 96 MiB."""
    mount = tmp_path / "small"
    mount.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=96M", "tmpfs", mount], capture_output=True).returncode != 0:
        pytest.skip("only root can mount a small tmpfs")
    yield mount
    subprocess.run(["umount", "-l", mount], check=True)


def test_shared_memory_that_is_full(tmp_path, small_tmpfs):
    """Writes answer 8, nothing dies, deletes make room."""
    text = (f"namespace test {{ index-type shmem {{ mount {small_tmpfs}\n}}\n storage-engine device {{ file {tmp_path}/a.dat\n"
            " filesize 1G\n post-write-cache 8M\n max-write-cache 16M\n}\n}\n")
    node = Server(text, directory=str(tmp_path))
    # The node takes memory at the same time.
    with open(small_tmpfs / "filler", "wb") as filler:
        while (free := free_bytes(small_tmpfs)) > 3 << 20:
            filler.write(bytes(min(free - (2 << 20), 1 << 20)))
            filler.flush()
    raw = RawClient(node.port)
    count = 0
    while (answer := raw.ask(put(digest(count + 1), count))).result == 0:
        count += 1
        assert count < 2_000_000, "the index never fills"
    assert answer.result == 8, answer.result
    node.wait_for_log(r"stop-writes: .*index")
    assert raw.ask(get(digest(1))).result == 0
    for number in range(0, count, 2):
        raw.ask(delete(digest(number + 1)))
    os.remove(small_tmpfs / "filler")
    node.wait_for_log("stop-writes is over")
    assert raw.ask(put(digest(count + 1), count)).result == 0
    node.process.kill()
    node.process.wait(10)
    node = Server(text, directory=str(tmp_path))
    assert outlived(node), node.log
    with RawClient(node.port) as raw:
        assert raw.ask(get(digest(count + 1))).result == 0 and raw.ask(get(digest(2))).result == 0
        assert raw.ask(get(digest(1))).result == 2
    assert node.stop() == 0


def free_bytes(path):
    facts = os.statvfs(path)
    return facts.f_bavail * facts.f_frsize



# ---- Shared memory that nobody has asked for ----

DEFAULT = "namespace test {{ nsup-period 120\n allow-ttl-without-nsup true\n{2}\n" + DEVICE + "\n}}\n"


def default(directory, shm=None, before="", index="", wait=True, **named):
    """A node that is told nothing about its index; with `shm`, that file system is its /dev/shm. `before`: shell commands."""
    command = None
    if shm:
        command = ["unshare", "-m", "sh", "-c", f'mount --bind "$0" /dev/shm && {before or ":"} && exec "$@"', str(shm), BINARY,
                   "serve", "--config"]
    return Server(DEFAULT.format(directory, "", index), directory=str(directory), command=command, wait=wait, **named)


def fill(node, value=1):
    with RawClient(node.port) as raw:
        for number in range(500):
            assert raw.ask(put(digest(number + 1), value)).result == 0


def kill(node):
    node.process.kill()
    node.process.wait(10)


@pytest.fixture
def own_shm(tmp_path):
    """Makes a tmpfs to be a node's /dev/shm: just large enough to be taken by default."""
    mount = tmp_path / "shm"

    def make(options="size=1040M"):
        mount.mkdir()
        if subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", mount], capture_output=True).returncode != 0:
            pytest.skip("only root can mount a tmpfs")
        return mount

    yield make
    subprocess.run(["umount", "-l", mount], capture_output=True)


def test_the_own_segment_does_not_make_shared_memory_too_small(tmp_path, own_shm):
    shm = own_shm()
    node = default(tmp_path, shm)
    fill(node)
    kill(node)
    with open(shm / "filler", "wb") as filler:
        os.posix_fallocate(filler.fileno(), 0, 32 << 20)
    assert free_bytes(shm) < 1 << 30
    for _ in range(2):
        node = default(tmp_path, shm)
        assert outlived(node), node.log
        holds(node)
        kill(node)
    # Without a segment it is too small.
    for name in os.listdir(shm):
        if name != "filler":
            shutil.rmtree(shm / name)
    node = default(tmp_path, shm)
    assert "make it larger" in node.log and "the index is in ordinary memory" in node.log, node.log
    assert os.listdir(shm) == ["filler"]
    assert node.stop() == 0, node.log


@pytest.mark.parametrize("inodes", range(2, 7))
def test_default_memory_that_cannot_be_made_is_ordinary_memory(inodes, tmp_path, own_shm):
    """The file system has bytes, but no room for a directory, or for this or that file."""
    shm = own_shm(f"size=2G,nr_inodes={inodes}")
    if inodes == 2:
        (shm / "filler").touch()
    node = default(tmp_path, shm)
    assert "For now the index is in ordinary memory" in node.log, node.log
    assert os.listdir(shm) == (["filler"] if inodes == 2 else []), "it leaves nothing"
    fill(node)
    assert node.stop() == 0, node.log
    node = default(tmp_path, shm)
    assert "cold start: 500 records" in node.log, node.log
    holds(node)
    assert node.stop() == 0, node.log


def test_default_memory_that_may_not_be_used_is_ordinary_memory(tmp_path, own_shm):
    shm = own_shm("size=2G")
    protect = "mount -o remount,bind,ro /dev/shm"
    node = default(tmp_path, shm, protect)
    assert "read-only" in node.log and "For now the index is in ordinary memory" in node.log, node.log
    fill(node)
    assert node.stop() == 0, node.log
    # An index of before is no longer a default: what is in it may be nowhere else.
    node = default(tmp_path, shm)
    fill(node, 2)
    kill(node)
    code, log = default(tmp_path, shm, protect, wait=False).end_with_failure()
    assert code == 1 and re.search("read-only.*index of an earlier run is there.*index-type heap", log), log
    node = default(tmp_path, shm)
    assert outlived(node), node.log
    holds(node, 2)
    assert node.stop() == 0, node.log
    # What another user has put in its place is none of ours.
    (segment,) = os.listdir(shm)
    os.chown(shm / segment, 12345, 12345)
    node = default(tmp_path, shm)
    assert "belongs to the user with id 12345" in node.log and "For now the index is in ordinary memory" in node.log, node.log
    holds(node, 2)
    assert node.stop() == 0, node.log
    assert os.listdir(shm) == [segment]


def test_default_memory_that_a_cold_start_fills(tmp_path, own_shm):
    """The start goes on in ordinary memory; with an index-type that was written it does not."""
    shm = own_shm()
    node = default(tmp_path, shm)
    count, batch = 1_000_000, 2000
    with RawClient(node.port) as raw:
        for first in range(0, count, batch):
            raw.send(b"".join(put(digest(number + 1), number) for number in range(first, first + batch)))
            assert {Answer(raw.frame()[1]).result for _ in range(batch)} == {0}
    assert node.stop() == 0, node.log
    (segment,) = os.listdir(shm)
    shutil.rmtree(shm / segment)
    # No file grows beyond what the write buffers take: the index would. Nothing is written anew.
    limited = 'trap "" XFSZ && ulimit -f 69632'
    code, log = default(tmp_path, shm, limited, "index-type shmem", wait=False).end_with_failure(30)
    assert code == 1 and re.search("records have no room in the index .index-type shmem on /dev/shm.", log), log
    shutil.rmtree(shm / segment)
    node = default(tmp_path, shm, limited)
    assert re.search("have no room in the index .*For now the index is in ordinary memory", node.log), node.log
    assert f"cold start: {count} records" in node.log, node.log
    assert os.listdir(shm) == [], "it leaves nothing"
    with RawClient(node.port) as raw:
        for number in range(0, count, 97):
            answer = raw.ask(get(digest(number + 1)))
            assert answer.result == 0 and int.from_bytes(answer.bins[0][2], "big") == number
    kill(node)
    node = default(tmp_path, shm)
    assert f"cold start: {count} records" in node.log and "ordinary memory" not in node.log, node.log
    assert node.stop() == 0, node.log


def test_flash_has_no_effect_and_neither_have_its_mounts(tmp_path):
    node = default(tmp_path, index=f"index-type flash {{ mount {tmp_path}/nowhere\n}}")
    assert shm_segments("/dev/shm", f"{tmp_path}/var")
    fill(node)
    kill(node)
    node = default(tmp_path)
    assert outlived(node), node.log
    holds(node)
    assert node.stop() == 0, node.log


@pytest.mark.parametrize("medium", EVERY)
def test_start_right_after_a_kill(medium, tmp_path):
    """The next node waits until the kernel has taken the killed one apart."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    network = f"service {{ address 127.0.0.1\n port {port}\n}}\n"
    node = filled(medium, tmp_path, network=network)
    for value in range(2, 7):
        fill(node, value)
        node.process.kill()
        killed = node
        node = start(medium, tmp_path, network=network)
        assert outlived(node), node.log
        killed.process.wait(10)
        holds(node, value)
    assert node.stop() == 0, node.log


def test_several_files_with_an_index_in_shared_memory(tmp_path):
    text = ("namespace test {{ index-type shmem\n storage-engine device {{ file {0}/a.dat\n file {0}/b.dat\n file {0}/c.dat\n"
            " filesize 96M\n post-write-cache 16M\n flush-max-ms 1000\n}}\n}}\n").format(tmp_path)
    node = Server(text, directory=str(tmp_path))
    for value in range(1, 4):
        fill(node, value)
        kill(node)
        node = Server(text, directory=str(tmp_path))
        assert outlived(node), node.log
        holds(node, value)
    assert node.stop() == 0, node.log


def test_an_untrusted_index_gives_one_reason(tmp_path):
    node = filled("device-shmem", tmp_path)
    assert node.stop() == 0, node.log
    (segment,) = shm_segments("/dev/shm", f"{tmp_path}/var")
    for path in files(segment, "lines"):
        with open(path, "r+b") as file:
            file.seek(4096)
            file.write(os.urandom(256 << 10))
    node = start("device-shmem", tmp_path)
    reason, summary = re.findall("cold start: .*", node.log)
    assert "index is damaged" in reason and summary.startswith("cold start: 500 records"), node.log
    holds(node)
    assert node.stop() == 0, node.log


@pytest.mark.skipif(not os.path.exists(LMDB), reason="the LMDB plugin was not built")
def test_config_check_tells_of_an_index_type_that_its_backend_cannot_use(tmp_path):
    path = tmp_path / "a.conf"
    path.write_text(f"service {{ work-directory {tmp_path}/var\n}}\nnetwork {{ service {{ address 127.0.0.1\n port 3000\n}}\n}}\n"
                    + plugin_block("lmdb") + "namespace test { index-type shmem\n storage-engine lmdb\n}\n")
    done = tool("config", "check", str(path))
    assert done.returncode == 2 and "use index-type heap" in done.stderr, done
