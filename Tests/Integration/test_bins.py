"""Rules of records at the protocol's edges, by hand: bins, operations, sets, keys, generations."""
import struct

import aerospike
import pytest
from aerospike import exception as e
from aerospike_helpers.operations import operations as op
from conftest import delete, digest, field, get, integer, message, operation, put

READ, WRITE, INCREMENT, APPEND, TOUCH, DELETE_ALL = 1, 2, 5, 9, 11, 14
RESPOND_ALL, CREATE_ONLY, GENERATION, GENERATION_GREATER = 0x80, 0x20, 0x04, 0x08
UPDATE_ONLY, REPLACE, REPLACE_ONLY = 0x08, 0x10, 0x20


@pytest.fixture
def raw(server):
    with server.raw() as raw:
        yield raw


@pytest.fixture
def fresh(request):
    """A digest of this test's own."""
    return struct.pack("<QQI", hash(request.node.nodeid) & (2**64 - 1), 77, 77)


def write(of, *operations, **more):
    more["info2"] = more.get("info2", 0) | 1
    return message(of, list(operations), **more)


def number_bin(name, value=1):
    return operation(WRITE, 1, name, integer(value))


# ---- Operations ----

def test_each_operation_is_answered_in_order(raw, fresh):
    answer = raw.ask(write(
        fresh, number_bin(b"a", 5), operation(READ, 0, b"a"), operation(INCREMENT, 1, b"a", integer(2)),
        operation(READ, 0, b"none"), operation(READ, 0, b"a"), info1=1, info2=RESPOND_ALL))
    assert answer.result == 0
    assert answer.bins == [("a", 0, b""), ("a", 1, integer(5)), ("a", 0, b""), ("none", 0, b""), ("a", 1, integer(7))]


def test_without_respond_all_only_values_are_answered(raw, fresh):
    answer = raw.ask(write(
        fresh, number_bin(b"a", 5), operation(READ, 0, b"none"), operation(READ, 0, b"a"), info1=1))
    assert answer.result == 0 and answer.bins == [("a", 1, integer(5))]


def test_operate_ordered_with_the_client(client, key):
    _, meta, bins = client.operate_ordered(
        key, [op.write("a", 1), op.increment("a", 4), op.read("a"), op.append("s", "x"), op.read("s")])
    assert [pair for pair in bins if pair[1] is not None] == [("a", 5), ("s", "x")] and meta["gen"] == 1


def test_read_all_inside_an_operate(raw, fresh):
    raw.ask(write(fresh, number_bin(b"a", 1), number_bin(b"b", 2)))
    answer = raw.ask(write(fresh, number_bin(b"b", 3), operation(READ, 0, b""), info1=3))
    assert answer.result == 0 and answer.generation == 2
    assert sorted(answer.bins) == [("a", 1, integer(1)), ("b", 1, integer(3))]


def test_a_failing_operation_leaves_everything(raw, fresh):
    raw.ask(write(fresh, number_bin(b"a", 1), operation(WRITE, 3, b"s", b"text")))
    for last, code in [(operation(INCREMENT, 1, b"s", integer(1)), 12), (operation(APPEND, 3, b"a", b"x"), 12),
                       (operation(WRITE, 1, b"n" * 16, integer(1)), 21)]:
        assert raw.ask(write(fresh, number_bin(b"a", 9), number_bin(b"new"), last)).result == code
    assert raw.ask(write(fresh, operation(DELETE_ALL, 0, b""), operation(WRITE, 24, b"v", b"x"))).result == 4
    answer = raw.ask(get(fresh))
    assert (answer.generation, sorted(answer.bins)) == (1, [("a", 1, integer(1)), ("s", 3, b"text")])


def test_float_and_integer_do_not_mix(raw, fresh):
    raw.ask(write(fresh, number_bin(b"i"), operation(WRITE, 2, b"f", struct.pack(">d", 1.5))))
    assert raw.ask(write(fresh, operation(INCREMENT, 2, b"i", struct.pack(">d", 1)))).result == 12
    assert raw.ask(write(fresh, operation(INCREMENT, 1, b"f", integer(1)))).result == 12


def test_touch_and_delete_all(raw, fresh):
    assert raw.ask(write(fresh, operation(TOUCH, 0, b""))).result == 2
    raw.ask(write(fresh, number_bin(b"a")))
    answer = raw.ask(write(fresh, operation(TOUCH, 0, b"")))
    assert (answer.result, answer.generation) == (0, 2)
    assert raw.ask(write(fresh, operation(DELETE_ALL, 0, b""), number_bin(b"b"))).result == 0
    assert raw.ask(get(fresh)).bins == [("b", 1, integer(1))]


def test_metadata_only(raw, fresh):
    raw.ask(write(fresh, number_bin(b"a")))
    answer = raw.ask(message(fresh, info1=1 | 0x20))
    assert (answer.result, answer.generation, answer.void_time, answer.bins) == (0, 1, 0, [])


def test_numbers_of_operations(raw, fresh):
    assert raw.ask(write(fresh)).result == 4
    most = [operation(INCREMENT, 1, b"n", integer(1))] * 32_768
    assert raw.ask(write(fresh, *most, timeout=5000)).result == 0
    assert raw.ask(get(fresh)).bins == [("n", 1, integer(32_768))]
    assert raw.ask(write(fresh, *most, most[0], timeout=5000)).result == 4
    assert raw.ask(get(fresh)).generation == 1


def test_numbers_of_bins(raw, fresh):
    half = [number_bin(f"b{number}".encode(), number) for number in range(16_384)]
    rest = [number_bin(f"b{number}".encode(), number) for number in range(16_384, 32_767)]
    assert raw.ask(write(fresh, *half, timeout=5000)).result == 0
    assert raw.ask(write(fresh, *rest, timeout=5000)).result == 0
    assert raw.ask(write(fresh, number_bin(b"one_too_many"), timeout=5000)).result == 4
    assert len(raw.ask(get(fresh)).bins) == 32_767


@pytest.mark.parametrize("name,code", [(b"n" * 15, 0), (b"n" * 16, 21), (b"a\0b", 21), (b"n" * 255, 21)])
def test_names_of_bins(raw, fresh, name, code):
    assert raw.ask(write(fresh, number_bin(name))).result == code


@pytest.mark.parametrize("kind,value,code", [
    (24, b"x", 4), (255, b"x", 4), (1, b"", 4), (1, b"123", 4), (1, b"123456789", 4), (2, b"1234", 4), (17, b"", 4),
    (17, b"\x00\x01", 4), (17, b"\x01", 0), (3, b"", 0), (4, b"", 0), (7, b"java", 0), (9, b"python", 0),
])
def test_particles(raw, fresh, kind, value, code):
    assert raw.ask(write(fresh, operation(WRITE, kind, b"v", value))).result == code
    if code == 0:
        assert raw.ask(get(fresh)).bins == [("v", kind, value)]


def test_unknown_operation_and_field(raw, fresh):
    assert raw.ask(write(fresh, operation(99, 1, b"a", integer(1)))).result == 4
    assert raw.ask(write(fresh, number_bin(b"a"), fields=[field(200, b"to be skipped")])).result == 0
    assert raw.ask(get(fresh)).bins == [("a", 1, integer(1))]


def test_digest_of_another_size(raw, fresh):
    for wrong in (b"", fresh[:19], fresh + b"x"):
        assert raw.ask(put(wrong, 1)).result == 4


# ---- Policies ----

def test_existence(raw, fresh):
    for info3 in (UPDATE_ONLY, REPLACE_ONLY):
        assert raw.ask(write(fresh, number_bin(b"a"), info3=info3)).result == 2
    assert raw.ask(write(fresh, number_bin(b"a"), info2=CREATE_ONLY)).result == 0
    assert raw.ask(write(fresh, number_bin(b"b"), info2=CREATE_ONLY)).result == 5
    assert raw.ask(write(fresh, number_bin(b"c"), info3=UPDATE_ONLY)).result == 0
    assert [name for name, _, _ in raw.ask(get(fresh)).bins] == ["a", "c"]
    assert raw.ask(write(fresh, number_bin(b"d"), info3=REPLACE)).result == 0
    answer = raw.ask(get(fresh))
    assert (answer.generation, answer.bins) == (3, [("d", 1, integer(1))])


def test_generation_of_a_missing_record_is_0(raw, fresh):
    assert raw.ask(write(fresh, number_bin(b"a"), info2=GENERATION, generation=1)).result == 3
    assert raw.ask(write(fresh, number_bin(b"a"), info2=GENERATION, generation=0)).result == 0
    assert raw.ask(write(fresh, number_bin(b"a"), info2=GENERATION_GREATER, generation=1)).result == 3
    assert raw.ask(write(fresh, number_bin(b"a"), info2=GENERATION_GREATER, generation=9)).generation == 2
    assert raw.ask(delete(fresh)).result == 0 and raw.ask(get(fresh)).result == 2


@pytest.mark.memory_only
def test_generation_wraps_to_1(raw, fresh):
    request = put(fresh, 1)
    for _ in range(65):
        raw.send(request * 1000)
        for _ in range(1000):
            last = raw.frame()[1]
    raw.send(request * 535)
    for _ in range(535):
        last = raw.frame()[1]
    assert struct.unpack(">I", last[6:10])[0] == 65_535
    assert raw.ask(request).generation == 1


# ---- Sets and keys ----

def test_set_of_a_record(raw, fresh):
    assert raw.ask(put(fresh, 1, set_name=b"one")).result == 0
    assert raw.ask(get(fresh, set_name=b"other")).result == 4
    assert raw.ask(put(fresh, 2, set_name=b"other")).result == 4
    assert raw.ask(get(fresh, set_name=b"")).bins == [("a", 1, integer(1))]


def test_length_of_set_names(raw, fresh, server):
    assert raw.ask(put(digest(63), 1, set_name=b"s" * 63)).result == 0
    assert "objects=1:" in server.info("sets/test/" + "s" * 63)
    assert raw.ask(put(fresh, 1, set_name=b"s" * 64)).result != 0
    assert raw.ask(get(fresh)).result == 2


def test_number_of_sets(own_server):
    node = own_server()
    with node.raw() as raw:
        for start in range(0, 4096, 512):
            numbers = range(start, start + 512)
            raw.send(b"".join(put(digest(n), 1, set_name=b"set%d" % n) for n in numbers))
            results = [raw.frame()[1][5] for _ in numbers]
            assert results[:511] == [0] * 511
    assert results[511] != 0, "the 4096th set"
    assert node.info("sets/test").count("set=") == 4095
    assert node.statistics("namespace/test")["objects"] == "4095"


def test_stored_key(raw, fresh):
    def key(value):
        return [field(2, b"\x03" + value)]

    assert raw.ask(put(fresh, 1, fields=key(b"mine"))).result == 0
    assert raw.ask(put(fresh, 2)).result == 0
    assert raw.ask(put(fresh, 3, fields=key(b"yours"))).result == 19
    assert raw.ask(get(fresh, fields=key(b"yours"))).result == 19
    assert raw.ask(get(fresh, fields=key(b"mine"))).bins == [("a", 1, integer(2))]
    assert raw.ask(put(fresh, 1, fields=[field(2, b"\x03")])).result == 16
    assert raw.ask(put(fresh, 1, fields=[field(2, b"\x01" + b"1234")])).result == 16


def test_bin_name_of_16_with_the_client(client, key):
    with pytest.raises(e.AerospikeError) as raised:
        client.put(key, {"n" * 16: 1})
    assert raised.value.code in (21, -2)
    with pytest.raises(e.AerospikeError) as raised:
        client.get(key)
    assert raised.value.code == aerospike.exception.RecordNotFound.code
