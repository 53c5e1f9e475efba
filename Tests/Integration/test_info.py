"""Info commands: grammar, and that what they say is true."""
import base64

from conftest import ENGINE, delete, digest, get, put

TEND = ["node", "build", "edition", "features", "cluster-name", "partitions", "partition-generation", "rebalance-generation",
        "peers-generation", "peers-clear-std", "peers-clear-alt", "peers-tls-std", "service-clear-std",
        "service-clear-alt", "service-tls-std", "replicas", "replicas:max=1", "rack-ids", "racks:"]


def test_what_clients_ask_while_tending(server):
    answers = {command: server.info(command) for command in TEND}
    assert not [a for a in answers.values() if a.startswith("ERROR")], answers
    assert len(answers["node"]) >= 8 and answers["node"] == answers["node"].upper()
    assert answers["partitions"] == "4096" and answers["partition-generation"] == "1"
    assert answers["service-clear-std"] == f"127.0.0.1:{server.port}"
    assert answers["peers-clear-std"] == "0,3000,[]"
    assert answers["build"].split(".")[0] == "8"


def test_this_node_is_master_of_everything(server):
    entries = server.info("replicas").split(";")
    assert [entry.split(":")[0] for entry in entries] == ["test", "ttl", "small"]
    for entry in entries:
        regime, columns, bitmap = entry.split(":")[1].split(",")
        assert (regime, columns) == ("0", "1") and base64.b64decode(bitmap) == b"\xff" * 512


def test_status_and_namespaces(server):
    assert server.info("status") == "ok"
    assert server.info("namespaces") == "test;ttl;small"
    assert server.info("namespace/nowhere") == "type=unknown"
    assert server.info("connection") == "admin=false"


def test_counters_count(server, client):
    def counters():
        return {name: int(value) for name, value in server.statistics("namespace/test").items() if value.isdigit()}

    before = counters()
    with server.raw() as raw:
        for number in range(7):
            assert raw.ask(put(digest(1000 + number), 1)).result == 0
        for number in range(5):
            assert raw.ask(get(digest(1000 + number))).result == 0
        for number in range(3):
            assert raw.ask(get(digest(2000 + number))).result == 2
        for number in range(2):
            assert raw.ask(delete(digest(1000 + number))).result == 0
        assert raw.ask(delete(digest(2000))).result == 2
        assert raw.ask(put(digest(1003), 1, generation=9, info2=5) if False else put(digest(1003), 1)).result == 0
    after = counters()
    changed = {name: after[name] - before[name] for name in after if name in before and after[name] != before[name]}
    changed.pop("current_time", None)
    assert changed["client_write_success"] == 8
    assert changed["client_read_success"] == 5 and changed["client_read_not_found"] == 3
    assert changed["client_delete_success"] == 2 and changed["client_delete_not_found"] == 1
    assert changed["objects"] == 5 and changed["master_objects"] == 5
    assert changed["data_used_bytes"] > 0
    assert "client_write_error" not in changed and "client_read_error" not in changed


def test_errors_are_counted(server):
    before = int(server.statistics("namespace/small")["client_write_error"])
    with server.raw() as raw:
        assert raw.ask(put(digest(1), 1, namespace=b"small", set_name=b"")).result == 4
    assert int(server.statistics("namespace/small")["client_write_error"]) == before + 1


def test_node_statistics(server):
    with server.raw():
        statistics = server.statistics()
    assert int(statistics["client_connections"]) >= 2 and statistics["cluster_size"] == "1"
    assert int(statistics["uptime"]) < 600 and 10_000 < int(statistics["process_rss_kbytes"]) < 4_000_000
    assert statistics["cluster_integrity"] == "true"


def test_settings(server):
    service = server.statistics("get-config:context=service")
    assert service["proto-fd-max"] == "15000" and service["service-threads"] == "2"
    namespace = server.statistics("get-config:context=namespace;namespace=small")
    assert namespace["max-record-size"] == "2048" and namespace["storage-engine"] == ENGINE
    assert namespace["disallow-null-setname"] == "true"
    assert server.info("get-config:context=namespace;namespace=nowhere").startswith("ERROR:20")
    assert server.info("get-config:context=nonsense").startswith("ERROR:4")
    assert "service.address=127.0.0.1" in server.info("get-config:context=network")


def test_latencies_have_entries_for_every_namespace(server):
    names = [entry.split(":")[0] for entry in server.info("latencies:").split(";")]
    assert "{test}-read" in names and "{small}-write" in names
    assert server.info("latencies:hist={test}-read").startswith("{test}-read:")
    assert server.info("latencies:hist=nonsense").startswith("ERROR:4")


def test_latencies_are_measured(own_server):
    node = own_server(service="ticker-interval 1")
    with node.raw() as raw:
        for _ in range(4):
            for number in range(50):
                raw.ask(put(digest(number), 1))
            node.wait_for_log("objects 50")
            entry = node.info("latencies:hist={test}-write").split(":", 1)[1]
            if entry:
                break
            import time
            time.sleep(1)
    unit, rate, *shares = entry.split(",")
    assert unit == "msec" and float(rate) > 0 and len(shares) == 17
    assert all(float(a) >= float(b) for a, b in zip(shares, shares[1:]))


def test_logs(server):
    assert server.info("logs") == "0:stderr"
    assert "service:INFO" in server.info("log/0")
    assert server.info("log-set:id=0;rw=detail") == "ok" and server.info("log/0/rw") == "rw:DETAIL"
    assert server.info("log-set:id=0;rw=info") == "ok"
    assert server.info("log-set:id=0;nonsense=info").startswith("ERROR:4")
    assert server.info("log/9").startswith("ERROR")
