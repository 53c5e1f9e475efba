"""Batches: rows of every kind with the real client over every backend, and by hand what no client sends."""
import random
import struct
import threading
import time

import aerospike
import pytest
from aerospike import exception as e
from aerospike_helpers.batch import records as br
from aerospike_helpers.operations import operations as op
from conftest import ENGINES, command_of, digest, engines, field, frame, get, integer, message, operation, plugin_block, put

# Tests that are for every backend name them.
pytestmark = pytest.mark.memory_only
ALL, ERROR_ROWS = 0x04, 0x08
INFO, GENERATION, TTL = 0x02, 0x04, 0x08
EVERY_ENGINE = engines("memory", "device", "pmem", "rocksdb", "lmdb")


def row(index, of, info1=3, info2=0, namespace=b"test", set_name=b"raw", fields=(), operations=()):
    every = [field(0, namespace), field(1, set_name), *fields]
    return (struct.pack(">I", index) + of + struct.pack(">BBBBHIHH", INFO | GENERATION | TTL, info1, info2, 0, 0, 0,
                                                        len(every), len(operations))
            + b"".join(every) + b"".join(operations))


def again(index, of):
    return struct.pack(">I", index) + of + b"\x01"


def batch(rows, flags=ALL | ERROR_ROWS | 1, count=None, info1=0x08, timeout=0, number=41, fields=()):
    value = struct.pack(">IB", len(rows) if count is None else count, flags) + b"".join(rows)
    head = struct.pack(">BBBBBBIIIHH", 22, info1, 0, 0, 0, 0, 0, 0, timeout, 1 + len(fields), 0)
    return frame(3, head + b"".join(fields) + field(number, value))


def messages(body):
    """(last, result, generation, index, bins) of each message of a frame."""
    at = 0
    while at < len(body):
        size, _, _, info3, _, result, generation, _, index, fields, operations = struct.unpack(
            ">BBBBBBIIIHH", body[at:at + 22])
        assert size == 22 and fields == 0
        at += 22
        bins = []
        for _ in range(operations):
            length, code, _, _, name = struct.unpack(">IBBBB", body[at:at + 8])
            assert code == 1, "batches answer reads"
            bins.append((body[at + 8:at + 8 + name], body[at + 8 + name:at + 4 + length]))
            at += 4 + length
        yield info3 & 1, result, generation, index, bins
    assert at == len(body)


def stream(raw):
    """The rows by index, and the code at the end."""
    rows = {}
    while True:
        kind, body = raw.frame()
        assert kind == 3 and len(body) < (128 << 10) + 1000
        for last, result, generation, index, bins in messages(body):
            if last:
                return rows, result
            assert index not in rows
            rows[index] = (result, generation, bins)


@pytest.fixture(params=EVERY_ENGINE)
def node(request, own_server):
    engine = request.param
    text = plugin_block(engine) + f"namespace test {{ nsup-period 120\n {ENGINES[engine]}\n}}\n"
    return own_server(text, command=command_of(engine))


@pytest.fixture
def raw(server):
    with server.raw() as raw:
        yield raw


# ---- The client ----

def test_every_kind_of_row_with_the_client(node):
    client = node.client()
    keys = [("test", "demo", number) for number in range(500)]
    made = client.batch_operate(keys, [op.write("a", 1), op.write("s", "x" * 200)])
    assert made.result == 0 and all(one.result == 0 for one in made.batch_records)
    read = client.batch_read(keys + [("test", "demo", "none")])
    assert [one.result for one in read.batch_records] == [0] * 500 + [2]
    assert all(one.record[2] == {"a": 1, "s": "x" * 200} and one.record[1]["gen"] == 1 for one in read.batch_records[:500])
    some = client.batch_read(keys[:50], ["a"])
    assert all(one.record[2] == {"a": 1} for one in some.batch_records)
    exists = client.batch_read(keys[:50], [])
    assert all(one.result == 0 and one.record[1]["gen"] == 1 for one in exists.batch_records)
    counted = client.batch_operate(keys[:100], [op.increment("a", 2), op.read("a")])
    assert all(one.record[2]["a"] == 3 for one in counted.batch_records)
    mixed = br.BatchRecords([
        br.Write(keys[0], [op.write("b", 7), op.read("b")]), br.Read(keys[0], None, read_all_bins=True), br.Remove(keys[1]),
        br.Read(keys[1], None), br.Write(keys[2], [op.increment("s", 1)]), br.Read(keys[3], [op.read("a")])])
    client.batch_write(mixed)
    assert [one.result for one in mixed.batch_records] == [0, 0, 0, 2, 12, 0]
    assert mixed.batch_records[0].record[2] == {"b": 7} and mixed.batch_records[1].record[2]["b"] == 7
    gone = client.batch_remove(keys[:10])
    assert [one.result for one in gone.batch_records] == [0, 2] + [0] * 8
    assert [one.result for one in client.batch_read(keys[:11]).batch_records] == [2] * 10 + [0]
    statistics = node.statistics("namespace/test")
    expected = {"read_success": 500 + 50 + 50 + 2 + 1, "read_not_found": 1 + 1 + 10, "write_success": 500 + 100 + 1,
                "write_error": 1, "delete_success": 1 + 9, "delete_not_found": 1}
    assert {name: int(statistics[f"batch_sub_{name}"]) for name in expected} == expected
    assert node.statistics()["batch_index_error"] == "0"


def test_udf_rows_are_refused(server, key):
    applied = server.client().batch_apply([key], "module", "function", [])
    assert applied.batch_records[0].result == 16


def test_batches_of_several_clients_on_the_same_records(node):
    """Each counts the same records by batches: no update is lost, whatever waits for what."""
    keys = [("test", "demo", number) for number in range(20)]

    def count():
        client = node.client()
        for _ in range(5):
            done = client.batch_operate(keys * 3, [op.increment("n", 1)], {"total_timeout": 30_000, "socket_timeout": 30_000})
            assert [one.result for one in done.batch_records] == [0] * 60

    threads = [threading.Thread(target=count) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [one.record[2]["n"] for one in node.client().batch_read(keys).batch_records] == [4 * 5 * 3] * 20


def test_rows_of_one_record_take_effect_in_order(node):
    with node.raw() as raw:
        chance = random.Random(5)
        value, rows, expected = None, [], []
        for index in range(1000):
            kind = chance.randrange(4)
            if kind == 0:
                rows.append(row(index, digest(1), 0, 3))
                expected.append((2 if value is None else 0, None))
                value = None
            elif kind == 1:
                value = (value or 0) + 1
                rows.append(row(index, digest(1), 1, 0x81, operations=[
                    operation(5, 1, b"n", integer(1)), operation(1, 0, b"n")]))
                expected.append((0, value))
            else:
                rows.append(row(index, digest(1)))
                expected.append((2 if value is None else 0, value))
        raw.send(batch(rows))
        got, last = stream(raw)
        assert last == 0
        found = [(got[index][0], struct.unpack(">q", got[index][2][-1][1])[0] if got[index][2] else None)
                 for index in range(1000)]
        assert found == expected


# ---- Much ----

def test_a_hundred_thousand_rows(node):
    with node.raw() as raw:
        for first in range(0, 2000, 500):
            raw.send(batch([row(number, digest(number), 0, 1, operations=[operation(2, 1, b"a", integer(number))])
                            for number in range(first, first + 500)]))
            rows, last = stream(raw)
            assert last == 0 and {result for result, _, _ in rows.values()} == {0}
        raw.send(batch([row(0, digest(0))] + [again(index, digest(index % 2100)) for index in range(1, 100_000)]))
        rows, last = stream(raw)
    assert last == 0 and len(rows) == 100_000
    for index, (result, _, bins) in rows.items():
        number = index % 2100
        assert (result, bins) == ((0, [(b"a", integer(number))]) if number < 2000 else (2, []))
    # No bound of the rows, but one of the time.
    assert int(node.statistics()["batch_index_complete"]) == 5


def test_a_client_that_does_not_read_a_huge_answer(own_server):
    node = own_server(threads=1)
    other = node.client()
    other.put(("test", "demo", 1), {"a": 1})
    with node.raw() as raw:
        assert raw.ask(message(digest(2), [operation(2, 4, b"x", b"y" * 100_000)], info2=1)).result == 0
        before = node.anonymous_kilobytes()
        raw.send(batch([row(0, digest(2))] + [again(index, digest(2)) for index in range(1, 4000)]))
        deadline = time.monotonic() + 10
        while node.statistics()["batch_index_delay"] == "0" and time.monotonic() < deadline:
            time.sleep(0.01)
        for _ in range(100):
            assert other.get(("test", "demo", 1))[2] == {"a": 1}
        assert other.batch_read([("test", "demo", 1)]).batch_records[0].result == 0
        assert node.anonymous_kilobytes() - before < 16 << 10
        assert node.statistics()["batch_index_queue"] == "1:1"
        rows, last = stream(raw)
        assert last == 0 and len(rows) == 4000
    # Half of an answer taken, then gone: nothing is left behind.
    with node.raw() as raw:
        raw.send(batch([row(0, digest(2))] + [again(index, digest(2)) for index in range(1, 4000)]))
        raw.receive(1 << 20)
    deadline = time.monotonic() + 10
    while node.statistics()["batch_index_queue"] != "0:0" and time.monotonic() < deadline:
        time.sleep(0.01)
    assert node.statistics()["batch_index_queue"] == "0:0"


def test_point_requests_beside_long_batches(own_server):
    """A batch that takes its time, because nobody reads its answer: others are served meanwhile."""
    node = own_server(threads=1)
    with node.raw() as raw, node.raw() as other:
        assert other.ask(put(digest(3), 1)).result == 0
        raw.send(batch([row(0, digest(3))] + [again(index, digest(3)) for index in range(1, 200_000)]))
        for _ in range(50):
            assert other.ask(get(digest(3))).result == 0
        assert node.statistics()["batch_index_complete"] == "0", "it is still under way"
        rows, last = stream(raw)
        assert last == 0 and len(rows) == 200_000


# ---- By hand ----

def test_rows_without_a_set_where_that_is_not_allowed(server, client):
    for set_name, code in ((None, 4), ("demo", 0)):
        rows = [br.Write(("small", set_name, f"null-set-{number}"), [op.write("a", 1)]) for number in range(3)]
        client.batch_write(br.BatchRecords(rows))
        assert [row.result for row in rows] == [code] * 3


def test_the_golden_batch(raw):
    raw.send(bytes.fromhex(
        "02030000000000561608000000000000000000000000000003e8000100000000003c29000000010d00000000"
        "b747f5854d0b33259928d0cfab7fad81d6abfbf60a0300000000000000020000000000050074657374000000050164656d6f"))
    rows, last = stream(raw)
    assert last == 0 and list(rows) == [0]


def test_old_field_number_and_old_flags(raw):
    assert raw.ask(put(digest(60), 5)).result == 0
    old = struct.pack(">I", 3) + digest(60) + b"\x00" + struct.pack(">BHH", 3, 0, 0) + field(0, b"test")
    raw.send(batch([old], flags=0, number=42))
    assert stream(raw) == ({3: (0, 1, [(b"a", integer(5))])}, 0)


def test_an_unknown_namespace_ends_the_batch(raw):
    assert raw.ask(put(digest(61), 5)).result == 0
    raw.send(batch([row(0, digest(61)), row(1, digest(61), namespace=b"nowhere"), row(2, digest(61))]))
    rows, last = stream(raw)
    assert last == 4 and list(rows) == [0]


def test_errors_stop_a_batch_that_does_not_ask_for_all(raw):
    bad = row(1, digest(62), 0, 1)
    for flags, expected in [(0, [0]), (ERROR_ROWS, [0, 1]), (ALL, [0, 1, 2])]:
        raw.send(batch([row(0, digest(63)), bad, row(2, digest(63))], flags=flags))
        rows, last = stream(raw)
        assert (list(rows), last) == (expected, 0 if flags & ALL else 4)


def test_what_does_not_fit_together(raw):
    good = row(0, digest(64))
    key = row(0, digest(64), fields=[field(2, b"\x03k")])
    for rows, count, answered in [([], 0, 0), ([good], 2, 1), ([good, good], 1, 1), ([again(0, digest(64))], 1, 0),
                                  ([key, again(1, digest(64))], 2, 1), ([good[:-1]], 1, 0), ([good], 0xFFFFFFFF, 1)]:
        raw.send(batch(rows, count=count))
        got, last = stream(raw)
        assert (len(got), last) == (answered, 4)
    head = struct.pack(">BBBBBBIIIHH", 22, 8, 0, 0, 0, 0, 0, 0, 0, 0, 0)
    raw.send(frame(3, head))
    assert stream(raw) == ({}, 4)


def test_half_a_batch(server):
    """A client that goes away in the middle of its request; what it sent is not executed."""
    whole = batch([row(index, digest(65), 0, 1, operations=[operation(2, 1, b"a", integer(1))]) for index in range(100)])
    with server.raw() as raw:
        raw.send(whole[:len(whole) // 2])
    with server.raw() as raw:
        assert raw.ask(get(digest(65))).result == 2


def test_timeout(raw):
    """Rows behind the deadline answer 9."""
    raw.send(batch([row(0, digest(66))] + [again(index, digest(66)) for index in range(1, 400_000)], timeout=1))
    rows, last = stream(raw)
    assert last == 0 and len(rows) == 400_000
    assert {result for result, _, _ in rows.values()} == {2, 9} and rows[399_999][0] == 9


def test_compressed_answers(server):
    import zlib
    with server.raw() as raw:
        assert raw.ask(message(digest(67), [operation(2, 3, b"x", b"y" * 1000)], info2=1)).result == 0
        wanted = batch([row(0, digest(67))] + [again(index, digest(67)) for index in range(1, 2000)], info1=0x88)
        packed = zlib.compress(wanted)
        raw.send(frame(4, struct.pack(">Q", len(wanted)) + packed))
        seen, frames, done = set(), 0, False
        while not done:
            kind, body = raw.frame()
            frames += 1
            if kind == 4:
                inner = zlib.decompress(body[8:])
                assert struct.unpack(">Q", body[:8])[0] == len(inner)
                assert struct.unpack(">Q", inner[:8])[0] & 0xFFFFFFFFFFFF == len(inner) - 8, "one frame"
                body = inner[8:]
            for last, result, _, index, bins in messages(body):
                assert result == 0
                if last:
                    done = True
                else:
                    assert bins == [(b"x", b"y" * 1000)]
                    seen.add(index)
        assert seen == set(range(2000)) and frames > 10


def test_pipelined_batches_and_requests_keep_their_order(raw):
    assert raw.ask(put(digest(68), 7)).result == 0
    raw.send((batch([row(9, digest(68))] * 200) + get(digest(68))) * 20)
    for _ in range(20):
        count = 0
        while True:
            _, body = raw.frame()
            found = list(messages(body))
            count += sum(not last for last, *_ in found)
            if found[-1][0]:
                break
        assert count == 200
        assert raw.frame()[1][5] == 0


def test_latencies_of_batches(own_server):
    node = own_server(service="ticker-interval 1")
    deadline = time.monotonic() + 10
    with node.raw() as raw:
        while time.monotonic() < deadline:
            raw.send(batch([row(0, digest(1)), row(1, digest(1), 0, 3)]))
            stream(raw)
            entries = dict(entry.split(":", 1) for entry in node.info("latencies:").split(";"))
            if all(entries[name] for name in ("batch-index", "{test}-batch-sub-read", "{test}-batch-sub-write")):
                return
    raise AssertionError(entries)
