// Holds the backend to its contract and its promises: --help says what can be asked for.
import Glibc
import StorageConformance
import Template

exit(Kit.main(Array(CommandLine.arguments.dropFirst())) { DirectorySubject(descriptor: Template.descriptor) })
