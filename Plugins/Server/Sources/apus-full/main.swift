// Apus with every backend that is here by source; `storage-engine` picks one by name.
import Builtin
import Commands
import RocksDB
import Template
import Tiered

Apus.run(backends: Builtin.descriptors + [RocksDB.descriptor, Template.descriptor, Tiered.descriptor])
