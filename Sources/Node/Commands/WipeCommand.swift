internal import ArgumentParser
internal import Device
internal import DeviceLog
internal import Glibc
internal import SystemDevice

/// `apus wipe`.
struct WipeCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "wipe",
        abstract: "Make a device or file empty, so that a namespace can take it; asks first.",
        discussion: """
            The front of the device, where a log keeps what it is and where it begins, is overwritten with zeros, the rest is
            discarded if the device can do that. There is no way back. A device that a node, a file system or another program
            uses is refused.
            """)

    @Argument(help: "Path of the device or file.")
    var path: String

    @Flag(help: "Do not ask.")
    var yes = false

    func run() throws {
        do throws(DeviceOpenError) {
            let device = try SystemDevices().open(
                DeviceRequest(path: path, isBlockDevice: isBlockDevice, isLookedAt: true))
            print("\(path): \(device.geometry.byteCount >> 20) MB, \(DeviceLog.inspect(device, path: path))")
        } catch {
            printError("\(path): \(error.sentence)")
            throw ExitCode(1)
        }
        guard yes || isConfirmed else {
            printError("nothing was changed")
            throw ExitCode(1)
        }
        try wipe()
    }

    private var isBlockDevice: Bool {
        var status = stat()
        return stat(path, &status) == 0 && status.st_mode & S_IFMT == S_IFBLK
    }

    private var isConfirmed: Bool {
        print("Everything on it will be gone. Type 'wipe' to go on: ", terminator: "")
        fflush(nil)
        return readLine() == "wipe"
    }

    private func wipe() throws {
        var shown = -1
        do throws(DeviceOpenError) {
            try SystemDevices.wipe(path: path, byteCount: DeviceLog.headByteCount) { done, all in
                let percent = all > 0 ? done * 100 / all : 100
                guard percent / 10 > shown / 10 || shown < 0 else { return }
                shown = percent
                print("wiped \(percent) %")
            }
        } catch {
            printError("\(path): \(error.sentence)")
            throw ExitCode(1)
        }
        print("\(path) is empty")
    }
}
