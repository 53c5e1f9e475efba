internal import Builtin
internal import Commands

Apus.run(backends: Builtin.descriptors)
