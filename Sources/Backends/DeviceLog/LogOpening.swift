// Opens the devices of a namespace: looks at all, says everything that is wrong, and writes only then. Invariants:
// 1. What was found is flushed before anything is built on it: a process that died may have left writes that can be read and
//    do not last.
// 2. Session and sequence floor of this opening last, on every device, before anything else is written.
// 3. A set is made, and grows, when the first superblock that counts the new slots lasts: until then new devices are joining
//    ones, which the next opening takes for blank.
internal import Base
internal import Device
internal import Storage

/// See the top of the file. One opening.
struct LogOpening {
    /// A location has 7 bits for the device.
    static let devicesMax = 128
    /// Sequences that one session may use. It is odd, so that starts after many crashes do not come back to the same stamps.
    static let sequencesOfSession: UInt64 = 67_867_967

    let request: OpenRequest
    let settings: LogSettings
    let opener: any DeviceOpener
    let entropy: @Sendable () -> UInt64
    private let survey: DeviceSurvey
    private let formats = LogFormat.number...LogFormat.number

    init(
        _ request: OpenRequest, opener: any DeviceOpener, entropy: @escaping @Sendable () -> UInt64, shape: LogShape,
        isResident: Bool
    ) {
        // A log in memory lies on its devices as any other: a namespace can go from one to the other.
        let agreement = Agreement(
            backend: DeviceLog.name, format: request.agreement.format, capabilities: request.agreement.capabilities)
        self.request = OpenRequest(
            namespace: request.namespace, settings: request.settings, agreement: agreement, memory: request.memory,
            log: request.log, warn: request.warn)
        self.opener = opener
        self.entropy = entropy
        settings = LogSettings(request.settings, shape: shape, isResident: isResident)
        survey = DeviceSurvey(settings: settings, opener: opener)
    }

    /// - Throws: `settings`, `medium`, `device`.
    func open() throws(StorageError) -> DeviceLogBackend {
        try checkSettings()
        _ = try plan(survey.look(isLookedAt: true))
        let found = survey.look(isLookedAt: false)
        for one in found { if let device = one.device { try ControlChannel(device, path: one.path).flush() } }
        let plan = try plan(found)
        for note in plan.notes { request.warn(note) }
        return try make(plan)
    }

    /// What can be told without touching anything.
    var problems: [String] {
        do throws(StorageError) {
            try checkSettings()
            _ = try plan(survey.look(isLookedAt: true))
            return []
        } catch {
            return [error.text]
        }
    }

    private func plan(_ found: [FoundDevice]) throws(StorageError) -> DevicePlan {
        try DevicePlan(found, request, settings, formats: formats)
    }

    private func checkSettings() throws(StorageError) {
        let paths = survey.paths
        var problems: [String] = []
        if settings.devices.isEmpty == settings.files.isEmpty {
            problems.append("storage-engine device needs either `device` or `file` settings"
                + (paths.isEmpty ? ", and has none" : ", and has both"))
        }
        if paths.count > LogOpening.devicesMax {
            problems.append("\(paths.count) devices are more than \(LogOpening.devicesMax)")
        }
        for (number, path) in paths.enumerated() where paths[..<number].contains(path) {
            problems.append("\(path) is named twice")
        }
        for path in paths where path.contains(where: { ";'\"".contains($0) }) {
            problems.append("\(path) cannot be the path of a device: avoid ; and quotes")
        }
        if !Superblock.holds(identity(session: 0)) { problems.append("the name of the namespace is too long") }
        guard problems.isEmpty else { throw .settings(problems.joined(separator: "; ")) }
    }

    private func identity(session: UInt64) -> MediumIdentity {
        MediumIdentity(
            namespace: request.namespace, agreement: request.agreement, session: session
        ).with(format: formats.upperBound)
    }

    /// The superblock of this session, but for what is each device's own.
    private func superblock(_ plan: DevicePlan) -> Superblock {
        let known = plan.members.compactMap(\.superblock)
        let next = max(1, known.map(\.sequenceFloor).max() ?? 1)
        let first = settings.startsEmpty ? next : known.map(\.firstSequence).max() ?? next
        return Superblock(
            setIdentity: known.first?.setIdentity ?? newSetIdentity(),
            identity: identity(session: (known.map(\.identity.session).max() ?? 0) + 1), shape: settings.shape,
            version: (known.map(\.version).max() ?? 0) + 1, sequenceFloor: next + LogOpening.sequencesOfSession,
            firstSequence: first)
    }

    /// Two sets never have the same, nor its lower half, but by an accident of 1 in 2^32.
    private func newSetIdentity() -> UInt64 {
        var random = SeededRandom(seed: entropy())
        var seed = random.next()
        for text in [request.namespace] + survey.paths { seed = fnv1a(text.utf8, from: seed) }
        random = SeededRandom(seed: seed)
        return random.next()
    }

    private func make(_ plan: DevicePlan) throws(StorageError) -> DeviceLogBackend {
        var common = superblock(plan)
        let start = try begin(plan, &common)
        let controls = try claim(plan, common)
        if let memory = request.memory { try memory.sessionBegan() }
        tell(plan, controls)
        let layout = LogLayout(
            sectorSize: settings.shape.flushUnit, flushUnit: settings.shape.flushUnit, blockSize: settings.shape.blockSize,
            headSize: settings.shape.headSize)
        let blockCounts = controls.map { layout.blockCount(deviceByteCount: $0.device.geometry.byteCount) }
        let core = try LogCore(
            settings, identity: UInt32(truncatingIfNeeded: common.setIdentity), blockCounts: blockCounts,
            opener: opener, memory: request.memory, log: request.log, warn: request.warn)
        core.nextSequence = common.sequenceFloor - LogOpening.sequencesOfSession
        var devices: [LogDevice?] = Array(repeating: nil, count: plan.slotCount + plan.added.count)
        for control in controls {
            let layout = LogLayout(
                sectorSize: control.device.geometry.sectorSize, flushUnit: settings.shape.flushUnit,
                blockSize: settings.shape.blockSize, headSize: settings.shape.headSize)
            devices[control.slot] = try LogDevice(
                core, slot: control.slot, path: control.path, control.device, layout, request.memory)
        }
        core.setDevices(devices)
        let metadata = try LogMetadata(controls, setIdentity: common.setIdentity, flushUnit: settings.shape.flushUnit)
        return DeviceLogBackend(
            core, controls, metadata, names: survey.isOnBlockDevices ? "device" : "file", paths: survey.paths,
            firstSequence: common.firstSequence, start: start)
    }

    // ---- Kept memory ----

    /// Whether to go on from what is in memory; begins a session that ties it to the devices. Without memory they get no
    /// key, so that what some memory holds of them never fits again.
    /// - Throws: `device`.
    private func begin(_ plan: DevicePlan, _ common: inout Superblock) throws(StorageError) -> LogStart {
        var start = plan.members.isEmpty || settings.startsEmpty ? LogStart.empty : .cold
        guard let memory = request.memory else { return start }
        if let reason = plan.coldReason(memory, startsEmpty: settings.startsEmpty) {
            try memory.startCold(because: reason)
        } else {
            start = .warm(wasClosed: memory.wasClosed)
        }
        common.sessionKey = newSessionKey(session: common.identity.session)
        try memory.beginSession(common.sessionKey)
        return start
    }

    /// Not 0, and of two sessions of one device set never the same, but by an accident.
    private func newSessionKey(session: UInt64) -> UInt64 {
        var random = SeededRandom(seed: entropy() ^ session &* 0x9E37_79B9_7F4A_7C15)
        return max(random.next(), 1)
    }

    /// Writes the superblocks of this session.
    private func claim(_ plan: DevicePlan, _ common: Superblock) throws(StorageError) -> [DeviceControl] {
        let head = HeadLayout(settings.shape)
        let slotCount = plan.slotCount + plan.added.count
        var controls: [DeviceControl] = []
        func control(_ one: FoundDevice, slot: Int) throws(StorageError) -> DeviceControl? {
            guard let device = one.device else { return nil }
            var superblock = common
            superblock.slot = slot
            superblock.slotCount = slotCount
            superblock.deviceByteCount = device.geometry.byteCount
            return DeviceControl(one, device, try ControlChannel(device, path: one.path), head, superblock)
        }
        for one in plan.members {
            if let made = try control(one, slot: one.superblock!.slot) { controls.append(made) }
        }
        let memberCount = controls.count
        for (number, one) in plan.added.enumerated() {
            guard let made = try control(one, slot: plan.slotCount + number) else { continue }
            try made.rewrite {
                $0.version = common.version
                $0.isJoining = true
            }
            controls.append(made)
        }
        for (number, control) in controls.enumerated() {
            try control.rewrite {
                $0.version = common.version + (number < memberCount ? 0 : 1)
                $0.isJoining = false
            }
        }
        return controls
    }

    /// Says in the log what is not as it was.
    private func tell(_ plan: DevicePlan, _ controls: [DeviceControl]) {
        for one in plan.members {
            guard let before = one.superblock?.deviceByteCount, one.byteCount > before else { continue }
            request.log("\(one.path) has grown from \(before) to \(one.byteCount) bytes: the log uses them")
        }
        for control in controls { if let note = control.device.note { request.log("\(control.path): \(note)") } }
        let paths = plan.added.map(\.path).joined(separator: ", ")
        if plan.members.isEmpty {
            request.log("namespace \(request.namespace): a new set of \(controls.count) devices was made on \(paths)")
        } else if !plan.added.isEmpty {
            request.log("namespace \(request.namespace): the device set has grown from \(plan.slotCount) to"
                + " \(plan.slotCount + plan.added.count) devices by \(paths); new records spread over all of them")
        }
        if settings.startsEmpty, !plan.members.isEmpty {
            request.warn("namespace \(request.namespace): COLD-START-EMPTY: all records on its devices are forgotten for"
                + " ever; take cold-start-empty out of the configuration now")
        }
    }
}
