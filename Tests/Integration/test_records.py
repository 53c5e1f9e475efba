"""Every operation and error of single records, with the real client."""
import time

import aerospike
import pytest
from aerospike import exception as e
from aerospike_helpers.operations import operations as op

NEVER = aerospike.TTL_NEVER_EXPIRE
VALUES = {
    "int_max": 2**63 - 1, "int_min": -2**63, "zero": 0, "float": 1.5, "float_small": 5e-324, "text": "text",
    "text_empty": "", "text_wide": "Mauersegler 雨燕 🐦", "bytes": b"\x00\x01\xff", "bytes_empty": b"", "yes": True,
    "no": False, "list": [1, "two", [3.0, None]], "map": {"a": 1, 2: [3]},
}


def fails(code, call, *arguments, **named):
    with pytest.raises(e.AerospikeError) as raised:
        call(*arguments, **named)
    assert raised.value.code == code, raised.value


def bins_of(client, key):
    return client.get(key)[2]


def generation_of(client, key):
    return client.exists(key)[1]["gen"]


@pytest.mark.parametrize("name", VALUES)
def test_value_comes_back(client, key, name):
    client.put(key, {"v": VALUES[name]})
    value = bins_of(client, key)["v"]
    assert value == VALUES[name] and type(value) is type(VALUES[name])


def test_geojson_comes_back(client, key):
    point = aerospike.GeoJSON({"type": "Point", "coordinates": [13.4, 52.5]})
    client.put(key, {"p": point})
    assert bins_of(client, key)["p"].unwrap() == point.unwrap()


def test_kinds_of_keys(client):
    for number, primary in enumerate([1, -1, "text", bytearray(b"\x00bytes")]):
        key = ("test", "keys", primary)
        client.put(key, {"n": number})
        assert bins_of(client, key) == {"n": number}


def test_integer_and_string_keys_differ(client):
    client.put(("test", "keys", 5), {"n": 1})
    client.put(("test", "keys", "5"), {"n": 2})
    client.put(("test", None, 5), {"n": 3})
    assert [bins_of(client, ("test", s, k))["n"] for s, k in [("keys", 5), ("keys", "5"), (None, 5)]] == [1, 2, 3]


def test_read_some_and_metadata(client, key):
    client.put(key, {"a": 1, "b": 2, "c": 3})
    assert client.select(key, ["a", "c", "none"])[2] == {"a": 1, "c": 3}
    _, meta = client.exists(key)
    assert meta["gen"] == 1 and meta["ttl"] == 0xFFFFFFFF


def test_write_merges_and_none_deletes(client, key):
    client.put(key, {"a": 1, "b": 2})
    client.put(key, {"b": 3, "c": 4})
    assert bins_of(client, key) == {"a": 1, "b": 3, "c": 4}
    client.put(key, {"a": aerospike.null(), "b": aerospike.null()})
    assert bins_of(client, key) == {"c": 4} and generation_of(client, key) == 3
    client.put(key, {"c": aerospike.null()})
    fails(2, client.get, key)


def test_missing_record(client, key):
    fails(2, client.get, key)
    fails(2, client.remove, key)
    fails(2, client.touch, key)
    fails(2, client.select, key, ["a"])


def test_remove(client, key):
    client.put(key, {"a": 1})
    client.remove(key)
    fails(2, client.get, key)
    client.put(key, {"a": 2})
    assert generation_of(client, key) == 1


def test_increment(client, key):
    client.increment(key, "n", 5)
    client.increment(key, "n", -7)
    assert bins_of(client, key)["n"] == -2
    client.increment(key, "f", 1.5)
    client.increment(key, "f", 0.25)
    assert bins_of(client, key)["f"] == 1.75
    client.put(key, {"n": 2**63 - 1})
    client.increment(key, "n", 1)
    assert bins_of(client, key)["n"] == -2**63
    client.put(key, {"s": "text"})
    fails(12, client.increment, key, "s", 1)
    fails(12, client.increment, key, "n", 1.5)


def test_append_and_prepend(client, key):
    client.append(key, "s", "b")
    client.append(key, "s", "c")
    client.prepend(key, "s", "a")
    assert bins_of(client, key)["s"] == "abc"
    client.operate(key, [op.write("x", b"\x01"), op.append("x", b"\x02"), op.prepend("x", b"\x00")])
    assert bins_of(client, key)["x"] == b"\x00\x01\x02"
    client.put(key, {"n": 1})
    fails(12, client.append, key, "n", "x")
    fails(12, client.prepend, key, "x", "text on bytes")


def test_operate_is_atomic_and_ordered(client, key):
    _, meta, bins = client.operate(
        key, [op.increment("n", 2), op.read("n"), op.append("s", "x"), op.read("s")])
    assert bins == {"n": 2, "s": "x"} and meta["gen"] == 1
    fails(12, client.operate, key, [op.increment("n", 100), op.append("n", "x")])
    assert bins_of(client, key) == {"n": 2, "s": "x"} and generation_of(client, key) == 1


def test_operate_answers_each_operation(client, key):
    _, _, bins = client.operate_ordered(
        key, [op.increment("n", 1), op.read("n"), op.increment("n", 1), op.read("n"), op.read("none")])
    assert [value for name, value in bins if name == "n" and value is not None] == [1, 2]


def test_operate_deletes(client, key):
    client.put(key, {"a": 1, "b": 2})
    client.operate(key, [op.delete(), op.write("c", 3)])
    assert bins_of(client, key) == {"c": 3}
    client.operate(key, [op.delete()])
    fails(2, client.get, key)


def test_touch_counts_as_a_write(client, key):
    client.put(key, {"a": 1})
    client.touch(key, 50)
    _, meta = client.exists(key)
    assert meta["gen"] == 2 and 40 < meta["ttl"] <= 50


@pytest.mark.parametrize("exists,on_missing,on_present", [
    (aerospike.POLICY_EXISTS_CREATE, None, 5), (aerospike.POLICY_EXISTS_UPDATE, 2, None),
    (aerospike.POLICY_EXISTS_REPLACE, 2, None), (aerospike.POLICY_EXISTS_CREATE_OR_REPLACE, None, None),
    (aerospike.POLICY_EXISTS_IGNORE, None, None),
])
def test_exists_policies(client, key, exists, on_missing, on_present):
    policy = {"exists": exists}
    if on_missing:
        fails(on_missing, client.put, key, {"b": 1}, policy=policy)
        client.put(key, {"b": 1})
    else:
        client.put(key, {"b": 1}, policy=policy)
    if on_present:
        fails(on_present, client.put, key, {"c": 2}, policy=policy)
        assert bins_of(client, key) == {"b": 1}
    else:
        client.put(key, {"c": 2}, policy=policy)
        replaces = exists in (aerospike.POLICY_EXISTS_REPLACE, aerospike.POLICY_EXISTS_CREATE_OR_REPLACE)
        assert bins_of(client, key) == ({"c": 2} if replaces else {"b": 1, "c": 2})


def test_generation_policies(client, key):
    equal = {"gen": aerospike.POLICY_GEN_EQ}
    greater = {"gen": aerospike.POLICY_GEN_GT}
    fails(3, client.put, key, {"a": 1}, meta={"gen": 1}, policy=equal)
    client.put(key, {"a": 1})
    client.put(key, {"a": 2}, meta={"gen": 1}, policy=equal)
    fails(3, client.put, key, {"a": 3}, meta={"gen": 1}, policy=equal)
    fails(3, client.remove, key, meta={"gen": 1}, policy=equal)
    fails(3, client.put, key, {"a": 3}, meta={"gen": 2}, policy=greater)
    client.put(key, {"a": 4}, meta={"gen": 3}, policy=greater)
    assert bins_of(client, key) == {"a": 4}
    client.remove(key, meta={"gen": 3}, policy=equal)


def test_stored_keys(client, key):
    client.put(key, {"a": 1}, policy={"key": aerospike.POLICY_KEY_SEND})
    client.put(key, {"b": 2})
    client.put(key, {"c": 3}, policy={"key": aerospike.POLICY_KEY_SEND})
    assert client.get(key, policy={"key": aerospike.POLICY_KEY_SEND})[2] == {"a": 1, "b": 2, "c": 3}


def test_times_to_live(client, key):
    client.put(key, {"a": 1}, meta={"ttl": 100})
    assert 95 <= client.exists(key)[1]["ttl"] <= 100
    client.put(key, {"a": 2}, meta={"ttl": aerospike.TTL_DONT_UPDATE})
    assert 95 <= client.exists(key)[1]["ttl"] <= 100
    client.put(key, {"a": 3}, meta={"ttl": NEVER})
    assert client.exists(key)[1]["ttl"] == 0xFFFFFFFF
    client.put(key, {"a": 4}, meta={"ttl": aerospike.TTL_NAMESPACE_DEFAULT})
    assert client.exists(key)[1]["ttl"] == 0xFFFFFFFF
    fails(4, client.put, key, {"a": 5}, meta={"ttl": 315_360_001})
    fails(22, client.put, ("small", "s", 1), {"a": 5}, meta={"ttl": 10})


def test_default_time_to_live(client):
    client.put(("ttl", "s", 1), {"a": 1})
    assert 95 <= client.exists(("ttl", "s", 1))[1]["ttl"] <= 100


def test_expired_records_are_invisible_and_reads_touch(client):
    key, touched = ("ttl", "s", "expires"), ("ttl", "s", "touched")
    client.put(key, {"a": 1}, meta={"ttl": 1})
    client.put(touched, {"a": 1}, meta={"ttl": 3})
    time.sleep(2)
    client.get(touched)
    fails(2, client.get, key)
    time.sleep(1.6)
    assert bins_of(client, touched) == {"a": 1}, "a read with less than half of its life left renewed it"


def test_sets(client, server):
    client.put(("test", "birds", 1), {"a": 1})
    sets = dict(entry.split(":", 2)[1:] for entry in server.info("sets/test").split(";") if entry)
    assert "objects=1" in sets["set=birds"]
    client.remove(("test", "birds", 1))
    assert "objects=0" in server.info("sets/test/birds")


def test_record_too_big(client):
    key = ("small", "s", "big")
    client.put(key, {"a": "x" * 1800})
    fails(13, client.put, key, {"a": "x" * 2048})
    fails(13, client.append, key, "a", "x" * 1000)
    assert len(bins_of(client, key)["a"]) == 1800


def test_set_name_is_demanded(client):
    fails(4, client.put, ("small", None, 1), {"a": 1})


def test_large_records(client, key):
    overhead = 300
    client.put(key, {"a": b"x" * ((1 << 20) - overhead)})
    assert len(bins_of(client, key)["a"]) == (1 << 20) - overhead
    fails(13, client.put, key, {"a": b"x" * (1 << 20)})


def test_many_bins(client, key):
    bins = {f"bin{number}": number for number in range(1000)}
    client.put(key, bins)
    assert bins_of(client, key) == bins
    assert client.select(key, [f"bin{number}" for number in range(500)])[2] == {f"bin{n}": n for n in range(500)}


def test_bin_names(client, key):
    client.put(key, {"fifteen_letters": 1, "ü": 2})
    assert bins_of(client, key) == {"fifteen_letters": 1, "ü": 2}
    fails(21, client.put, key, {"sixteen__letters": 1})


def test_unknown_namespace(client):
    with pytest.raises(e.AerospikeError):
        client.put(("nowhere", "s", 1), {"a": 1})


def test_durable_delete(client, key):
    client.put(key, {"a": 1})
    client.remove(key, policy={"durable_delete": True})
    fails(2, client.get, key)


def test_later_features_answer_16(client, key):
    client.put(key, {"l": [1]})
    from aerospike_helpers.operations import list_operations
    fails(16, client.operate, key, [list_operations.list_append("l", 2)])
