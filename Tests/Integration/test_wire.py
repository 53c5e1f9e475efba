"""The protocol by hand: framing, order, refusals, clients that misbehave."""
import select
import socket
import struct
import time
import zlib

import pytest
from conftest import RawClient, delete, digest, field, frame, get, integer, message, operation, put

WELL = bytes.fromhex("b747f5854d0b33259928d0cfab7fad81d6abfbf6")


def serves(node):
    """A whole write and read, on a connection of its own."""
    with node.raw() as raw:
        assert raw.ask(put(digest(999), 7)).result == 0
        return raw.ask(get(digest(999))).bins == [("a", 1, integer(7))]


def test_golden_vectors(server):
    with server.raw() as raw:
        raw.ask(delete(WELL, set_name=b"demo"))
        put_frame = message(WELL, [operation(2, 1, b"a", integer(5))], info2=1, set_name=b"demo")
        assert put_frame.hex() == (
            "02030000000000521600010000000000000000000000000003e800030001000000050074657374000000050164656d6f"
            "0000001504b747f5854d0b33259928d0cfab7fad81d6abfbf60000000d02010001610000000000000005")
        raw.send(put_frame)
        assert raw.receive(30).hex() == "020300000000001616000000000000000001000000000000000000000000"
        raw.send(get(WELL, set_name=b"demo"))
        assert raw.receive(47).hex() == (
            "0203000000000027160000000000000000010000000000000000000000010000000d01010001610000000000000005")
        raw.send(get(digest(123456)))
        assert raw.receive(30).hex() == "020300000000001616000000000200000000000000000000000000000000"


def test_many_requests_in_one_segment_are_answered_in_order(server):
    with server.raw() as raw:
        requests = [put(digest(1), number) + get(digest(1)) for number in range(500)]
        raw.send(b"".join(requests))
        for number in range(500):
            kind, body = raw.frame()
            assert body[5] == 0
            kind, body = raw.frame()
            assert body[-8:] == integer(number)


def test_bytes_one_by_one(server):
    with server.raw() as raw:
        for byte in put(digest(2), 5) + get(digest(2)):
            raw.send(bytes([byte]))
        assert raw.frame()[1][5] == 0
        assert raw.frame()[1][-8:] == integer(5)


def test_requests_cut_anywhere(server):
    stream = b"".join(put(digest(3), number) for number in range(20))
    for size in (1, 7, 8, 9, 29, 30, 31, 89, 90, 91, 500):
        with server.raw() as raw:
            for start in range(0, len(stream), size):
                raw.send(stream[start:start + size])
            for _ in range(20):
                assert raw.frame()[1][5] == 0


@pytest.mark.parametrize("head", [
    "0103000000000000", "0203000008000001", "0203ffffffffffff", "0205000000000000", "1603010200010001", "474554202f204854",
])
def test_what_is_not_the_protocol_closes(server, head):
    with server.raw() as raw:
        raw.send(bytes.fromhex(head))
        assert raw.is_closed()
    assert serves(server)


def test_lying_lengths_answer_4(server):
    whole = put(digest(4), 5)
    body = bytearray(whole[8:])
    lies = []
    for offset, value in [(18, 0xFFFF), (20, 0xFFFF), (18, 2), (18, 0)]:
        lie = bytearray(body)
        struct.pack_into(">H", lie, offset, value)
        lies.append(lie)
    for offset in (22, 31, len(body) - 17):
        for value in (0, 1, 0x7FFFFFFF, 0xFFFFFFFF):
            lie = bytearray(body)
            struct.pack_into(">I", lie, offset, value)
            lies.append(lie)
    lies += [body[:10], body + b"x", b""]
    with server.raw() as raw:
        for lie in lies:
            answer = raw.ask(frame(3, bytes(lie)))
            assert answer.result == 4, bytes(lie).hex()
        assert raw.ask(whole).result == 0


def test_security_answers_52(server):
    with server.raw() as raw:
        raw.send(frame(2, bytes(16)))
        kind, body = raw.frame()
        assert kind == 2 and len(body) == 16 and body[1] == 52
        assert raw.ask(put(digest(5), 5)).result == 0


def test_later_features_answer_16(server):
    d = digest(6)
    later = [
        message(d, info2=1, fields=[field(30, b"pkg"), field(31, b"f"), field(32, b"\x90")]),
        message(d, [operation(4, 4, b"l", bytes.fromhex("9401070000"))], info2=1),
        message(d, [operation(3, 4, b"l", b"\x91\x10")], info1=1),
        message(d, [operation(13, 4, b"l", b"\x91\x10")], info2=1),
    ]
    with server.raw() as raw:
        assert raw.ask(put(d, 1)).result == 0
        for number, request in enumerate(later):
            assert raw.ask(request).result == 16, number
        # A query: no digest. Its stream of answers ends at once.
        head = struct.pack(">BBBBBBIIIHH", 22, 3, 0, 0, 0, 0, 0, 0, 1000, 1, 0)
        answer = raw.ask(frame(3, head + field(0, b"test")))
        assert answer.result == 16 and answer.info3 & 1


def test_unknown_namespace_answers_20(server):
    with server.raw() as raw:
        assert raw.ask(get(digest(7), namespace=b"nowhere")).result == 20
        assert raw.ask(get(digest(7), namespace=b"tes")).result == 20


def test_compressed_both_ways(server):
    with server.raw() as raw:
        whole = message(digest(8), [operation(2, 3, b"s", b"x" * 5000)], info2=1)
        assert raw.ask(frame(4, struct.pack(">Q", len(whole)) + zlib.compress(whole))).result == 0
        raw.send(message(digest(8), info1=3 | 0x80))
        kind, body = raw.frame()
        assert kind == 4 and len(body) < 500
        answer = zlib.decompress(body[8:])
        assert len(answer) == struct.unpack(">Q", body[:8])[0] and answer.endswith(b"x" * 5000)


@pytest.mark.parametrize("damage", ["stream", "size", "inner"])
def test_damaged_compression_closes(server, damage):
    whole = put(digest(9), 5)
    packed, size = zlib.compress(whole), len(whole)
    if damage == "stream":
        packed = packed[:5] + bytes([packed[5] ^ 0xFF]) + packed[6:]
    elif damage == "size":
        size = 1 << 50
    else:
        packed, size = zlib.compress(whole[:-1]), len(whole) - 1
    with server.raw() as raw:
        raw.send(frame(4, struct.pack(">Q", size) + packed))
        assert raw.is_closed()
    assert serves(server)


def test_info_lines(server):
    with server.raw() as raw:
        raw.send(frame(1, b"node\nnonsense\nstatus\n"))
        lines = raw.frame()[1].decode().split("\n")
        assert lines[1] == "nonsense\tERROR:4:unrecognized command"
        assert lines[2] == "status\tok" and lines[3] == ""


def test_half_close_still_gets_its_answers(server):
    with server.raw() as raw:
        raw.send(b"".join(put(digest(10), number) for number in range(300)))
        raw.socket.shutdown(socket.SHUT_WR)
        for _ in range(300):
            assert raw.frame()[1][5] == 0
        assert raw.is_closed()


def test_a_client_that_does_not_read_is_held_back(server):
    with server.raw() as raw:
        raw.send(message(digest(11), [operation(2, 4, b"x", b"y" * 900_000)], info2=1))
        assert raw.frame()[1][5] == 0
        before = server.anonymous_kilobytes()
        raw.socket.setblocking(False)
        asked = 0
        deadline = time.monotonic() + 2
        while time.monotonic() < deadline:
            _, writable, _ = select.select([], [raw.socket], [], 0.1)
            if not writable:
                break
            try:
                asked += raw.socket.send(get(digest(11)) * 50)
            except BlockingIOError:
                break
        assert serves(server), "the others go on"
        grown = server.anonymous_kilobytes() - before
        assert grown < 64 << 10, f"{grown} KiB for one client that does not read"
        # And when it reads again, everything it asked for comes.
        raw.socket.settimeout(10)
        count = asked // len(get(digest(11)))
        for _ in range(min(count, 200)):
            assert len(raw.frame()[1]) > 900_000


def test_more_connections_than_allowed(own_server):
    node = own_server(service="proto-fd-max 100")
    used = node.raw()
    assert used.ask(put(digest(12), 1)).result == 0
    half_open = [RawClient(node.port) for _ in range(99)]
    for raw in half_open:
        raw.send(b"\x02\x03\x00\x00")
    refused = [RawClient(node.port) for _ in range(200)]
    assert all(raw.is_closed() for raw in refused)
    assert used.ask(get(digest(12))).result == 0
    for raw in half_open + refused:
        raw.socket.close()
    deadline = time.monotonic() + 5
    while time.monotonic() < deadline:
        try:
            if serves(node):
                break
        except (EOFError, ConnectionError):
            time.sleep(0.05)
    assert serves(node)
    statistics = node.statistics()
    assert int(statistics["refused_connections"]) == 200
    used.socket.close()


def test_thousands_of_half_open_connections(own_server):
    """proto-fd-max connections that have sent half a header, and 5,000 more that are turned away: one is still served."""
    node = own_server(service="proto-fd-max 2000", descriptors=8192)
    used = node.raw()
    half_open = []
    for _ in range(1999):
        raw = RawClient(node.port)
        raw.send(b"\x02\x03")
        half_open.append(raw)
    for _ in range(5000):
        extra = socket.create_connection(("127.0.0.1", node.port), timeout=10)
        extra.close()
    assert used.ask(put(digest(13), 1)).result == 0 and used.ask(get(digest(13))).result == 0
    for raw in half_open:
        raw.socket.close()
    used.socket.close()


@pytest.mark.memory_only
def test_digests_of_one_bucket(own_server):
    """100,000 chosen digests; another client's latency stays that of a look-up."""
    node = own_server()
    with node.raw() as raw, node.raw() as other:
        assert other.ask(put(digest(14), 1)).result == 0
        for start in range(0, 100_000, 1000):
            chosen = [b"\x05\x00\x00\x00\x00\x00\x00\x00" + struct.pack(">QI", 0, number)
                      for number in range(start, start + 1000)]
            raw.send(b"".join(put(one, 1) for one in chosen))
            for _ in chosen:
                assert raw.frame()[1][5] == 0
            assert other.ask(get(digest(14))).result == 0
        raw.send(get(chosen[500]))
        assert raw.frame()[1][5] == 0
    assert node.statistics("namespace/test")["objects"] == "100001"


def test_answers_over_all_bounds(own_server):
    """One bin read 140 times in one request, and pipelined large reads: bounded, and what was taken is given back."""
    node = own_server(threads=1)
    one = digest(17)
    with node.raw() as raw, node.raw() as other:
        assert raw.ask(message(one, [operation(2, 4, b"x", b"y" * 1_000_000)], info2=1)).result == 0
        assert raw.ask(message(one, [operation(1, 0, b"x")] * 140, info1=1)).result == 13
        raw.send(message(one, [operation(1, 0, b"x")] * 12, info1=1) * 64)
        time.sleep(0.3)
        assert other.ask(get(one)).result == 0
        assert node.anonymous_kilobytes() < 150_000
        for _ in range(64):
            assert len(raw.frame()[1]) > 12_000_000
    time.sleep(0.2)
    assert node.anonymous_kilobytes() < 100_000


@pytest.mark.parametrize("body", [b"namespace/test\n" * 32_000, b"x" * (3 << 20), b"node\n" * 2000])
def test_info_requests_that_ask_for_too_much(server, body):
    with server.raw() as raw:
        try:
            raw.send(frame(1, body))
        except ConnectionError:
            pass  # closed while it was being sent
        else:
            assert raw.is_closed()
    assert serves(server)


def test_memory_of_a_compressed_frame_is_given_back(own_server):
    node = own_server(threads=1)
    whole = frame(3, bytes(100 << 20))
    with node.raw() as raw:
        assert raw.ask(frame(4, struct.pack(">Q", len(whole)) + zlib.compress(whole, 9))).result == 4
        assert raw.ask(put(digest(18), 1)).result == 0
        assert node.anonymous_kilobytes() < 80_000


def test_info_takes_turns(own_server):
    """Frames of 1000 slow lines, pipelined: the others are served in between."""
    node = own_server(threads=1)
    with node.raw() as raw, node.raw() as other:
        raw.send(frame(1, b"statistics\n" * 200) * 12)
        waits = []
        for number in range(20):
            begun = time.monotonic()
            assert other.ask(put(digest(19), number)).result == 0
            waits.append(time.monotonic() - begun)
        for _ in range(12):
            assert raw.frame()[0] == 1
    assert sorted(waits)[10] < 0.5


def test_idle_connections_are_closed(own_server):
    node = own_server(service="proto-fd-idle-ms 500")
    with node.raw() as raw:
        assert raw.ask(put(digest(15), 1)).result == 0
        raw.socket.settimeout(4)
        assert raw.is_closed()
    assert int(node.statistics()["reaped_fds"]) >= 1


def test_integers_of_other_widths(server):
    with server.raw() as raw:
        for width, value in [(1, 200), (2, 40_000), (4, 3_000_000_000)]:
            raw.ask(message(digest(16), [operation(2, 1, b"n", value.to_bytes(width, "big"))], info2=1))
            assert raw.ask(get(digest(16))).bins == [("n", 1, integer(value))]
        assert raw.ask(message(digest(16), [operation(2, 1, b"n", b"abc")], info2=1)).result == 4
