"""More of the protocol by hand: framing, mixtures on one connection, compression, what info answers to odd lines."""
import os
import select
import struct
import time
import zlib

import pytest
from conftest import digest, field, frame, get, integer, message, operation, put


@pytest.fixture
def raw(server):
    with server.raw() as raw:
        yield raw


def compressed(*frames):
    whole = b"".join(frames)
    return frame(4, struct.pack(">Q", len(whole)) + zlib.compress(whole, 1))


def stays_open(raw):
    """Nothing comes and nothing ends within 0.2 s."""
    return not select.select([raw.socket], [], [], 0.2)[0]


# ---- Headers ----

@pytest.mark.parametrize("head", [
    "0200000000000000", "0206000000000000", "02ff000000000000", "0003000000000016", "0001000000000005", "0303000000000016",
    "ff03000000000016", "0201000008000001", "0202000008000001", "0204000008000001",
])
def test_headers_that_close(server, raw, head):
    raw.send(bytes.fromhex(head))
    assert raw.is_closed()
    assert server.info("status") == "ok"


@pytest.mark.parametrize("head", ["0203000008000000", "0201000000200000", "02", "02030000000000"])
def test_headers_that_wait(raw, head):
    raw.send(bytes.fromhex(head))
    assert stays_open(raw)


def test_no_memory_for_a_promise(server):
    """A header that announces 128 MiB costs nothing until the bytes come."""
    def resident():
        with open(f"/proc/{server.process.pid}/statm") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGESIZE")

    before = resident()
    raws = [server.raw() for _ in range(20)]
    for raw in raws:
        raw.send(bytes.fromhex("0203000008000000") + b"x" * 100)
    time.sleep(0.3)
    grown = resident() - before
    for raw in raws:
        raw.socket.close()
    assert grown < 16 << 20, f"{grown >> 20} MiB for 20 promises"


def test_security_of_version_0(raw):
    raw.send(b"\x00" + frame(2, bytes(16))[1:])
    kind, body = raw.frame()
    assert (kind, len(body), body[1]) == (2, 16, 52)


def test_security_with_fields(raw):
    """A login is answered as one: the client goes on without it."""
    login = bytes([0, 0, 20, 2]) + bytes(12) + field(0, b"admin") + field(3, b"$2a$10$7EqJtq98hPqEX7fNZaFWoO")
    raw.send(frame(2, login))
    kind, body = raw.frame()
    assert (kind, len(body), body[1], body[3]) == (2, 16, 52, 0)


def test_a_client_with_credentials_goes_on(server):
    import aerospike
    client = aerospike.client({"hosts": [("127.0.0.1", server.port)], "user": "someone", "password": "secret"}).connect()
    client.put(("test", "demo", "credentials"), {"a": 1})
    assert client.get(("test", "demo", "credentials"))[2] == {"a": 1}
    client.close()


def test_kinds_mix_in_one_segment(raw):
    d = digest(7001)
    raw.send(frame(1, b"status\n") + put(d, 5) + frame(2, bytes(16)) + compressed(get(d))
             + frame(1, b"partitions\n") + get(d))
    assert raw.frame() == (1, b"status\tok\n")
    assert raw.frame()[1][5] == 0
    assert raw.frame()[1][1] == 52
    assert raw.frame()[1][-8:] == integer(5)
    assert raw.frame() == (1, b"partitions\t4096\n")
    assert raw.frame()[1][-8:] == integer(5)


def test_malformed_messages_are_counted(server, raw):
    before = int(server.statistics()["demarshal_error"])
    for body in (b"", b"\x16" * 21, put(digest(7002), 1)[8:] + b"x"):
        assert raw.ask(frame(3, body)).result == 4
    assert raw.ask(put(digest(7002), 1)).result == 0
    assert int(server.statistics()["demarshal_error"]) == before + 3


def test_fields_in_any_order_and_last_update_times(raw):
    d = digest(7003)
    fields = [field(4, d), field(99, b"?"), field(1, b"raw"), field(0, b"test")]
    body = operation(2, 1, b"a", integer(3))
    timed = struct.pack(">IBBBB", 4 + 1 + 8 + 8, 2, 1, 1, 1) + b"b" + struct.pack(">Q", 500_000_000_000) + integer(4)
    head = struct.pack(">BBBBBBIIIHH", 22, 0, 1, 0, 0, 0, 0, 0, 1000, len(fields), 2)
    assert raw.ask(frame(3, head + b"".join(fields) + body + timed)).result == 0
    assert raw.ask(get(d)).bins == [("a", 1, integer(3)), ("b", 1, integer(4))]


def test_transactions_answer_16(raw):
    """Not a namespace with strong consistency."""
    assert raw.ask(put(digest(7004), 1, fields=[field(5, struct.pack("<Q", 77))])).result == 16
    assert raw.ask(get(digest(7004), fields=[field(5, struct.pack("<Q", 77))])).result == 16


# ---- Compression ----

def test_compression_that_does_not_pay_is_left(raw):
    d, noise = digest(7005), os.urandom(4000)
    raw.ask(message(d, [operation(2, 4, b"s", noise)], info2=1))
    raw.send(message(d, info1=3 | 0x80))
    kind, body = raw.frame()
    assert kind == 3 and body.endswith(noise)
    raw.ask(put(d, 1, name=b"s"))
    raw.send(message(d, info1=3 | 0x80))
    assert raw.frame()[0] == 3, "a small answer"


def test_a_large_compressed_request_keeps_its_place(raw):
    """It is inflated in several turns."""
    d = digest(7009)
    large = compressed(message(d, [operation(2, 4, b"s", b"x" * 900_000)], info2=1))
    raw.send(put(d, 1) + large + get(d))
    assert [raw.frame()[1][5] for _ in range(2)] == [0, 0]
    assert raw.frame()[1].endswith(b"x" * 900_000)


def test_answers_are_not_compressed_unasked(raw):
    d = digest(7006)
    assert raw.ask(compressed(message(d, [operation(2, 4, b"s", b"x" * 5000)], info2=1))).result == 0
    raw.send(compressed(get(d)))
    kind, body = raw.frame()
    assert kind == 3 and body.endswith(b"x" * 5000)


@pytest.mark.parametrize("make", [
    lambda: compressed(put(digest(7007), 1), put(digest(7007), 2)),
    lambda: compressed(frame(1, b"status\n")),
    lambda: compressed(compressed(put(digest(7007), 1))),
    lambda: frame(4, b""),
    lambda: frame(4, struct.pack(">Q", 200 << 20) + zlib.compress(bytes(1000))),
    lambda: frame(4, struct.pack(">Q", 100) + zlib.compress(bytes(64 << 20))),
    lambda: frame(4, struct.pack(">Q", 64 << 20) + zlib.compress(bytes(1000))),
])
def test_compression_that_is_not_one_message(server, make):
    with server.raw() as raw:
        raw.send(make())
        try:
            assert raw.frame()[1][5] == 4
        except (EOFError, ConnectionResetError):
            pass
    with server.raw() as raw:
        assert raw.ask(put(digest(7008), 1)).result == 0
        assert raw.ask(get(digest(7007))).result == 2, "and nothing of it was done"


# ---- Info lines ----

@pytest.mark.parametrize("body,answer", [
    (b"partitions\nstatus\n", b"partitions\t4096\nstatus\tok\n"),
    (b"partitions:\n", b"partitions:\t4096\n"),
    (b"x" * 31 + b"\n", b"x" * 31 + b"\tERROR:4:unrecognized command\n"),
    (b"x" * 32 + b"\n", b"x" * 32 + b"\tERROR:4:unrecognized command\n"),
    (b"status\nstatus\n", b"status\tok\nstatus\tok\n"),
])
def test_info_lines(raw, body, answer):
    raw.send(frame(1, body))
    assert raw.frame() == (1, answer)


def test_an_unterminated_line_and_nothing(raw):
    for body in (b"status\npartitions", b""):
        raw.send(frame(1, body))
        kind, answer = raw.frame()
        assert kind == 1
        assert answer in (b"status\tok\n", b"status\tok\npartitions\t4096\n") if body else True
    assert raw.info("status") == "ok"


def test_user_agent_once_per_connection(server, raw):
    command = "user-agent-set:value=MSxjLTcuNS4wLG15YXBw"
    assert raw.info(command) == "ok"
    assert raw.info(command).startswith("ERROR:4:")
    with server.raw() as other:
        assert other.info(command) == "ok"
        assert other.info("user-agent-set:").startswith("ERROR:4:")


def test_a_thousand_info_lines(raw):
    raw.send(frame(1, b"partitions\n" * 1000))
    assert raw.frame() == (1, b"partitions\t4096\n" * 1000)
