"""Steady state takes nothing from malloc: counted on the reactors' threads, apart for each kind of request."""
import mmap
import os
import random
import struct
import subprocess

import pytest
from conftest import delete, digest, field, get, message, operation
from test_batch import again, batch, row

pytestmark = pytest.mark.memory_only

HERE = os.path.dirname(os.path.abspath(__file__))
KEYS, ROUNDS, DEPTH = 4000, 5, 50


@pytest.fixture(scope="module")
def counted(tmp_path_factory):
    """A node whose reactors' allocations are counted, with connections that have grown to what they need."""
    from conftest import Server
    directory = tmp_path_factory.mktemp("malloc")
    library, page = directory / "counter.so", directory / "count"
    subprocess.run(["gcc", "-O2", "-Wall", "-Werror", "-shared", "-fPIC", "-o", library,
                    os.path.join(HERE, "malloc_counter.c"), "-ldl", "-lpthread"], check=True)
    page.write_bytes(bytes(4096))
    # Passes over the index are no requests: none begins.
    node = Server("namespace test { nsup-hist-period 0\n storage-engine memory\n}", threads=1,
                  environment={"LD_PRELOAD": str(library), "APUS_MALLOC_COUNT": str(page)})
    with open(page, "r+b") as file:
        words = mmap.mmap(file.fileno(), 4096)
    yield node, lambda: struct.unpack_from("<Q", words, 0)[0]
    assert node.stop() == 0


def run(node, requests):
    """All requests, DEPTH in flight; the result codes."""
    results = []
    with node.raw() as raw:
        # A connection's own start is not steady state: it is opened, used, and counted from then on.
        raw.ask(get(digest(0)))
        yield None
        for start in range(0, len(requests), DEPTH):
            raw.send(b"".join(requests[start:start + DEPTH]))
            for _ in requests[start:start + DEPTH]:
                results.append(raw.frame()[1][5])
        yield results


def allocations(counted, requests, expected):
    node, count = counted
    step = run(node, requests)
    next(step)
    before = count()
    results = next(step)
    taken = count() - before
    assert set(results) == {expected}
    return taken


def write(number, size):
    return message(digest(number), [operation(2, 4, b"v", b"x" * size)], info2=1)


def sizes(seed):
    chance = random.Random(seed)
    return [chance.randrange(10, 400) for _ in range(KEYS)]


def test_the_counter_counts(counted):
    """Opening connections allocates: a counter that shows nothing would prove nothing."""
    node, count = counted
    before = count()
    node.info("statistics")
    assert count() > before


def test_inserts_overwrites_reads_and_deletes(counted):
    numbers = range(1, KEYS + 1)
    # Once through everything, so that arenas, pools and buffers have their size.
    for seed in range(2):
        allocations(counted, [write(n, s) for n, s in zip(numbers, sizes(seed))], 0)
    allocations(counted, [get(digest(n)) for n in numbers], 0)
    allocations(counted, [delete(digest(n)) for n in numbers], 0)
    taken = {"insert": 0, "overwrite": 0, "read": 0, "delete": 0}
    for turn in range(ROUNDS):
        taken["insert"] += allocations(counted, [write(n, s) for n, s in zip(numbers, sizes(10 + turn))], 0)
        taken["overwrite"] += allocations(counted, [write(n, s) for n, s in zip(numbers, sizes(20 + turn))], 0)
        taken["read"] += allocations(counted, [get(digest(n)) for n in numbers], 0)
        taken["delete"] += allocations(counted, [delete(digest(n)) for n in numbers], 0)
    assert taken == {"insert": 0, "overwrite": 0, "read": 0, "delete": 0}


def test_filters_and_expression_operations(counted):
    """Expressions are compiled once: what a request with one takes is in the cache and in the reactor's own memory."""
    numbers = range(1, KEYS + 1)
    allocations(counted, [message(digest(n), [operation(2, 1, b"a", struct.pack(">q", n))], info2=1) for n in numbers], 0)
    between = field(43, bytes.fromhex("93109303935102a161009305935102a161cd4000"))  # a > 0 and a < 16384
    add = bytes.fromhex("929314935102a1610100")  # a + 1
    requests = {
        "read": lambda n: message(digest(n), info1=3, fields=[between]),
        "write": lambda n: message(digest(n), [operation(2, 1, b"b", struct.pack(">q", n))], info2=1, fields=[between]),
        "expression read": lambda n: message(digest(n), [operation(7, 4, b"r", add)], info1=1),
        "expression write": lambda n: message(digest(n), [operation(8, 4, b"c", add)], info2=1),
    }
    for request in requests.values():
        allocations(counted, [request(n) for n in numbers], 0)
    taken = {kind: sum(allocations(counted, [request(n) for n in numbers], 0) for _ in range(ROUNDS))
             for kind, request in requests.items()}
    assert taken == {kind: 0 for kind in requests}


def test_batches_that_end_in_their_turn(counted):
    numbers = range(1, KEYS + 1)
    allocations(counted, [write(n, 100) for n in numbers], 0)

    def reads(first):
        return batch([row(0, digest(first))] + [again(index, digest(first + index)) for index in range(1, 100)])

    # One at a time: bytes that wait behind a batch have memory of the connection.
    node, count = counted
    with node.raw() as raw:
        for turn in range(2):
            before = count()
            for first in range(1, KEYS - 100, 100):
                raw.send(reads(first))
                assert len(raw.frame()[1]) > 100 * 100
    assert count() - before == 0
