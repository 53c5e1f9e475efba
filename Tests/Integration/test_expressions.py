"""Expressions with the real client: as filters of single commands, as read and as write operations, and bad ones by hand."""
import math
import time

import aerospike
import pytest
from aerospike import exception as e
from aerospike_helpers import expressions as exp
from aerospike_helpers.expressions import arithmetic as a
from aerospike_helpers.expressions import bitwise_operators as b
from aerospike_helpers.operations import expression_operations as ops
from aerospike_helpers.operations import operations as op
from conftest import ENGINES, command_of, engines, field, integer, message, operation, plugin_block

I, F, S = exp.IntBin, exp.FloatBin, exp.StrBin
FILTER, SET = 43, b"demo"
# A record, and the keys of the ones beside it.
BINS = {"i": 7, "n": -7, "f": 2.5, "s": "swift", "b": bytes([1, 2, 3]), "yes": True, "l": [1, "a", [2.5]], "m": {"a": 1}}


@pytest.fixture
def record(client, key):
    client.put(key, BINS)
    return key


def passes(client, key, expression, **policy):
    """Whether the record passes the filter, for each kind of command the same."""
    filtered = {"expressions": expression.compile(), **policy}
    results = []
    for command in (lambda: client.get(key, policy=filtered), lambda: client.select(key, ["i"], policy=filtered),
                    lambda: client.operate(key, [op.read("i")], policy=filtered),
                    lambda: client.operate(key, [op.increment("count", 1)], policy=filtered)):
        try:
            command()
            results.append(True)
        except e.FilteredOut:
            results.append(False)
    assert len(set(results)) == 1, results
    return results[0]


def value(client, key, expression, flags=aerospike.EXP_READ_DEFAULT):
    return client.operate(key, [ops.expression_read("result", expression.compile(), flags)])[2]["result"]


def fails(code, call, *arguments, **more):
    with pytest.raises(e.AerospikeError) as raised:
        call(*arguments, **more)
    assert raised.value.code == code


# ---- Filters ----

TRUE = [
    exp.Eq(I("i"), 7), exp.NE(I("i"), 8), exp.GT(I("i"), 6), exp.GE(I("i"), 7), exp.LT(I("i"), 8), exp.LE(I("i"), 7),
    exp.Eq(F("f"), 2.5), exp.LT(F("f"), 2.6), exp.Eq(S("s"), "swift"), exp.GT(S("s"), "swifs"), exp.LT(S("s"), "swifta"),
    exp.Eq(exp.BlobBin("b"), bytes([1, 2, 3])), exp.GT(exp.BlobBin("b"), bytes([1, 2])), exp.Eq(exp.BoolBin("yes"), True),
    exp.Eq(exp.ListBin("l"), [1, "a", [2.5]]), exp.Eq(exp.MapBin("m"), {"a": 1}), exp.NE(exp.ListBin("l"), [1]),
    exp.CmpRegex(aerospike.REGEX_EXTENDED, "^sw(i|a)ft$", S("s")), exp.CmpRegex(aerospike.REGEX_ICASE, "SWIFT", S("s")),
    exp.And(exp.Eq(I("i"), 7), exp.Eq(F("f"), 2.5)), exp.Or(exp.Eq(I("i"), 8), exp.Eq(I("none"), 1), exp.Eq(I("n"), -7)),
    exp.Not(exp.Eq(I("i"), 8)), exp.Exclusive(exp.Eq(I("i"), 8), exp.Eq(I("n"), -7)),
    exp.BinExists("i"), exp.Not(exp.BinExists("none")), exp.Eq(exp.BinType("s"), aerospike.AS_BYTES_STRING),
    exp.Eq(exp.SetName(), "demo"), exp.LT(exp.SinceUpdateTime(), 600_000), exp.GT(exp.LastUpdateTime(), 10 ** 18),
    exp.Eq(exp.VoidTime(), -1), exp.Eq(exp.TTL(), -1), exp.Not(exp.IsTombstone()), exp.Not(exp.KeyExists()),
    exp.GT(exp.RecordSize(), 50), exp.LT(exp.DigestMod(7), 7),
    exp.Eq(exp.Cond(exp.Eq(I("i"), 1), "one", exp.Eq(I("i"), 7), "seven", "many"), "seven"),
    exp.Let(exp.Def("x", a.Add(I("i"), 1)), exp.Eq(a.Mul(exp.Var("x"), exp.Var("x")), 64)),
]
FALSE = [
    exp.Eq(I("i"), 8), exp.Eq(S("s"), "swif"), exp.Eq(exp.SetName(), "fish"), exp.KeyExists(), exp.BinExists("none"),
    exp.And(exp.Eq(I("i"), 7), exp.Eq(F("f"), 2.6)), exp.CmpRegex(0, "SWIFT", S("s")), exp.Eq(exp.ListBin("l"), [1, "a"]),
    # Unknown: the bin is missing or has another type.
    exp.Eq(I("none"), 7), exp.NE(I("none"), 7), exp.Not(exp.Eq(I("none"), 7)), exp.Eq(I("s"), 7), exp.Eq(F("i"), 7.0),
    exp.And(exp.Eq(I("i"), 7), exp.Eq(I("none"), 1)), exp.Or(exp.Eq(I("i"), 8), exp.Eq(I("none"), 1)), exp.Eq(exp.KeyInt(), 1),
]


def test_filters(client, record):
    for number, expression in enumerate(TRUE):
        assert passes(client, record, expression), number
    for number, expression in enumerate(FALSE):
        assert not passes(client, record, expression), number
    assert client.get(record)[2]["count"] == len(TRUE)


def test_stored_keys(client, record):
    client.put(record, {"x": 1}, policy={"key": aerospike.POLICY_KEY_SEND})
    stored = record[2]
    kind = exp.KeyInt() if isinstance(stored, int) else exp.KeyStr()
    assert passes(client, record, exp.And(exp.KeyExists(), exp.Eq(kind, stored)))
    assert not passes(client, record, exp.Eq(kind, stored + stored))


def test_times(server, request):
    client = server.client()
    key = ("ttl", "s", request.node.name)
    client.put(key, {"i": 1}, meta={"ttl": 50})
    assert passes(client, key, exp.And(exp.GT(exp.TTL(), 40), exp.LE(exp.TTL(), 50)))
    assert passes(client, key, exp.GT(exp.VoidTime(), int(time.time() + 40) * 10 ** 9))
    assert not passes(client, key, exp.LT(exp.TTL(), 40))


def test_what_a_filter_stops(client, record, server):
    no = {"expressions": exp.Eq(I("i"), 8).compile()}
    yes = {"expressions": exp.Eq(I("i"), 7).compile()}
    before = server.statistics("namespace/test")
    for command in (client.get, client.exists, client.remove):
        fails(27, command, record, policy=no)
    fails(27, client.put, record, {"i": 8}, policy=no)
    fails(27, client.touch, record, policy=no)
    assert client.get(record)[2]["i"] == 7
    after = server.statistics("namespace/test")
    for name, count in (("client_read_filtered_out", 2), ("client_write_filtered_out", 2), ("client_delete_filtered_out", 1)):
        assert int(after[name]) - int(before[name]) == count, name
    client.put(record, {"i": 7}, policy=yes)
    client.remove(record, policy=yes)
    # No record: reads and deletes say so, a write makes one.
    fails(2, client.get, record, policy=no)
    fails(2, client.remove, record, policy=no)
    client.put(record, {"i": 1}, policy=no)
    assert client.get(record)[2] == {"i": 1}


# ---- Read operations ----

def test_arithmetic(client, record):
    wanted = [
        (a.Add(I("i"), I("n"), 5), 5), (a.Sub(I("i"), 1, 2), 4), (a.Sub(I("i")), -7), (a.Mul(I("i"), 6), 42), (a.Div(I("n"), 2), -3),
        (a.Mod(I("n"), 4), -3), (a.Abs(I("n")), 7), (a.Min(I("i"), I("n")), -7), (a.Max(I("i"), I("n")), 7),
        (a.Add(F("f"), 1.0), 3.5), (a.Div(F("f"), 0.5), 5.0), (a.Pow(F("f"), 2.0), 6.25), (a.Log(8.0, 2.0), 3.0),
        (a.Floor(F("f")), 2.0), (a.Ceil(F("f")), 3.0), (a.ToInt(F("f")), 2), (a.ToFloat(I("i")), 7.0),
        (b.IntAnd(I("i"), 5), 5), (b.IntOr(I("i"), 8), 15), (b.IntXOr(I("i"), 5), 2), (b.IntNot(I("i")), -8),
        (b.IntLeftShift(I("i"), 3), 56), (b.IntRightShift(I("n"), 60), 15), (b.IntArithmeticRightShift(I("n"), 1), -4),
        (b.IntCount(I("i")), 3), (b.IntLeftScan(I("i"), True), 61), (b.IntRightScan(I("i"), False), 60),
    ]
    for number, (expression, result) in enumerate(wanted):
        found = value(client, record, expression)
        assert math.isclose(found, result) and type(found) is type(result), number
    # Integers wrap; what has no result is not applicable.
    assert value(client, record, a.Add(I("i"), 2 ** 63 - 1)) == -2 ** 63 + 6
    fails(26, value, client, record, a.Div(I("i"), 0))


def test_results_are_typed(client, record):
    results = [(I("i"), 7), (F("f"), 2.5), (S("s"), "swift"), (exp.BlobBin("b"), bytes([1, 2, 3])), (exp.BoolBin("yes"), True),
               (exp.ListBin("l"), [1, "a", [2.5]]), (exp.MapBin("m"), {"a": 1}), (exp.SetName(), "demo"), (exp.Eq(I("i"), 7), True),
               (exp.Val([1, 2]), [1, 2]), (exp.Val("x"), "x")]
    for expression, result in results:
        found = value(client, record, expression)
        assert found == result and type(found) is type(result)


def test_reads_that_have_no_result(client, record):
    fails(26, value, client, record, a.Add(I("none"), 1))
    assert value(client, record, a.Add(I("none"), 1), aerospike.EXP_READ_EVAL_NO_FAIL) is None
    fails(2, value, client, ("test", "s", "no such record"), I("i"))
    several = client.operate(record, [ops.expression_read("x", a.Add(I("i"), 1).compile()), op.read("s"),
                                      ops.expression_read("y", I("n").compile())])[2]
    assert several == {"x": 8, "s": "swift", "y": -7}


# ---- Write operations ----

def write(client, key, name, expression, flags=aerospike.EXP_WRITE_DEFAULT):
    client.operate(key, [ops.expression_write(name, expression.compile(), flags)])


def test_writes(client, record):
    write(client, record, "sum", a.Add(I("i"), 1))
    write(client, record, "copy", S("s"))
    write(client, record, "i", a.Mul(I("i"), 2))
    write(client, record, "l2", exp.ListBin("l"))
    bins = client.get(record)[2]
    assert (bins["sum"], bins["copy"], bins["i"], bins["l2"]) == (8, "swift", 14, [1, "a", [2.5]])
    # Each operation sees what those before it have done.
    result = client.operate(record, [
        op.write("i", 100), ops.expression_write("i", a.Add(I("i"), 1).compile()),
        ops.expression_read("now", I("i").compile()), op.read("i")])[2]
    assert result["now"] == 101 and result["i"] == 101
    assert client.get(record)[2]["i"] == 101


def test_flags_of_writes(client, record):
    one = a.Add(I("i"), 1)
    fails(6, write, client, record, "i", one, aerospike.EXP_WRITE_CREATE_ONLY)
    fails(17, write, client, record, "none", one, aerospike.EXP_WRITE_UPDATE_ONLY)
    write(client, record, "i", one, aerospike.EXP_WRITE_CREATE_ONLY | aerospike.EXP_WRITE_POLICY_NO_FAIL)
    write(client, record, "none", one, aerospike.EXP_WRITE_UPDATE_ONLY | aerospike.EXP_WRITE_POLICY_NO_FAIL)
    fails(26, write, client, record, "i", a.Add(I("none"), 1))
    write(client, record, "i", a.Add(I("none"), 1), aerospike.EXP_WRITE_EVAL_NO_FAIL)
    fails(26, write, client, record, "i", exp.Val(None))
    assert client.get(record)[2] == BINS
    write(client, record, "i", exp.Val(None), aerospike.EXP_WRITE_ALLOW_DELETE)
    assert "i" not in client.get(record)[2]


def test_a_refused_write_changes_nothing(client, record):
    fails(26, client.operate, record, [op.write("i", 1), ops.expression_write("x", a.Div(I("i"), 0).compile())])
    assert client.get(record)[2] == BINS


# ---- Bad input ----

def test_large_filters(client, record):
    """Five thousand comparisons pass, each of four instructions; a program of over 32768 is error 4."""
    def is_any(values):
        return exp.Or(*[exp.Eq(I("i"), value) for value in values])
    assert passes(client, record, is_any([*range(100, 5099), 7]))
    assert not passes(client, record, is_any(range(100, 5100)))
    fails(4, client.get, record, {"expressions": is_any(range(10_000)).compile()})


def test_many_large_expressions_in_one_request(client, record):
    """Together they may take two million instructions: in reads and in writes, of which nothing is done then."""
    large = exp.Or(*[exp.Eq(I("i"), value) for value in range(100, 5100)]).compile()
    for first in (op.read("i"), op.increment("count", 1)):
        def operations(count):
            return [first] + [ops.expression_read(f"r{number}", large) for number in range(count)]
        assert client.operate(record, operations(50))[2]["r49"] is False
        fails(4, client.operate, record, operations(120))
    assert client.get(record)[2]["count"] == 1


def test_malformed_filters(server, raw_record):
    raw, digest = raw_record
    bad = {
        "nothing": b"", "cut": bytes.fromhex("9301935102a161"), "an integer": b"\x05", "types": bytes.fromhex("9301935102a161a20361"),
        "rest": bytes.fromhex("9301935102a1610505"), "no such call": bytes.fromhex("92cc9601"), "text": b"\xa4\x03abc",
        "nested": b"\x92\x12" * 10_000 + b"\xc3", "huge": bytes.fromhex("930193") + b"\x51\x03\xa1s" + b"\xc6\x00\x20\x00\x00" + b"\x03" * (2 << 20),
        "count": b"\xdd\xff\xff\xff\xff\x10", "regex": bytes.fromhex("940701") + b"\xa2((" + bytes.fromhex("935103a173"),
    }
    for name, expression in bad.items():
        answer = raw.ask(message(digest, set_name=SET, info1=3, fields=[field(FILTER, expression)]))
        assert answer.result == 4, name
        for info2 in (1, 3):
            operations = [operation(2, 1, b"i", integer(1))] if info2 == 1 else []
            assert raw.ask(message(digest, operations, set_name=SET, info2=info2, fields=[field(FILTER, expression)])).result == 4, name
    # A call that is not there yet; 256 deep is not too deep.
    assert raw.ask(message(digest, set_name=SET, info1=3, fields=[field(FILTER, bytes.fromhex("9301957f02009110935104a16c01"))])).result == 16
    assert raw.ask(message(digest, set_name=SET, info1=3, fields=[field(FILTER, b"\x92\x12" * 256 + b"\xc3")])).result == 0
    assert raw.ask(message(digest, set_name=SET, info1=3)).bins == [("i", 1, integer(7))]


@pytest.fixture
def raw_record(server, client, record):
    with server.raw() as raw:
        digest = aerospike.calc_digest(*record)
        client.put(record, {"i": 7}, policy={"exists": aerospike.POLICY_EXISTS_REPLACE})
        yield raw, bytes(digest)


# ---- Backends ----

@pytest.mark.parametrize("engine", engines("device", "pmem", "rocksdb", "lmdb", "template", "tiered"))
def test_every_backend(engine, own_server):
    """Filters and operations over 300 records on each backend, by hand what the server should say."""
    server = own_server(f"{plugin_block(engine)}namespace test {{ nsup-period 120\n {ENGINES[engine]}\n}}\n",
                        command=command_of(engine))
    client = server.client()
    keys = [("test", f"s{number % 3}", number) for number in range(300)]
    for number, key in enumerate(keys):
        client.put(key, {"i": number, "s": f"text {number}"})
    small = {"expressions": exp.And(exp.LT(I("i"), 100), exp.Eq(exp.SetName(), "s1")).compile()}
    ending = {"expressions": exp.CmpRegex(0, "7$", S("s")).compile()}
    double = [ops.expression_write("double", a.Mul(I("i"), 2).compile())]

    def happens(wanted, command, *arguments, **more):
        if wanted:
            command(*arguments, **more)
        else:
            fails(27, command, *arguments, **more)

    for number, key in enumerate(keys):
        is_small = number < 100 and number % 3 == 1
        happens(is_small, client.get, key, policy=small)
        happens(number % 10 == 7, client.get, key, policy=ending)
        happens(is_small, client.operate, key, double, policy=small)
        happens(number % 10 == 7, client.remove, key, policy=ending)
    for number, key in enumerate(keys):
        if number % 10 == 7:
            fails(2, client.get, key)
            continue
        wanted = {"i": number, "s": f"text {number}"}
        if number < 100 and number % 3 == 1:
            wanted["double"] = 2 * number
        assert client.get(key)[2] == wanted
