"""Several processes and connections on one record: nothing is lost, nobody wins twice."""
import multiprocessing
import threading

import aerospike
import pytest
from aerospike import exception as e
from conftest import digest, get, integer, message, operation

MEMORY = "namespace test { nsup-period 120\n transaction-pending-limit %d\n storage-engine memory\n}\n"


def _add_with_generations(port, key, count):
    client = aerospike.client({"hosts": [("127.0.0.1", port)]}).connect()
    collisions = 0
    while count:
        _, meta, bins = client.get(key)
        try:
            client.put(key, {"n": bins["n"] + 1}, meta={"gen": meta["gen"]}, policy={"gen": aerospike.POLICY_GEN_EQ})
            count -= 1
        except e.RecordGenerationError:
            collisions += 1
    client.close()
    return collisions


def test_read_and_write_back_by_generation(server, client, key):
    client.put(key, {"n": 0})
    before = int(server.statistics("namespace/test")["fail_generation"])
    with multiprocessing.get_context("spawn").Pool(4) as pool:
        collisions = pool.starmap(_add_with_generations, [(server.port, key, 200)] * 4)
    _, meta, bins = client.get(key)
    assert bins == {"n": 800} and meta["gen"] == 801
    assert int(server.statistics("namespace/test")["fail_generation"]) == before + sum(collisions)


def test_one_creator(server):
    raws = [server.raw() for _ in range(8)]
    for number in range(8001, 8101):
        for name, raw in enumerate(raws):
            raw.send(message(digest(number), [operation(2, 1, b"a", integer(name))], info2=1 | 0x20))
        results = [raw.frame()[1][5] for raw in raws]
        assert sorted(results) == [0] + [5] * 7
        winner = raws[0].ask(get(digest(number))).bins
        assert winner == [("a", 1, integer(results.index(0)))]
    for raw in raws:
        raw.socket.close()


def pound(node, connections, requests):
    """Increments of one large record from all connections at once; the result of each."""
    big = operation(2, 4, b"blob", b"x" * 500_000)
    one = message(digest(1), [big, operation(5, 1, b"n", integer(1))], info2=1, timeout=10_000)
    results = []

    def run():
        with node.raw() as raw:
            raw.socket.settimeout(20)
            for _ in range(requests):
                raw.send(one)
                results.append(raw.frame()[1][5])

    threads = [threading.Thread(target=run) for _ in range(connections)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(results) == connections * requests
    return results


def sum_of(node):
    with node.raw() as raw:
        return {name: value for name, _, value in raw.ask(get(digest(1))).bins}["n"]


@pytest.mark.parametrize("limit", [0, 1, 20])
def test_pending_limit(own_server, limit):
    node = own_server(MEMORY % limit)
    results = pound(node, 12, 40)
    # Of 12 connections 11 can wait: only a limit below that is ever reached.
    assert set(results) == ({0, 14} if limit == 1 else {0})
    assert sum_of(node) == integer(results.count(0))
    assert node.statistics("namespace/test")["fail_key_busy"] == str(results.count(14))
    assert node.statistics("namespace/test")["client_write_success"] == str(results.count(0))


def test_readers_see_whole_records(server):
    """Two bins that are always written together are never read apart."""
    of, stop = digest(8200), threading.Event()

    def write():
        with server.raw() as raw:
            number = 0
            while not stop.is_set():
                number += 1
                both = [operation(2, 1, b"a", integer(number)), operation(2, 4, b"x", bytes(3000)),
                        operation(2, 1, b"b", integer(number))]
                assert raw.ask(message(of, both, info2=1)).result == 0

    with server.raw() as raw:
        zeros = [operation(2, 1, name, integer(0)) for name in (b"a", b"b")]
        assert raw.ask(message(of, zeros, info2=1)).result == 0
        writers = [threading.Thread(target=write) for _ in range(2)]
        for writer in writers:
            writer.start()
        for _ in range(1500):
            bins = {name: value for name, _, value in raw.ask(get(of)).bins}
            if bins["a"] != bins["b"]:
                break
        stop.set()
        for writer in writers:
            writer.join()
    assert bins["a"] == bins["b"]
