"""Choosing a backend: what a configuration may say, what is refused and how, plugins as shared objects."""
import os
import shutil
import subprocess

import pytest
from conftest import BINARY, ENGINES, FULL, LMDB, ROOT, Server, digest, get, needs_full, plugin_block, put

pytestmark = [pytest.mark.memory_only, needs_full]
SOURCES = os.path.join(ROOT, "Tests", "Integration", "plugins")
SERVE = [FULL, "serve", "--config"]


@pytest.fixture(scope="module")
def plugins(tmp_path_factory):
    """Every file of plugins/ as a shared object, by name."""
    folder = tmp_path_factory.mktemp("plugins")
    built = {}
    for source in os.listdir(SOURCES):
        name = source.removesuffix(".c")
        built[name] = str(folder / f"{name}.so")
        subprocess.run(["gcc", "-shared", "-fPIC", "-Wall", "-Werror", f"-I{ROOT}/Sources/Backends/CBackend/include",
                        os.path.join(SOURCES, source), "-o", built[name]], check=True)
    return built


def refused(namespaces, command=None, directory=None):
    """Exit code and message of a node that does not start."""
    node = Server(namespaces, command=command or SERVE, wait=False, directory=directory)
    return node.end_with_failure()


def namespace(name, engine, *more):
    return f"namespace {name} {{ {' '.join(more)}\n storage-engine {engine}\n}}\n"


def tree(path):
    """Every file below, with its bytes."""
    found = {}
    for folder, _, names in os.walk(path):
        for name in names:
            with open(os.path.join(folder, name), "rb") as file:
                found[os.path.relpath(os.path.join(folder, name), path)] = file.read()
    return found


# ---- What is refused ----

def test_unknown_engine_and_setting():
    code, log = refused(namespace("a", "rockdb") + namespace("b", "rocksdb { cash-size 1M\n}"))
    assert code == 2
    assert "there is no storage-engine 'rockdb'; did you mean 'rocksdb'?" in log
    assert "'cash-size' is not known in 'storage-engine'; did you mean 'cache-size'?" in log


def test_a_part_has_no_settings_of_the_namespace():
    """commit-to-device is the namespace's: accepted in a part it would be ignored."""
    code, log = refused(namespace("a", "tiered { cold rocksdb { commit-to-device true\n stop-writes-used-pct 9\n}\n}"))
    assert code == 2 and "'commit-to-device' is not known in" in log and "'stop-writes-used-pct' is not known in" in log


def test_all_problems_at_once_and_nothing_touched(tmp_path):
    foreign = tmp_path / "home"
    foreign.mkdir()
    (foreign / "thesis.tex").write_text("precious")
    shared = tmp_path / "shared"
    before = tree(tmp_path)
    code, log = refused(
        namespace("a", f"rocksdb {{ directory {foreign}\n}}")
        + namespace("b", f"rocksdb {{ directory {shared}\n}}")
        + namespace("c", f"template {{ directory {tmp_path}/./shared\n}}")
        + namespace("d", "memory", "strong-consistency true")
        + namespace("e", "memory { commit-to-device true\n}")
        + namespace("f", "tiered { hot-size 1M\n}"))
    assert code == 1
    assert f"namespace a: directory {foreign} holds files that Apus did not write ('thesis.tex' is one)" in log
    assert f"namespace c: directory {shared} is that of namespace 'b' already" in log
    assert ("namespace d: storage-engine 'memory': it does not promise durable-at-commit, deletes-last,"
            " which strong-consistency true needs") in log
    assert "namespace e: storage-engine 'memory': it does not promise durable-at-commit, which commit-to-device true needs" in log
    assert "namespace f: storage-engine 'tiered': 'cold' must pick a storage-engine" in log
    assert tree(tmp_path) == before and os.listdir(tmp_path) == ["home"]


@pytest.mark.parametrize("change, message", [
    (("namespace=test", "namespace=other"), "it holds the data of namespace 'other', not of 'test'"),
    (("backend=rocksdb", "backend=template"), "it was written by storage-engine 'template', not by 'rocksdb': `apus convert test"
     " --from <old configuration> --to <new one>` copies it"),
    (("\nformat=1", "\nformat=7"), "it has format 7 of 'rocksdb', this version reads up to 1: use a newer one"),
    (("apus-medium=2", "apus-medium=3"), "its identity has format 3, this Apus reads up to 2"),
    (("apus-medium=2", "apus-medium=1"), "its identity has format 1, written by a development version of Apus"),
    (("session=", "sessions="), "its identity is incomplete"),
], ids=["namespace", "backend", "format", "newer", "older", "damage"])
def test_data_of_something_else(tmp_path, change, message):
    data = tmp_path / "data"
    configuration = namespace("test", f"rocksdb {{ directory {data}\n}}")
    node = Server(configuration, command=SERVE)
    with node.raw() as raw:
        assert raw.ask(put(digest(1), 5)).result == 0
    assert node.stop() == 0
    identity = data / "apus-medium"
    good = identity.read_text()
    identity.write_text(good.replace(*change))
    before = tree(data)
    code, log = refused(configuration)
    assert code == 1 and message in log and str(data) in log
    after = tree(data)
    assert before == after
    identity.write_text(good)
    node = Server(configuration, command=SERVE)
    with node.raw() as raw:
        assert raw.ask(get(digest(1))).bins[0][2][-1] == 5
    assert node.stop() == 0


def test_two_nodes_on_one_directory(tmp_path):
    configuration = namespace("test", f"rocksdb {{ directory {tmp_path}/data\n}}")
    node = Server(configuration, command=SERVE)
    code, log = refused(configuration)
    assert code == 1 and f"directory {tmp_path}/data is in use by process {node.process.pid}" in log
    assert node.stop() == 0


def test_a_running_nodes_configuration_can_be_checked(tmp_path):
    node = Server(namespace("test", f"rocksdb {{ directory {tmp_path}/data\n}}"), command=SERVE)
    done = subprocess.run([FULL, "config", "check", node.configuration], capture_output=True, text=True, timeout=10)
    assert done.returncode == 0, done.stderr
    assert node.stop() == 0


def test_a_start_that_was_interrupted_can_be_repeated(tmp_path):
    """Whatever a start has left when it was killed: an empty directory, a lock, an identity without data."""
    configuration = namespace("test", f"rocksdb {{ directory {tmp_path}/data\n}}")
    for leave in (["apus-medium.lock"], ["apus-medium.lock", "apus-medium.new"], ["apus-medium", "apus-medium.lock"]):
        node = Server(configuration, command=SERVE)
        assert node.stop() == 0
        for name in os.listdir(tmp_path / "data"):
            if name not in leave:
                path = tmp_path / "data" / name
                shutil.rmtree(path) if path.is_dir() else path.unlink()
    node = Server(configuration, command=SERVE)
    assert node.stop() == 0


def test_check_looks_at_media_too(tmp_path):
    (tmp_path / "something").write_text("x")
    path = tmp_path / "apus.conf"
    path.write_text(namespace("test", f"rocksdb {{ directory {tmp_path}\n}}"))
    done = subprocess.run([FULL, "config", "check", str(path)], capture_output=True, text=True, timeout=10)
    assert done.returncode == 2 and "holds files that Apus did not write" in done.stderr


# ---- What is told ----

def test_the_agreement_is_shown(tmp_path):
    node = Server(namespace("test", f"tiered {{ hot-size 8M\n cold rocksdb {{ directory {tmp_path}/d\n storage-threads 2\n}}\n}}"),
                  command=SERVE)
    statistics = node.statistics("namespace/test")
    assert statistics["backend"] == "tiered" and statistics["backend_format"] == "1"
    assert statistics["backend_capabilities"] == "durable-at-commit,deletes-last,keyed"
    assert statistics["backend.storage-threads"] == "2" and statistics["backend_pressure"] == "none"
    settings = node.statistics("get-config:context=namespace;namespace=test")
    assert settings["storage-engine"] == "tiered" and settings["storage-engine.cold"] == "rocksdb"
    assert settings["storage-engine.cold.storage-threads"] == "2" and settings["storage-engine.hot-size"] == str(8 << 20)
    assert f"namespaces test (tiered)" in node.log
    assert node.stop() == 0


def test_a_part_can_be_taken_out_of_its_composition(tmp_path):
    """What a tiered namespace has written is the data of its cold backend."""
    node = Server(namespace("test", f"tiered {{ cold rocksdb {{ directory {tmp_path}/d\n}}\n}}"), command=SERVE)
    with node.raw() as raw:
        assert raw.ask(put(digest(3), 33)).result == 0
    assert node.stop() == 0
    node = Server(namespace("test", f"rocksdb {{ directory {tmp_path}/d\n}}"), command=SERVE)
    with node.raw() as raw:
        assert raw.ask(get(digest(3))).bins[0][2][-1] == 33
    assert node.stop() == 0


def test_several_backends_in_one_node(tmp_path):
    engines = [engine for engine in ENGINES if engine != "memory"]
    text = plugin_block("lmdb") + namespace("memory", "memory") + "".join(namespace(name, ENGINES[name].removeprefix("storage-engine "))
                                                                          for name in engines)
    node = Server(text, command=SERVE)
    with node.raw() as raw:
        for number, name in enumerate(["memory", *engines]):
            assert raw.ask(put(digest(1), number, namespace=name.encode())).result == 0
        for number, name in enumerate(["memory", *engines]):
            assert raw.ask(get(digest(1), namespace=name.encode())).bins[0][2][-1] == number
    assert node.stop() == 0, node.log


# ---- Shared objects ----

@pytest.mark.parametrize("name, message", [
    ("wrong_magic", "magic"), ("wrong_size", "size"), ("wrong_version", "version"), ("no_symbol", "apus_backend_entry"),
])
def test_plugins_that_do_not_fit(plugins, name, message):
    code, log = refused(f"plugin {{\n path {plugins[name]}\n}}\n" + namespace("test", "memory"), [BINARY, "serve", "--config"])
    assert code == 2 and message in log and plugins[name] in log and "apus.conf:" in log
    assert "Fatal" not in log


def test_all_plugins_that_do_not_fit_are_named_together(plugins, tmp_path):
    text = tmp_path / "text.so"
    text.write_text("no ELF")
    paths = [plugins["wrong_magic"], plugins["no_symbol"], str(text), str(tmp_path / "none.so")]
    code, log = refused("plugin {\n" + "".join(f" path {path}\n" for path in paths) + "}\n" + namespace("test", "memory"))
    assert code == 2 and all(path in log for path in paths)


def test_a_plugin_in_c(plugins):
    """The smallest one: volatile and keyed, so the whole write runs in one hold of the lock."""
    node = Server(f"plugin {{ path {plugins['tiny']}\n}}\n" + namespace("test", "tiny"), command=[BINARY, "serve", "--config"])
    client = node.client()
    for number in range(500):
        client.put(("test", "s", number), {"n": number, "text": "y" * number})
        client.increment(("test", "s", number), "n", 1)
    for number in range(0, 500, 2):
        client.remove(("test", "s", number))
    for number in range(1, 500, 2):
        assert client.get(("test", "s", number))[2] == {"n": number + 1, "text": "y" * number}
    assert node.statistics("namespace/test")["objects"] == "250"
    listed = subprocess.run([BINARY, "backends", "tiny", "--config", node.configuration], capture_output=True, text=True)
    assert listed.returncode == 0 and "keyed, volatile" in listed.stdout
    assert node.stop() == 0, node.log


def test_a_plugin_without_a_slash_is_one_beside_the_configuration(plugins, tmp_path):
    path = tmp_path / "apus.conf"
    (tmp_path / "mine.so").write_bytes(open(plugins["tiny"], "rb").read())
    path.write_text("plugin {\n path mine.so\n}\n" + namespace("test", "tiny"))
    done = subprocess.run([BINARY, "config", "check", str(path)], capture_output=True, text=True, timeout=10)
    assert done.returncode == 0, done.stderr


def test_a_name_twice(plugins):
    code, log = refused(f"plugin {{\n path {plugins['tiny']}\n path {plugins['tiny']}\n}}\n" + namespace("test", "tiny"))
    assert code == 2 and "two storage backends are called 'tiny'" in log


def test_lmdb_is_listed_when_it_is_loaded(tmp_path):
    path = tmp_path / "apus.conf"
    path.write_text(f"plugin {{ path {LMDB}\n}}\n" + namespace("test", "lmdb"))
    listed = subprocess.run([BINARY, "backends", "lmdb", "--config", str(path)], capture_output=True, text=True)
    assert "promises: durable-at-commit, deletes-last, keyed, blocking" in listed.stdout and "map-size  bytes" in listed.stdout
    unknown = subprocess.run([BINARY, "backends", "lmdb"], capture_output=True, text=True)
    assert unknown.returncode == 2 and "there is no storage-engine 'lmdb'" in unknown.stderr
