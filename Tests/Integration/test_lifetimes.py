"""Times to live: what is stored, what reads renew, when a record is gone."""
import time

import pytest
from conftest import digest, get, integer, message, operation, put

EPOCH = 1262304000
NEVER, KEEP, LONGEST = 0xFFFFFFFF, 0xFFFFFFFE, 315_360_000


@pytest.fixture
def raw(server):
    with server.raw() as raw:
        yield raw


def wait_for_fraction(fraction):
    """Sleeps until the clock's second has come to `fraction`: void-times are whole seconds."""
    time.sleep((fraction - time.time()) % 1)


def left(raw, of, **more):
    """Seconds a record has left, by metadata that renews nothing."""
    answer = raw.ask(message(of, info1=1 | 0x20, ttl=NEVER, **more))
    assert answer.result == 0, answer.result
    return answer.void_time - (int(time.time()) - EPOCH) if answer.void_time else None


def test_stored_void_time_is_now_and_ttl(raw):
    for ttl in (1, 100, 86_400, LONGEST):
        before = int(time.time()) - EPOCH
        assert raw.ask(put(digest(5001), 1, ttl=ttl)).result == 0
        after = int(time.time()) - EPOCH
        void_time = raw.ask(get(digest(5001))).void_time
        assert before + ttl <= void_time <= after + ttl + 1


@pytest.mark.parametrize("ttl", [LONGEST + 1, 0x7FFFFFFF, 0xFFFFFFFD])
def test_ttl_beyond_ten_years(raw, ttl):
    assert raw.ask(put(digest(5002), 1, ttl=ttl)).result == 4
    assert raw.ask(get(digest(5002))).result == 2


def test_keep(raw):
    d = digest(5003)
    assert raw.ask(put(d, 1, namespace=b"ttl", ttl=KEEP)).result == 0
    assert 99 <= left(raw, d, namespace=b"ttl") <= 101, "a new record takes the default"
    raw.ask(put(d, 1, namespace=b"ttl", ttl=5000))
    raw.ask(put(d, 2, namespace=b"ttl", ttl=KEEP))
    assert 4999 <= left(raw, d, namespace=b"ttl") <= 5001
    raw.ask(put(d, 3, namespace=b"ttl", ttl=NEVER))
    assert left(raw, d, namespace=b"ttl") is None
    raw.ask(put(d, 4, namespace=b"ttl", ttl=KEEP))
    assert left(raw, d, namespace=b"ttl") is None
    raw.ask(put(d, 5, namespace=b"ttl"))
    assert 99 <= left(raw, d, namespace=b"ttl") <= 101


def test_ttl_without_nsup(raw):
    d = digest(5004)
    assert raw.ask(put(d, 1, namespace=b"small", ttl=10)).result == 22
    assert raw.ask(put(d, 1, namespace=b"small", ttl=NEVER)).result == 0
    assert raw.ask(put(d, 1, namespace=b"small")).result == 0


def test_a_record_lives_its_whole_time(raw):
    """Written late in a second: a time to live of 1 s is not a fraction of one."""
    wait_for_fraction(0.9)
    raw.ask(put(digest(5005), 1, ttl=1))
    time.sleep(0.3)
    assert raw.ask(get(digest(5005))).result == 0, "gone 0.3 s after a write with a time to live of 1 s"


def test_an_expired_record_is_not_there(raw):
    d = digest(5006)
    for _ in range(3):
        raw.ask(put(d, 1, ttl=1))
    deadline = time.monotonic() + 2.2
    while raw.ask(get(d)).result == 0 and time.monotonic() < deadline:
        time.sleep(0.02)
    assert raw.ask(get(d)).result == 2
    assert raw.ask(message(d, info1=1 | 0x20)).result == 2
    assert raw.ask(message(d, [operation(11, 0, b"")], info2=1)).result == 2
    assert raw.ask(message(d, info2=3)).result == 2
    create = message(d, [operation(5, 1, b"n", integer(1))], info2=1 | 0x20)
    assert raw.ask(create).generation == 1, "create-only takes its place"
    assert raw.ask(get(d)).bins == [("n", 1, integer(1))]


def test_touch_renews(raw):
    d = digest(5007)
    raw.ask(put(d, 1, ttl=10))
    answer = raw.ask(message(d, [operation(11, 0, b"")], info2=1, ttl=1000))
    assert answer.generation == 2 and 999 <= left(raw, d) <= 1001


# ---- Reads that renew ----

def wait_until_left(raw, of, seconds, **more):
    deadline = time.monotonic() + 1
    while left(raw, of, **more) < seconds and time.monotonic() < deadline:
        time.sleep(0.01)
    return left(raw, of, **more)


def test_percentages(raw):
    d = digest(5008)
    raw.ask(put(d, 1, ttl=1000))
    for percent, code in [(1, 0), (100, 0), (101, 4), (0xFFFFFFFE, 4), (NEVER, 0), (0, 0)]:
        assert raw.ask(get(d, ttl=percent)).result == code, percent


def test_reads_renew_by_the_namespace(raw, server):
    d, more = digest(5009), {"namespace": b"ttl"}
    before = int(server.statistics("namespace/ttl")["read_touch_success"])
    wait_for_fraction(0.2)
    raw.ask(put(d, 1, ttl=3, **more))
    assert raw.ask(get(d, **more)).result == 0 and left(raw, d, **more) == 3
    time.sleep(2)
    assert left(raw, d, **more) == 1, "what never renews has not renewed"
    assert raw.ask(get(d, **more)).result == 0
    assert wait_until_left(raw, d, 3, **more) == 3
    assert raw.ask(get(d, **more)).generation == 1
    assert int(server.statistics("namespace/ttl")["read_touch_success"]) == before + 1


def test_reads_renew_by_their_own_percentage(raw):
    d = digest(5010)
    wait_for_fraction(0.2)
    raw.ask(put(d, 1, ttl=10))
    time.sleep(1)
    raw.ask(get(d, ttl=80))
    raw.ask(get(d))
    assert left(raw, d) == 9, "9 of 10 s are more than 80 %"
    raw.ask(get(d, ttl=95))
    assert wait_until_left(raw, d, 10) == 10


def test_records_that_never_expire_are_not_touched(raw):
    d = digest(5011)
    raw.ask(put(d, 1))
    assert raw.ask(get(d, ttl=100)).void_time == 0 and left(raw, d) is None


# ---- Expiry in the background ----

def test_reductions_that_are_not_applied(own_server):
    node = own_server("namespace test { nsup-period 120\n apply-ttl-reductions false\n storage-engine memory\n}\n")
    with node.raw() as raw:
        raw.ask(put(digest(1), 1, ttl=1000))
        raw.ask(put(digest(1), 2, ttl=10))
        assert 998 <= left(raw, digest(1)) <= 1000
        raw.ask(put(digest(1), 2, ttl=2000))
        assert 1998 <= left(raw, digest(1)) <= 2000
    statistics = node.statistics("namespace/test")
    assert (statistics["ttl_reductions_ignored"], statistics["ttl_reductions_applied"]) == ("1", "0")


def test_default_without_nsup_is_no_configuration(own_server):
    node = own_server("namespace test { default-ttl 5\n storage-engine memory\n}\n", wait=False)
    code, log = node.end_with_failure()
    assert code == 2 and "nsup-period" in log
