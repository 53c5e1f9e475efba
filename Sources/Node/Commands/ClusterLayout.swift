// A cluster on this machine as `apus cluster up` remembers it: which nodes, on which racks and ports. Kept as text in the
// directory of the cluster, so that it starts again as it was.
internal import Client
internal import Files
internal import Glibc

/// One node of a local cluster.
struct ClusterLayoutNode: Equatable {
    /// From 1.
    let number: Int
    var servicePort: Int
    var fabricPort: Int
    var heartbeatPort: Int

    /// Ids that are easy to tell apart: A01, A02.
    var id: String { String(0xA00 + number, radix: 16, uppercase: true) }
    var name: String { "node\(number)" }
    var address: NodeAddress { NodeAddress(host: "127.0.0.1", port: servicePort) }
    var ports: [Int] { [servicePort, fabricPort, heartbeatPort] }
}

/// See the top of the file.
struct ClusterLayout: Equatable {
    static let nodesMax = 32
    /// Between the service ports of two nodes, if the first one is given.
    static let portStep = 10
    private static let fileName = "cluster"
    private static let byteCountMax = 1 << 20
    /// Absolute.
    let directory: String
    var racks = 1
    var replicationFactor = 2
    /// Milliseconds.
    var interval = 150
    /// Records are in memory only.
    var isInMemory = false
    var nodes: [ClusterLayoutNode] = []

    // ---- Places ----

    func folder(_ node: ClusterLayoutNode) -> String { "\(directory)/\(node.name)" }
    func configurationPath(_ node: ClusterLayoutNode) -> String { folder(node) + "/apus.conf" }
    func logPath(_ node: ClusterLayoutNode) -> String { folder(node) + "/log" }
    func lockPath(_ node: ClusterLayoutNode) -> String { folder(node) + "/work/apus.lock" }

    /// Nodes go round the racks; one rack is none.
    func rack(_ node: ClusterLayoutNode) -> Int { racks == 1 ? 0 : (node.number - 1) % racks + 1 }

    // ---- The file ----

    /// What is remembered in a directory; nil if nothing is.
    static func load(_ directory: String) throws(ClusterCommandError) -> ClusterLayout? {
        guard let found = realPath(directory) else { return nil }
        let path = "\(found)/\(fileName)"
        let stored: [UInt8]?
        do throws(FileError) {
            stored = try readFileIfThere(path, byteCountMax: ClusterLayout.byteCountMax)
        } catch {
            throw ClusterCommandError(error)
        }
        guard let stored else { return nil }
        var layout = ClusterLayout(directory: found)
        for line in String(decoding: stored, as: UTF8.self).split(separator: "\n") where !line.hasPrefix("#") {
            let words = line.split(separator: " ")
            let numbers = words.dropFirst().compactMap { Int($0) }
            guard layout.take(words.first ?? "", numbers), numbers.count == words.count - 1 else {
                throw ClusterCommandError("\(path) is damaged at '\(line)': remove \(found), or give another --directory")
            }
        }
        return layout
    }

    private mutating func take(_ word: Substring, _ numbers: [Int]) -> Bool {
        switch (word, numbers.count) {
        case ("racks", 1) where numbers[0] > 0: racks = numbers[0]
        case ("replication-factor", 1): replicationFactor = numbers[0]
        case ("interval", 1): interval = numbers[0]
        case ("in-memory", 1): isInMemory = numbers[0] == 1
        case ("node", 4) where numbers[0] == nodes.count + 1:
            nodes.append(ClusterLayoutNode(
                number: numbers[0], servicePort: numbers[1], fabricPort: numbers[2], heartbeatPort: numbers[3]))
        default: return false
        }
        return true
    }

    /// Writes the file, and the configuration of each node that is in `fresh`.
    func store(configure fresh: [ClusterLayoutNode]) throws(ClusterCommandError) {
        let lines = [
            "# Written by 'apus cluster up'. node: number, ports for clients, fabric and heartbeats.",
            "racks \(racks)", "replication-factor \(replicationFactor)", "interval \(interval)",
            "in-memory \(isInMemory ? 1 : 0)",
        ] + nodes.map { "node \($0.number) \($0.servicePort) \($0.fabricPort) \($0.heartbeatPort)" }
        do throws(FileError) {
            let text = lines.joined(separator: "\n") + "\n"
            try replaceFile("\(directory)/\(ClusterLayout.fileName)", with: Array(text.utf8))
            for node in fresh {
                try makeDirectory(folder(node))
                try replaceFile(configurationPath(node), with: Array(configuration(node).utf8))
            }
        } catch {
            throw ClusterCommandError(error)
        }
    }

    // ---- Configuration ----

    /// The configuration of a node: one reactor, everything on 127.0.0.1, all nodes as seeds. `min-cluster-size` is for the
    /// start: a node that came first would serve everything, and nobody else would be asked to.
    func configuration(_ node: ClusterLayoutNode) -> String {
        let seeds = nodes.map { "        mesh-seed-address-port 127.0.0.1 \($0.heartbeatPort)" }.joined(separator: "\n")
        let storage = isInMemory
            ? "    storage-engine memory"
            : """
                    storage-engine device {
                        file \(folder(node))/test.dat
                        filesize 256M
                    }
                """
        return """
            # Written by 'apus cluster up', again at each start.
            service {
                cluster-name local
                min-cluster-size \(nodes.count)
                node-id \(node.id)
                work-directory \(folder(node))/work
                service-threads 1
                proto-fd-max 1000
            }
            logging {
                console {
                    context any info
                }
            }
            network {
                service {
                    address 127.0.0.1
                    port \(node.servicePort)
                }
                fabric {
                    address 127.0.0.1
                    port \(node.fabricPort)
                }
                heartbeat {
                    mode mesh
                    address 127.0.0.1
                    port \(node.heartbeatPort)
                    interval \(interval)
                    timeout 10
            \(seeds)
                }
            }
            namespace test {
                replication-factor \(replicationFactor)
                rack-id \(rack(node))
                index-type heap
                nsup-period 120
            \(storage)
            }

            """
    }
}
