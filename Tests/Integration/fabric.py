"""What nodes say to each other, by hand (docs/formats.md, "Heartbeat and fabric streams")."""
import struct

MAGIC = 0x41504653
HELLO, PULSE, INTRODUCTION, VIEW, METADATA = range(1, 6)
HEARTBEAT_PORT, FABRIC_PORT = 1, 2


def _row(value):
    for _ in range(8):
        value = value >> 1 ^ (0x82F63B78 if value & 1 else 0)
    return value


TABLE = [_row(value) for value in range(256)]


def crc32c(data):
    value = 0xFFFFFFFF
    for byte in data:
        value = value >> 8 ^ TABLE[(value ^ byte) & 0xFF]
    return value ^ 0xFFFFFFFF


def header(kind, size, body=b"", format=1):
    """Of a frame that announces a body of `size` bytes."""
    head = struct.pack(">IBBHI", MAGIC, format, kind, 0, size)
    return head + struct.pack(">I", crc32c(head + body))


def frame(kind, body, format=1):
    return header(kind, len(body), body, format) + body


def varint(value):
    data = bytearray()
    while value >= 0x80:
        data.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*data, value])


def blob(data):
    return varint(len(data)) + data


def addresses(*pairs):
    return varint(len(pairs)) + b"".join(blob(host.encode()) + struct.pack(">H", port) for host, port in pairs)


def hello(port, node=0xB00, incarnation=7, stream=1, cluster="blue", heartbeat=("127.0.0.1", 9), fabric=("127.0.0.1", 9)):
    """Who speaks. Nobody listens where it says that it is."""
    return frame(HELLO, struct.pack(">QQB", node, incarnation, port) + varint(stream) + blob(cluster.encode())
                 + addresses(heartbeat) + addresses(fabric))
