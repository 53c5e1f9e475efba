"""Nodes that find each other, agree on a view, and share the partitions. Each record has one node that serves it: copies
come with a later part."""
import base64
import re
import signal
import socket
import time

import aerospike
import pytest
from clusters import free_ports
from conftest import RawClient, Server, put

pytestmark = pytest.mark.memory_only
DETECTION = 0.05 * 4


def bitmap(text):
    data = base64.b64decode(text)
    return {number for number in range(4096) if data[number >> 3] & 0x80 >> (number & 7)}


def columns(node, command="replicas"):
    """The partitions in each column that a node publishes for namespace test."""
    name, rest = node.info(command).split(";")[0].split(":")
    regime, count, *maps = rest.split(",")
    assert (name, regime, int(count)) == ("test", "0", len(maps))
    return [bitmap(one) for one in maps]


def racks(node):
    fields = node.info("racks:").split(";")[0].split(":")
    assert fields[0] == "ns=test"
    return {name: set(nodes.split(",")) for name, nodes in (field.split("=") for field in fields[1:])}


# ---- Formation ----

def test_three_nodes_share_the_partitions(cluster):
    one = cluster(nodes=3)
    masters = [columns(node)[0] for node in one.nodes]
    assert set.union(*masters) == set(range(4096)) and sum(map(len, masters)) == 4096
    assert max(map(len, masters)) - min(map(len, masters)) <= 1, "uniform balance"
    copies = [set.union(*columns(node)) for node in one.nodes]
    assert sum(map(len, copies)) == 2 * 4096
    assert all(len(columns(node, "replicas:max=1")) == 1 for node in one.nodes)
    for node in one.nodes:
        statistics = node.statistics()
        assert statistics["cluster_principal"] == "A02" and statistics["cluster_is_member"] == "true"
        assert node.info("get-sl") == "A02,A01,A00"
        assert node.statistics("namespace/test")["ns_cluster_size"] == "3"
        assert node.statistics("namespace/test")["effective_replication_factor"] == "2"
        assert node.info("cluster-stable:size=3;ignore-migrations=true") == statistics["cluster_key"]
        assert node.info("cluster-stable:size=2").startswith("ERROR:7:")


def test_every_seed_leads_to_all_nodes(cluster):
    one = cluster(nodes=3)
    for seed in one.nodes:
        client = one.client(seed)
        assert len(client.get_node_names()) == 3
        for number in range(200):
            client.put(("test", "demo", f"{seed.number}-{number}"), {"n": number})
        client.close()
    for seed in one.nodes:
        client = one.client(seed)
        for other in one.nodes:
            for number in range(200):
                assert client.get(("test", "demo", f"{other.number}-{number}"))[2] == {"n": number}
        keys = [("test", "demo", f"0-{number}") for number in range(200)]
        rows = client.batch_read(keys).batch_records
        assert [row.record[2]["n"] for row in rows] == list(range(200))
        assert len(client.query("test", "demo").results()) == 600
        client.close()
    held = [int(node.statistics("namespace/test")["master_objects"]) for node in one.nodes]
    assert sum(held) == 600 and all(100 < count < 300 for count in held)


def test_what_is_not_served_here_answers_11(cluster):
    one = cluster(nodes=3)
    from conftest import digest
    for number in range(60):
        of = digest(number)
        partition = (of[0] | of[1] << 8) & 0xFFF
        for node in one.nodes:
            with RawClient(node.port) as raw:
                expected = 0 if partition in columns(node)[0] else 11
                assert raw.ask(put(of, number)).result == expected


def test_all_started_at_once_is_one_cluster(cluster):
    one = cluster(nodes=5)
    assert len({one.view(node) for node in one.nodes}) == 1


# ---- Peers ----

def test_peers_and_services(cluster):
    one = cluster(nodes=3)
    for node in one.nodes:
        others = [other for other in one.nodes if other is not node]
        generation, port, listed = re.fullmatch(r"(\d+),(\d+),(\[.*\])", node.info("peers-clear-std")).groups()
        assert generation == node.info("peers-generation") and port == "3000"
        expected = {f"[{one.id(other.number)},,[127.0.0.1:{other.port}]]" for other in others}
        assert set(re.findall(r"\[[0-9A-F]+,,\[[^]]*\]\]", listed)) == expected
        assert node.info(f"peers-clear-std:generation={generation}") == f"{generation},3000,[]"
        assert set(node.info("services").split(";")) == {f"127.0.0.1:{other.port}" for other in others}
        assert node.info("peers-tls-std") == f"{generation},3000,[]"


def test_departed_nodes_are_told_to_those_who_ask_for_changes(cluster):
    one = cluster(nodes=3)
    known = one.nodes[0].info("peers-generation")
    gone = one.nodes.pop()
    one.kill(gone)
    one.wait_for(one.nodes)
    node = one.nodes[0]
    changed = node.info(f"peers-clear-std:generation={known}")
    assert f"[{one.id(gone.number)},,]" in changed and changed.split(",")[0] == node.info("peers-generation")
    assert int(node.info("peers-generation")) > int(known)
    assert one.id(gone.number) not in node.info("peers-clear-std")
    assert one.id(gone.number) in node.info("alumni-clear-std") and str(gone.port) in node.info("services-alumni")
    assert node.info("services-alumni-reset") == "ok"
    assert one.id(gone.number) not in node.info("alumni-clear-std")


def test_where_nodes_listen(cluster):
    one = cluster(nodes=2)
    node, other = one.nodes
    endpoints = [pair.split("=", 1) for pair in node.info("endpoints").split(";")]
    named = dict(endpoints)
    assert named["service.port"] == str(node.port) and named["service.addresses"] == "127.0.0.1"
    assert named["heartbeat.port"] == str(one.heartbeats[0]) and named["fabric.port"] == str(one.fabrics[0])
    assert [value for name, value in endpoints if name == "heartbeat.mesh"] == [f"127.0.0.1:{port}" for port in one.heartbeats]
    assert named["fabric.peer"] == f"node-id={one.id(1)}:addresses=127.0.0.1:{one.fabrics[1]}"
    assert node.info("mesh") == f"127.0.0.1:{one.heartbeats[0]}" and other.info("mesh") == f"127.0.0.1:{one.heartbeats[1]}"
    assert node.info("mcast").startswith("ERROR:4:")


# ---- The roster ----

def test_a_roster_is_set_on_all_nodes_and_refused_without_half_of_it(cluster):
    one = cluster(nodes=2, racks=[1, 0])
    node, other = one.nodes
    nothing = "roster=null:pending_roster=null:observed_nodes=A01,A00@1"
    assert node.info("roster:namespace=test") == nothing and node.info("roster:") == "ns=test:" + nothing
    assert node.info("roster-set:namespace=test;nodes=a00@1,A01") == "ok"
    for one_node in one.nodes:
        assert one_node.info("roster:namespace=test") == "roster=null:pending_roster=A01,A00@1:observed_nodes=A01,A00@1"
        assert "roster is now A01@0,A00@1" in one_node.log
    key = one.view(node)[1]
    assert other.info("recluster:") == "ok"
    one.wait_for(one.nodes, other_than=key)
    assert {node.info("roster:") for node in one.nodes} == {
        "ns=test:roster=A01,A00@1:pending_roster=A01,A00@1:observed_nodes=A01,A00@1"}
    assert other.info("roster-set:namespace=test;nodes=A0A,A0B,A0C") == "ok"
    refused = node.info("roster-set:namespace=test;nodes=A00")
    assert refused.startswith("ERROR:4:0 of the 3 nodes of the roster before are here"), refused
    assert node.info("roster-set:namespace=test;nodes=A00;force=true") == "ok"
    assert node.info("roster-set:namespace=test;nodes=null") == "ok"
    assert "pending_roster=null" in other.info("roster:namespace=test")


# ---- Statistics ----

def test_streams_traffic_and_time_are_counted(cluster):
    one = cluster(nodes=3, service="ticker-interval 1\n")
    node = one.nodes[0]
    begun = time.monotonic()
    before = node.statistics()
    assert int(before["time_since_rebalance"]) <= int(before["uptime"]) <= 20
    for plane in ("heartbeat", "fabric"):
        opened, closed, standing = (int(before[f"{plane}_connections{end}"]) for end in ("_opened", "_closed", ""))
        assert opened - closed == standing == 4, "two for each peer"
    assert before["cluster_clock_skew_stop_writes_sec"] == "0"
    gone = one.nodes.pop()
    one.kill(gone)
    one.wait_for(one.nodes)
    after = node.statistics()
    for plane in ("heartbeat", "fabric"):
        assert int(after[f"{plane}_connections_closed"]) - int(before[f"{plane}_connections_closed"]) >= 2
    assert int(after["time_since_rebalance"]) <= time.monotonic() - begun
    deadline = time.monotonic() + 10
    seen = set()
    while time.monotonic() < deadline and len(seen) < 4:
        assert node.info("eviction-reset:namespace=test;ttl=%d" % (1000 + len(seen))) == "ok"
        assert one.nodes[1].info("recluster:") == "ok"
        time.sleep(0.2)
        rates = node.statistics()
        seen |= {name for name in rates if name.startswith("fabric_") and name.endswith("_rate") and int(rates[name]) > 0}
    assert seen == {f"fabric_{channel}_{way}_rate" for channel in ("ctrl", "meta") for way in ("send", "recv")}


def test_fresh_partitions_and_names_of_the_original(cluster):
    one = cluster(nodes=2)
    for node in one.nodes:
        statistics = node.statistics("namespace/test")
        for name in ("migrate_tx_instances", "migrate_rx_instances", "migrate_tx_partitions_imbalance", "migrate_signals_active",
                     "migrate_signals_remaining", "migrate_records_skipped", "migrate_records_transmitted",
                     "migrate_record_retransmits", "migrate_record_receives", "migrate_records_unreadable", "appeals_tx_active",
                     "appeals_rx_active", "appeals_tx_remaining", "appeals_records_exonerated"):
            assert statistics[name] == "0", name
        lead, remaining = (int(statistics[f"migrate_tx_partitions_{name}remaining"]) for name in ("lead_", ""))
        assert 0 <= lead <= remaining
    key = one.view(one.nodes[0])[1]
    assert one.nodes[1].info("recluster:") == "ok"
    one.wait_for(one.nodes, other_than=key)
    assert {node.statistics("namespace/test")["migrate_fresh_partitions"] for node in one.nodes} == {"0"}


# ---- Another id ----

def test_the_id_of_the_file_wins_and_stays(cluster):
    one = cluster(nodes=2)
    changed = one.nodes[0]
    assert changed.stop() == 0
    one.ids[0] = "CC"
    changed = one.restart(changed)
    one.wait_for(one.nodes)
    assert changed.info("node") == "CC" and "node-id=CC" in changed.info("get-config:context=service")
    changed.wait_for_log("node-id is CC, and this work directory belonged to node A00")
    assert one.nodes[1].info("get-sl") == "A01,CC"
    with open(f"{changed.directory}/var/node-id") as file:
        assert file.read() == "CC\nA00\n"


def test_a_node_alone_with_another_id_does_not_wait_for_itself(own_server):
    network = "service { address 127.0.0.1\n port 0\n}\nfabric { address 127.0.0.1\n port 0\n}\nheartbeat { port 0\n}\n"
    node = own_server(network=network, service="node-id B1\nstart-wait 10")
    assert node.stop() == 0
    for lines in ("node-id CC\n", ""):
        node = own_server(network=network, service=lines + "start-wait 10", directory=node.directory)
        assert node.info("node") == "CC" and node.stop() == 0
        assert ("belonged to node B1" in node.log) == bool(lines), "said once"


# ---- Departures ----

@pytest.mark.parametrize("victim", [0, 2])
def test_a_node_that_is_killed_departs(cluster, victim):
    """The lowest id, and the principal."""
    one = cluster(nodes=3)
    gone = one.nodes.pop(victim)
    before = {node: int(node.info("partition-generation")) for node in one.nodes}
    one.kill(gone)
    assert one.wait_for(one.nodes) < DETECTION + 1
    masters = [columns(node)[0] for node in one.nodes]
    assert set.union(*masters) == set(range(4096)) and sum(map(len, masters)) == 4096
    assert all(int(node.info("partition-generation")) > before[node] for node in one.nodes)


def test_a_node_killed_and_started_within_the_timeout_is_a_new_member(cluster):
    one = cluster(nodes=3, interval=100, timeout=20)
    key = one.view(one.nodes[0])[1]
    node = one.nodes[1]
    one.kill(node)
    one.restart(node)
    one.wait_for(one.nodes)
    assert one.view(one.nodes[0])[1] != key, "a new incarnation is a new view"


def test_a_node_that_is_told_to_stop_leaves_first(cluster):
    one = cluster(nodes=3)
    leaver = one.nodes.pop(1)
    leaver.process.send_signal(signal.SIGTERM)
    one.wait_for(one.nodes)
    assert leaver.process.wait(25) == 0, leaver.log
    assert "leaving the cluster" in leaver.log and "CRITICAL" not in leaver.log


def test_a_second_signal_stops_at_once(cluster):
    one = cluster(nodes=3)
    leaver = one.nodes[0]
    leaver.process.send_signal(signal.SIGTERM)
    leaver.wait_for_log("leaving the cluster")
    leaver.process.send_signal(signal.SIGTERM)
    leaver.process.wait(2)


def test_a_paused_node_comes_back(cluster):
    one = cluster(nodes=3)
    paused = one.nodes[2]
    one.kill(paused, signal.SIGSTOP)
    one.wait_for(one.nodes[:2])
    time.sleep(25 * DETECTION)
    one.kill(paused, signal.SIGCONT)
    one.wait_for(one.nodes)


def test_a_whole_cluster_starts_again(cluster):
    one = cluster(nodes=3)
    for node in one.nodes:
        one.kill(node)
    for node in list(one.nodes):
        one.restart(node)
    one.wait_for(one.nodes)


def test_a_truncate_reaches_nodes_that_are_away(cluster):
    """Also if only they know the set."""
    one = cluster(nodes=2)
    here, away = one.nodes
    away.process.send_signal(signal.SIGSTOP)
    try:
        one.wait_for([here])
        assert here.info("truncate:namespace=test;set=elsewhere") == "ok"
    finally:
        away.process.send_signal(signal.SIGCONT)
    one.wait_for(one.nodes)
    assert "elsewhere" in away.info("smd-show:module=truncate")


def test_a_start_waits_for_the_others_and_names_them(cluster):
    one = cluster(nodes=3)
    for node in one.nodes:
        one.kill(node)
    lone = one.restart(one.nodes[0])
    lone.wait_for_log("A01.*A02|A02.*A01")
    assert "service ready" not in lone.log
    for node in one.nodes[1:]:
        one.restart(node)
    one.wait_for(one.nodes)


def test_clients_live_through_a_departure(cluster):
    """After the view every partition is served again; until then a write may wait or fail, and no read is wrong."""
    one = cluster(nodes=3)
    client = one.client()
    gone = one.nodes.pop(0)
    one.kill(gone)
    one.wait_for(one.nodes)
    time.sleep(1.5)
    for number in range(200):
        key = ("test", "demo", f"after-{number}")
        client.put(key, {"n": number})
        assert client.get(key)[2] == {"n": number}
    assert len(client.get_node_names()) == 2
    client.close()


# ---- Racks ----

def test_copies_are_on_different_racks(cluster):
    one = cluster(nodes=4, racks=[1, 1, 2, 2])
    for node in one.nodes:
        assert racks(node) == {"rack_1": {"A00", "A01"}, "rack_2": {"A02", "A03"}}
        assert node.info("rack-ids") == f"test:{one.racks[node.number]}"
    for rack in (1, 2):
        held = [set.union(*columns(node)) for node in one.nodes if one.racks[node.number] == rack]
        assert set.union(*held) == set(range(4096)) and sum(map(len, held)) == 4096, "each rack has one copy of everything"


def test_a_rack_changes_with_the_next_view(cluster):
    one = cluster(nodes=3, racks=[1, 2, 3])
    node = one.nodes[0]
    assert node.info("set-config:context=namespace;namespace=test;rack-id=9") == "ok"
    assert "rack_9" not in racks(one.nodes[1])
    answers = {other.number: other.info("recluster:") for other in one.nodes}
    assert answers == {0: "ignored-by-non-principal", 1: "ignored-by-non-principal", 2: "ok"}
    deadline = time.monotonic() + 5
    while time.monotonic() < deadline and any("rack_9" not in racks(other) for other in one.nodes):
        time.sleep(0.02)
    assert all(racks(other) == {"rack_9": {"A00"}, "rack_2": {"A01"}, "rack_3": {"A02"}} for other in one.nodes)


def test_the_active_rack_has_all_masters(cluster):
    one = cluster(nodes=3, racks=[1, 2, 2], settings="active-rack 2\n")
    assert columns(one.nodes[0])[0] == set(), "the copies are there"
    assert columns(one.nodes[1])[0] | columns(one.nodes[2])[0] == set(range(4096))
    for node in one.nodes:
        assert node.statistics("namespace/test")["effective_active_rack"] == "2"
    # Where nodes differ the lowest holds, whatever a node itself is set to.
    assert one.nodes[0].info("set-config:context=namespace;namespace=test;active-rack=0") == "ok"
    assert one.nodes[2].info("recluster:") == "ok"
    deadline = time.monotonic() + 5
    while time.monotonic() < deadline and one.nodes[2].statistics("namespace/test")["effective_active_rack"] != "0":
        time.sleep(0.02)
    one.wait_for(one.nodes)
    assert [node.statistics("namespace/test")["effective_active_rack"] for node in one.nodes] == ["0"] * 3
    assert columns(one.nodes[0])[0] != set()


def test_a_quiesced_node_serves_nothing_after_the_next_view(cluster):
    one = cluster(nodes=3)
    node = one.nodes[1]
    assert node.info("quiesce:") == "ok"
    assert node.statistics("namespace/test")["pending_quiesce"] == "true"
    assert one.nodes[2].info("recluster:") == "ok"
    deadline = time.monotonic() + 5
    while time.monotonic() < deadline and one.nodes[0].statistics("namespace/test")["nodes_quiesced"] != "1":
        time.sleep(0.02)
    one.wait_for(one.nodes)
    assert node.statistics("namespace/test")["effective_is_quiesced"] == "true"
    assert columns(node)[0] == set(), "fresh partitions move at once: nobody has records"
    assert node.info("quiesce-undo:") == "ok" and one.nodes[2].info("recluster:") == "ok"


# ---- What is wrong is named ----

def test_a_node_of_another_cluster_is_named(cluster):
    one = cluster(nodes=3, names=["blue", "blue", "green"], wait=False)
    one.wait_for(one.nodes[:2])
    one.wait_for(one.nodes[2:])
    node = one.nodes[0]
    node.wait_for_log("green")
    assert int(node.statistics()["heartbeat_received_foreign"]) > 0
    assert "green" in node.info("cluster-problems")


def test_differing_settings_are_named(cluster):
    one = cluster(nodes=2)
    assert one.nodes[0].info("set-config:context=namespace;namespace=test;replication-factor=1") == "ok"
    assert one.nodes[1].info("recluster:") == "ok"
    for node in one.nodes:
        deadline = time.monotonic() + 5
        while time.monotonic() < deadline and "replication-factor" not in node.info("cluster-problems"):
            time.sleep(0.02)
        assert "replication-factor" in node.info("cluster-problems") and "replication-factor" in node.log
        assert node.statistics("namespace/test")["effective_replication_factor"] == "1", "the lowest holds"


def test_the_least_record_size_holds_on_all(cluster):
    """Who would take more than another could make records of which there are no copies."""
    one = cluster(nodes=3)
    client = one.client()

    def refused():
        count = 0
        for number in range(30):
            try:
                client.put(("test", "s", f"large-{number}"), {"b": bytes(100_000)})
            except aerospike.exception.RecordTooBig:
                count += 1
        return count

    def wait_for_refused(wanted):
        deadline = time.monotonic() + 10
        while (count := refused()) != wanted:
            assert time.monotonic() < deadline, count
            time.sleep(0.05)

    assert refused() == 0
    least = one.nodes[0]
    assert least.info("set-config:context=namespace;namespace=test;max-record-size=64K") == "ok"
    for node in one.nodes:
        node.info("recluster:")
    wait_for_refused(30)
    for node in one.nodes:
        assert "max-record-size is 65536 on A00, 1048576 on A01 and A02: 65536 is used" in node.info("cluster-problems")
    one.kill(least)
    one.nodes.remove(least)
    one.wait_for(one.nodes)
    client.close()
    client = one.client()
    wait_for_refused(0)
    client.close()


def test_who_is_in_no_view_says_why_and_refuses_at_once(cluster):
    one = cluster(nodes=2, wait=False, service="min-cluster-size 2\n")
    one.wait_for(one.nodes)
    other = one.nodes.pop()
    one.kill(other)
    node = one.nodes[0]
    deadline = time.monotonic() + 10
    while "this node belongs to no view: there are 1 nodes, min-cluster-size is 2" not in node.info("cluster-problems"):
        assert time.monotonic() < deadline, node.info("cluster-problems")
        time.sleep(0.02)
    begun = time.monotonic()
    assert "belongs to no view" in node.info("truncate-namespace:namespace=test")
    assert time.monotonic() - begun < 5, "it does not wait for a view"


@pytest.mark.parametrize("block", ["heartbeat", "fabric"])
def test_a_port_in_use_is_named(own_server, block):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        ports = {"heartbeat": 0, "fabric": 0, block: port}
        network = "service { address 127.0.0.1\n port 0\n}\n" + "".join(
            f"{name} {{ address 127.0.0.1\n port {number}\n}}\n" for name, number in ports.items())
        node = own_server(network=network, wait=False)
        code, log = node.end_with_failure()
        assert code == 1 and f"127.0.0.1:{port} is in use by another process" in log and f"network.{block}" in log


# ---- A node alone ----

def test_a_node_with_listeners_and_no_seeds_serves_alone(own_server):
    heartbeat, = free_ports(1)
    node = own_server(network="service { address 127.0.0.1\n port 0\n}\nfabric { address 127.0.0.1\n port 0\n}\n"
                      f"heartbeat {{ address 127.0.0.1\n port {heartbeat}\n}}\n")
    statistics = node.statistics()
    assert statistics["cluster_size"] == "1" and statistics["cluster_integrity"] == "true"
    assert columns(node) == [set(range(4096))]
    assert node.info("set-config:context=network;heartbeat.interval=100") == "ok"
    assert "heartbeat.interval=100" in node.info("get-config:context=network")


def test_noise_on_the_ports_of_the_cluster_harms_nobody(cluster):
    one = cluster(nodes=2)
    for _ in range(20):
        with socket.create_connection(("127.0.0.1", one.heartbeats[0])) as noise:
            noise.sendall(b"GET / HTTP/1.1\r\nHost: nobody\r\n\r\n" + bytes(range(256)) * 64)
    time.sleep(0.2)
    assert one.view(one.nodes[0])[0] == "2"
    one.wait_for(one.nodes)


@pytest.mark.parametrize("command, code", [
    ("tip:", "ERROR:4:"), ("tip:host=127.0.0.1", "ERROR:4:"), ("tip:host=127.0.0.1;port=x", "ERROR:4:"),
    ("tip:host=127.0.0.1;port=3002;tls=true", "ERROR:4:"), ("tip-clear:host-port-list=nobody", "ERROR:4:"),
    ("partition-explain:namespace=test", "ERROR:4:"), ("partition-explain:namespace=none;partition=1", "ERROR:20:"),
    ("partition-explain:namespace=test;partition=4096", "ERROR:4:"), ("replicas:max=x", "ERROR:4:"),
    ("peers-clear-std:generation=x", "ERROR:4:"), ("cluster-stable:namespace=none", "ERROR:20:"),
    ("racks:namespace=none", "ERROR:20:"), ("cluster-stable:size=x", "ERROR:4:bad 'size'"),
    ("cluster-stable:size=", "ERROR:4:"), ("cluster-stable:size=-1", "ERROR:4:"),
    ("cluster-stable:ignore-migrations=maybe", "ERROR:4:bad 'ignore-migrations'"), ("mesh", "ERROR:4:"), ("mcast", "ERROR:4:"),
    ("roster:namespace=none", "ERROR:20:"), ("roster-set:namespace=none;nodes=A1", "ERROR:20:"), ("roster-set:nodes=A1", "ERROR:20:"),
    ("roster-set:namespace=test", "ERROR:4:missing 'nodes'"), ("roster-set:namespace=test;nodes=xyz", "ERROR:4:bad 'nodes'"),
    ("roster-set:namespace=test;nodes=A1,A1", "ERROR:4:bad"), ("roster-set:namespace=test;nodes=M1|A1", "ERROR:4:bad"),
    ("roster-set:namespace=test;nodes=A1;force=maybe", "ERROR:4:bad 'force'"),
    ("set-config:context=service;cluster-name=green", "ERROR:4:'cluster-name' cannot change while the node runs"),
])
def test_refusals(server, command, code):
    assert server.info(command).startswith(code)


def test_a_tip_joins_what_had_no_seeds(cluster):
    one = cluster(nodes=2)
    heartbeat, = free_ports(1)
    lone = Server("namespace test { storage-engine memory\n}\n", threads=1, service="cluster-name blue\nnode-id A0F",
                  network="service { address 127.0.0.1\n port 0\n}\nfabric { address 127.0.0.1\n port 0\n}\n"
                  f"heartbeat {{ address 127.0.0.1\n port {heartbeat}\n interval 50\n timeout 4\n}}\n")
    lone.number = 15
    one.nodes.append(lone)
    assert lone.info(f"tip:host=127.0.0.1;port={one.heartbeats[0]}") == "ok"
    one.wait_for(one.nodes)
    assert lone.info("tip-clear:host-port-list=all") == "ok"


def test_partitions_are_explained(cluster):
    one = cluster(nodes=2)
    text = one.nodes[0].info("partition-explain:namespace=test;partition=7")
    assert "partition 7" in text and "A00" in text and "A01" in text
    rows = one.nodes[0].info("partition-info").split(";")
    header = rows[0].split(":")
    assert len(rows) == 4097 and all(len(row.split(":")) == len(header) for row in rows)
    masters = {row.split(":")[header.index("working_master")] for row in rows[1:]}
    assert masters == {"A00", "A01"}
