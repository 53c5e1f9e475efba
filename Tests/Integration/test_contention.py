"""Many clients, one record."""
import multiprocessing

import aerospike
from conftest import digest, integer, message, operation

PROCESSES, INCREMENTS = 8, 1000


def _increment(port, key, count):
    client = aerospike.client({"hosts": [("127.0.0.1", port)]}).connect()
    done = 0
    for _ in range(count):
        client.increment(key, "n", 1)
        done += 1
    client.close()
    return done


def test_eight_processes_increment_one_record(server, client, key):
    context = multiprocessing.get_context("spawn")
    with context.Pool(PROCESSES) as pool:
        done = pool.starmap(_increment, [(server.port, key, INCREMENTS)] * PROCESSES)
    assert done == [INCREMENTS] * PROCESSES
    record = client.get(key)
    assert record[2]["n"] == PROCESSES * INCREMENTS and record[1]["gen"] == PROCESSES * INCREMENTS


BIG = operation(2, 4, b"blob", b"x" * 100_000)
COUNT_BIG = message(digest(1), [BIG, operation(5, 1, b"n", integer(1))], info2=1)


def _count_from_everywhere(node, times):
    """Result codes of large writes to one record, from eight connections at once."""
    raws = [node.raw() for _ in range(8)]
    for raw in raws:
        raw.send(COUNT_BIG * times)
    results = [raw.frame()[1][5] for raw in raws for _ in range(times)]
    for raw in raws:
        raw.socket.close()
    return results


def _counted(node):
    with node.raw() as raw:
        return {name: value for name, _, value in raw.ask(message(digest(1), info1=3)).bins}["n"]


def test_large_writes_queue_behind_each_other(own_server):
    """Writes over 4 KiB hold their claim outside the lock, so reactors meet on the record: they wait, nothing is lost."""
    node = own_server("namespace test { transaction-pending-limit 0\n storage-engine memory\n}", threads=4)
    results = _count_from_everywhere(node, 100)
    assert results == [0] * 800 and _counted(node) == integer(800)


def test_a_queue_over_its_limit_answers_14(own_server):
    node = own_server("namespace test { transaction-pending-limit 1\n storage-engine memory\n}", threads=4)
    results = []
    for _ in range(50):
        results += _count_from_everywhere(node, 40)
        if 14 in results:
            break
    assert set(results) == {0, 14}
    assert _counted(node) == integer(results.count(0)), "who was refused changed nothing"
    assert int(node.statistics("namespace/test")["fail_key_busy"]) == results.count(14)
