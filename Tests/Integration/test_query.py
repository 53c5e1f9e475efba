"""Primary-index queries: over every backend, across restarts, beside changes, and for clients that misbehave."""
import itertools
import random
import signal
import struct
import threading
import time
import zlib

import aerospike
import pytest
from aerospike import exception as e
from aerospike_helpers import expressions as exp
from aerospike_helpers.operations import expression_operations as expressions
from aerospike_helpers.operations import operations as op
from conftest import ENGINES, command_of, engines, field, frame, operation, plugin_block

EVERY_ENGINE = engines("memory", "device", "pmem", "rocksdb", "lmdb", "template", "tiered")
RECORDS = 3000
# Tests that are for every backend name them.
pytestmark = pytest.mark.memory_only
task_ids = itertools.count(1)


def node_of(engine, own_server, **more):
    return own_server(
        plugin_block(engine) + f"namespace test {{ nsup-period 120\n{ENGINES[engine]}\n}}\n", command=command_of(engine), **more)


def fill(client, count=RECORDS):
    """Half in set demo with their keys, half in none."""
    for number in range(count):
        key = ("test", "demo" if number % 2 else None, number)
        policy = {"key": aerospike.POLICY_KEY_SEND} if number % 2 else {}
        client.put(key, {"n": number, "s": f"text {number}", "odd": number % 2}, policy=policy)


def numbers(records):
    return sorted(bins["n"] for _, _, bins in records)


@pytest.mark.parametrize("engine", EVERY_ENGINE)
def test_scans(own_server, engine):
    node = node_of(engine, own_server)
    client = node.client()
    fill(client)
    everything = client.query("test").results()
    assert numbers(everything) == list(range(RECORDS))
    demo = client.query("test", "demo").results()
    assert numbers(demo) == list(range(1, RECORDS, 2))
    assert all(key[1] == "demo" and key[2] == bins["n"] and meta["gen"] == 1 for key, meta, bins in demo)
    selected = client.query("test", "demo")
    selected.select("n", "absent")
    assert all(set(bins) == {"n"} for _, _, bins in selected.results())
    nothing = client.query("test", "demo")
    nothing.select("absent")
    assert nothing.results() == [] and client.query("test", "unheard-of").results() == []
    heads = []
    client.scan("test", "demo").foreach(lambda record: heads.append(record), options={"nobins": True})
    assert len(heads) == RECORDS // 2 and not any(bins for _, _, bins in heads)
    short = client.query("test", "demo").results({"expected_duration": aerospike.QUERY_DURATION_SHORT})
    assert numbers(short) == numbers(demo)
    some = client.query("test").results({"partition_filter": {"begin": 1000, "count": 10}})
    assert numbers(some) == sorted(
        bins["n"] for key, _, bins in everything if 1000 <= (key[3][0] | key[3][1] << 8) % 4096 < 1010)
    figures = node.statistics("namespace/test")
    assert int(figures["pi_query_long_basic_complete"]) >= 5 and int(figures["pi_query_short_basic_complete"]) == 1
    assert int(figures["pi_query_long_basic_error"]) == 0


@pytest.mark.parametrize("engine", EVERY_ENGINE)
def test_filters_and_writes_in_the_background(own_server, engine):
    node = node_of(engine, own_server)
    client = node.client()
    fill(client, 1000)
    between = exp.And(exp.GE(exp.IntBin("n"), 100), exp.LT(exp.IntBin("n"), 300)).compile()
    assert numbers(client.query("test").results({"expressions": between})) == list(range(100, 300))
    in_set = exp.Eq(exp.SetName(), "demo").compile()
    assert numbers(client.query("test").results({"expressions": in_set})) == list(range(1, 1000, 2))
    row = node.info("query-show").split(";")
    assert any("recs-filtered-meta=500" in job for job in row) and any("recs-filtered-bins=800" in job for job in row)

    query = client.query("test", "demo")
    query.add_ops([op.increment("n", 10_000), expressions.expression_write("double", exp.Add(exp.IntBin("n"), exp.IntBin("n")).compile())])
    job = query.execute_background({"expressions": exp.LT(exp.IntBin("n"), 500).compile()})
    wait_for_job(client, job)
    records = client.query("test", "demo").results()
    changed = {bins["n"]: bins for _, _, bins in records if bins["n"] >= 10_000}
    assert sorted(changed) == list(range(10_001, 10_500, 2))
    assert all(bins["double"] == 2 * n for n, bins in changed.items())
    assert "recs-succeeded=250" in node.info(f"query-show:trid={job}") and "job-type=background-ops" in node.info("query-show")
    assert int(node.statistics("namespace/test")["ops_sub_write_success"]) == 250

    query = client.query("test", "demo")
    query.add_ops([op.delete()])
    wait_for_job(client, query.execute_background())
    assert numbers(client.query("test").results()) == list(range(0, 1000, 2))
    query.records_per_second = 1_000_000
    with pytest.raises(e.AerospikeError) as refusal:
        query.execute_background()
    assert refusal.value.code == 4


def wait_for_job(client, job):
    deadline = time.monotonic() + 20
    while client.job_info(job, aerospike.JOB_QUERY)["status"] == aerospike.JOB_STATUS_INPROGRESS:
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
@pytest.mark.parametrize("engine", engines("device", "pmem", "rocksdb", "lmdb"))
def test_pages_go_on_after_a_restart(own_server, engine, number):
    """The node is another process for every page: each record comes once."""
    text = plugin_block(engine) + f"namespace test {{ {ENGINES[engine]}\n}}\n"
    node = own_server(text, command=command_of(engine))
    fill(node.client(), 1000)
    time.sleep(0.5)  # a kill may take what has not been flushed
    seen, status = [], None
    for page in range(100):
        query = node.client().query("test")
        query.max_records = 300
        query.paginate()
        policy = {"partition_filter": {"begin": 0, "count": 4096, "partition_status": status}} if status else {}
        seen += query.results(policy)
        if query.is_done():
            break
        status = query.get_partitions_status()
        if number == signal.SIGKILL:
            node.process.kill()
            node.process.wait()
        else:
            assert node.stop() == 0
        node = own_server(text, command=command_of(engine), directory=node.directory)
    assert page >= 3 and numbers(seen) == list(range(1000))


def test_changes_on_the_way(own_server):
    """Inserts, deletes and the splits they cause: what lived throughout comes exactly once, nothing twice."""
    node = node_of("memory", own_server)
    client = node.client()
    fill(client, 6000)
    lasting = set(range(0, 6000, 3))
    stop = threading.Event()

    def change():
        own = node.client()
        for number in itertools.count(10_000):
            if stop.is_set():
                return
            own.put(("test", None, number), {"n": number})
            gone = (number - 10_000) % 6000
            if gone not in lasting:
                own.remove(("test", "demo" if gone % 2 else None, gone)) if own.exists(
                    ("test", "demo" if gone % 2 else None, gone))[1] else None

    thread = threading.Thread(target=change)
    thread.start()
    try:
        for _ in range(15):
            seen = numbers(client.query("test").results())
            assert len(set(seen)) == len(seen) and lasting <= set(seen)
    finally:
        stop.set()
        thread.join()


def test_an_abort_ends_the_answer(own_server):
    node = node_of("memory", own_server)
    client = node.client()
    fill(client, 2000)
    query = client.query("test")
    query.records_per_second = 50
    result = []

    def run():
        try:
            query.results()
        except e.AerospikeError as error:
            result.append(error.code)

    thread = threading.Thread(target=run)
    thread.start()
    deadline = time.monotonic() + 5
    while "status=active(ok)" not in node.info("query-show"):
        assert time.monotonic() < deadline
    job = dict(pair.split("=", 1) for pair in node.info("query-show").split(";")[0].split(":"))
    assert node.info("query-abort:trid=1") == "ERROR:2:id not active"
    assert node.info(f"query-abort:trid={job['trid']}") == "ok"
    thread.join(10)
    assert result == [15] and "status=done(user-aborted)" in node.info(f"query-show:id={job['trid']}")
    assert node.info("query-abort-all") == "number-of-queries-killed:0"
    assert int(node.statistics("namespace/test")["pi_query_long_basic_abort"]) == 1


def everything(fields=(), info1=3, info3=4, operations=(), timeout=0):
    """A query by hand, of all partitions."""
    own = [field(0, b"test"), field(7, struct.pack(">Q", next(task_ids))), *fields]
    if not any(one[4] in (11, 12) for one in own):
        own.append(field(11, b"".join(struct.pack("<H", number) for number in range(4096))))
    head = struct.pack(">BBBBBBIIIHH", 22, info1, 0, info3, 0, 0, 0, 0xFFFFFFFF, timeout, len(own), len(operations))
    return frame(3, head + b"".join(own) + b"".join(operations))


def read_stream(raw, kinds=None):
    """How many records came, and the code at the end."""
    count = 0
    while True:
        kind, body = raw.frame()
        if kinds is not None:
            kinds.add(kind)
        if kind == 4:
            body = zlib.decompress(body[8:])[8:]
        assert len(body) <= 128 << 10
        at = 0
        while at < len(body):
            info3, result, fields, operations = body[at + 3], body[at + 5], *struct.unpack(">HH", body[at + 18:at + 22])
            at += 22
            for _ in range(fields + operations):
                at += 4 + struct.unpack(">I", body[at:at + 4])[0]
            if info3 & 1:
                assert at == len(body)
                return count, result
            count += 1


def test_a_client_that_does_not_read_parks_its_query(own_server):
    """64 MB for somebody who reads late: the node holds little of it, serves others, and the rest comes in the end."""
    node = node_of("memory", own_server)
    client = node.client()
    for number in range(4000):
        client.put(("test", None, number), {"n": number, "blob": bytes(16_000)})
    before = node.anonymous_kilobytes()
    with node.raw() as slow:
        slow.send(everything([field(9, struct.pack(">I", 60_000))]))
        time.sleep(1.5)
        assert "status=active(ok)" in node.info("query-show")
        assert client.get(("test", None, 7))[2]["n"] == 7
        assert node.anonymous_kilobytes() - before < 8_000
        assert read_stream(slow) == (4000, 0)


def test_compressed_answers(server, client):
    for number in range(500):
        client.put(("test", "squeeze", number), {"s": "x" * 400})
    with server.raw() as raw:
        kinds = set()
        raw.send(everything([field(1, b"squeeze")], info1=3 | 0x80))
        assert read_stream(raw, kinds) == (500, 0) and 4 in kinds


def test_a_client_that_goes_away(own_server):
    node = node_of("memory", own_server)
    client = node.client()
    for number in range(2000):
        client.put(("test", None, number), {"blob": bytes(16_000)})
    for _ in range(20):
        with node.raw() as gone:
            gone.send(everything())
            gone.receive(100)
    deadline = time.monotonic() + 10
    while "active" in node.info("query-show").replace("active-threads", ""):
        assert time.monotonic() < deadline, node.info("query-show")
        time.sleep(0.05)
    assert node.info("query-show").count("abandoned-response-error") == 20


def test_a_client_that_goes_away_before_anything_was_sent(own_server):
    """Nothing is written to its connection for long: its closing is noticed all the same."""
    node = node_of("memory", own_server)
    client = node.client()
    fill(client, 100)
    with node.raw() as gone:
        gone.send(everything([field(10, struct.pack(">I", 1)), field(43, bytes.fromhex("9301935102a16ecd03e7"))]))  # n == 999
        wait_until(node, "status=active(ok)")
    wait_until(node, "abandoned-response-error")


def wait_until(node, text, seconds=5):
    deadline = time.monotonic() + seconds
    while text not in node.info("query-show"):
        assert time.monotonic() < deadline, node.info("query-show")
        time.sleep(0.02)


def test_ended_queries_take_little_memory(own_server):
    node = node_of("memory", own_server)
    with node.raw() as raw:
        for _ in range(3):
            raw.send(everything([field(60, bytes(5 << 20))]))
            assert read_stream(raw) == (0, 0)
        before = node.anonymous_kilobytes()
        for _ in range(20):
            raw.send(everything([field(60, bytes(5 << 20))]))
            assert read_stream(raw) == (0, 0)
    assert node.info("query-show").count("trid=") == 23
    assert node.anonymous_kilobytes() - before < 20_000


@pytest.mark.parametrize("threads", [1, 8])
def test_any_number_of_reactors(own_server, threads):
    node = own_server("namespace test { storage-engine memory\n}", threads=threads)
    client = node.client()
    for number in range(4000):
        client.put(("test", None, number), {"n": number, "s": "x" * 500})
    for _ in range(3):
        assert numbers(client.query("test").results()) == list(range(4000))


def test_nonsense_is_refused(server, client):
    """With the protocol's codes, and another client notices nothing."""
    client.put(("test", "nonsense", 1), {"n": 1})
    pids = lambda *many: field(11, b"".join(struct.pack("<H", number) for number in many))
    digest = bytes([5, 0]) + bytes(18)
    deep = bytes([0x92, 18]) * 10_000 + bytes([0xC3])
    cases = [
        (everything(info3=0), 16), (everything([pids(4096)]), 4), (everything([pids(1, 1)]), 4), (everything([pids()]), 4),
        (everything([field(11, b"\0")]), 4), (everything([field(12, digest[:19])]), 4),
        (everything([pids(5), field(12, digest)]), 4), (everything([field(12, digest + digest)]), 4),
        (everything([field(12, digest)]), 0), (everything([field(10, struct.pack(">I", 10))], info1=7), 4),
        (everything([field(10, b"1")]), 4), (everything([field(1, b"s" * 64)]), 4), (everything([field(1, b"unheard-of")]), 0),
        (everything([field(43, deep)]), 4), (everything([field(43, b"\xc3\xc3")]), 4), (everything([field(43, b"")]), 4),
        (everything([field(22, b"\x01\x01n")]), 201), (everything([field(30, b"udf")]), 16),
        (everything(operations=[operation(2, 1, b"n", bytes(8))], info1=1), 4),
        (everything(operations=[operation(1, 0, b"a name that is too long")], info1=1), 21),
    ]
    with server.raw() as raw:
        for request, code in cases:
            raw.send(request)
            assert read_stream(raw)[1] == code, request[:60]
            assert client.get(("test", "nonsense", 1))[2] == {"n": 1}
        raw.send(frame(3, struct.pack(">BBBBBBIIIHH", 22, 3, 0, 4, 0, 0, 0, 0, 0, 1, 0) + field(0, b"nowhere")))
        assert raw.frame()[1][5] == 20


def test_short_queries_end_in_time(own_server):
    node = node_of("memory", own_server)
    client = node.client()
    for number in range(3000):
        client.put(("test", None, number), {"blob": bytes(16_000)})
    with node.raw() as raw:
        raw.send(everything(info1=7, timeout=200))
        time.sleep(0.6)
        assert read_stream(raw)[1] == 9
    assert int(node.statistics("namespace/test")["pi_query_short_basic_timeout"]) == 1


def test_random_partitions_and_limits(server, client):
    """Any choice of partitions and limits answers no record twice and none of another partition."""
    chance = random.Random(time.time_ns())
    for number in range(2000):
        client.put(("test", "limits", number), {"n": number})
    for _ in range(30):
        begin = chance.randrange(4096)
        count = chance.randrange(1, 4097 - begin)
        query = client.query("test", "limits")
        query.max_records = chance.randrange(1, 3000)
        seen = query.results({"partition_filter": {"begin": begin, "count": count}})
        assert len({key[3].hex() for key, _, _ in seen}) == len(seen) <= query.max_records
        assert all(begin <= (key[3][0] | key[3][1] << 8) % 4096 < begin + count for key, _, _ in seen)
