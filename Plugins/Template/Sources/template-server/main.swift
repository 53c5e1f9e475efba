// Apus with this backend in it: everything that `apus` can, and `storage-engine template`.
import Builtin
import Commands
import Template

Apus.run(backends: Builtin.descriptors + [Template.descriptor])
