// A real block device: a loop device over a file, where the machine lets this test make one.
import Device
import Glibc
import SystemDevice
import Testing

/// A loop device that is detached with this object; nil if there is none to be had.
private final class Loop {
    let path: String

    init?(_ file: String, _ options: String = "") {
        guard geteuid() == 0, let made = run("losetup \(options) -f --show '\(file)' 2>/dev/null"), !made.isEmpty else {
            print("skipped: no loop devices here")
            return nil
        }
        path = made
    }

    deinit { _ = run("losetup -d '\(path)'") }
}

@Suite(.serialized) struct BlockDeviceTests {
    private func device(_ path: String) -> DeviceRequest { DeviceRequest(path: path, isBlockDevice: true) }

    @Test(arguments: [SystemDevices.Carrier.automatic, .threads], [512, 4096])
    func aBlockDeviceIsReadWrittenAndGrown(_ carrier: SystemDevices.Carrier, sectorSize: Int) throws {
        let scratch = try Scratch()
        guard let loop = Loop(try scratch.makeFile(byteCount: 8 << 20), "-b \(sectorSize)") else { return }
        let opened = try SystemDevices(carrier: carrier).open(device(loop.path))
        #expect(opened.geometry.byteCount == 8 << 20 && opened.geometry.sectorSize == sectorSize)
        let driver = Driver(try opened.makeQueue(depth: 8) {})
        #expect(try driver.write(filled(6, 1 << 20), at: 4 << 20, durable: true) == .done(byteCount: 1 << 20))
        #expect(try driver.read(at: 4 << 20, 1 << 20).bytes == filled(6, 1 << 20))
        #expect(driver.finish(try driver.submit(.flush)) == .done(byteCount: 0))
        let tag = try driver.submit(.discard(offset: 4 << 20, byteCount: 1 << 20))
        #expect(driver.finish(tag) == .done(byteCount: 1 << 20))
        #expect(throws: DeviceError.noSpace) { try opened.grow(to: 16 << 20) }
        #expect(truncate(scratch.file(), 16 << 20) == 0 && run("losetup -c '\(loop.path)'") != nil)
        try opened.grow(to: 16 << 20)
        #expect(try driver.write(filled(2), at: (16 << 20) - 4096) == .done(byteCount: 4096))
    }

    @Test func aBlockDeviceIsOpenOnceAndNotAsAFile() throws {
        let scratch = try Scratch()
        guard let loop = Loop(try scratch.makeFile(byteCount: 8 << 20)) else { return }
        #expect(refusal(DeviceRequest(path: loop.path, isBlockDevice: false))?.sentence.contains("setting 'device'") == true)
        let opened = try SystemDevices().open(device(loop.path))
        #expect(symlink(loop.path, scratch.file("link")) == 0)
        #expect(refusal(device(scratch.file("link")))?.sentence == "is the same block device as \(loop.path)")
        withExtendedLifetime(opened) {}
    }

    @Test func aReadOnlyDeviceIsRefused() throws {
        let scratch = try Scratch()
        let file = try scratch.makeFile(byteCount: 8 << 20)
        guard let loop = Loop(file, "-r") else { return }
        #expect(refusal(device(loop.path))?.sentence.contains("read-only device") == true)
        #expect(refusal(DeviceRequest(path: loop.path, isBlockDevice: true, isLookedAt: true)) == nil)
    }

    /// As a mounted file system does, another process keeps the device by O_EXCL.
    @Test func aDeviceThatIsUsedIsRefused() throws {
        let scratch = try Scratch()
        guard let loop = Loop(try scratch.makeFile(byteCount: 8 << 20)) else { return }
        #expect(mkfifo(scratch.file("held"), 0o600) == 0)
        let holds = "import os,sys; os.open(sys.argv[1],os.O_RDWR|os.O_EXCL); "
            + "open(sys.argv[2],\"w\").write(\"x\"); sys.stdin.read()"
        let child = try #require(popen("python3 -c '\(holds)' '\(loop.path)' '\(scratch.file("held"))'", "w"))
        #expect(run("cat '\(scratch.file("held"))'") == "x")
        #expect(refusal(device(loop.path))?.sentence == "is in use by another process, or mounted")
        pclose(child)
        #expect(refusal(device(loop.path)) == nil)
    }

    @Test func aDetachedDeviceHasNoSize() throws {
        guard geteuid() == 0, let free = run("losetup -f 2>/dev/null") else { return print("skipped: no loop devices here") }
        #expect(refusal(device(free)) != nil)
    }

    @Test func aBlockDeviceIsWiped() throws {
        let scratch = try Scratch()
        guard let loop = Loop(try scratch.makeFile(byteCount: 4 << 20)) else { return }
        do {
            let driver = Driver(try SystemDevices().open(device(loop.path)).makeQueue(depth: 2) {})
            #expect(try driver.write(filled(6, 4 << 20), at: 0) == .done(byteCount: 4 << 20))
        }
        try SystemDevices.wipe(path: loop.path, byteCount: 1 << 20)
        let driver = Driver(try SystemDevices().open(device(loop.path)).makeQueue(depth: 2) {})
        #expect(try driver.read(at: 0, 1 << 20).bytes == filled(0, 1 << 20))
    }
}
