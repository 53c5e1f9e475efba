// What a device holds, for an operator who is about to wipe it.
internal import Base
public import Device
internal import Storage

extension DeviceLog {
    /// Bytes at the front of a device without which nothing on it can be read as a log.
    public static var headByteCount: Int { LogShape().headSize }

    /// One sentence about what a device holds. Reads only; may block.
    public static func inspect(_ device: any BlockDevice, path: String) -> String {
        let head = HeadLayout(LogShape())
        do throws(StorageError) {
            guard device.geometry.byteCount >= HeadLayout.copies * head.placeSize else {
                return "too small for a device of Apus"
            }
            let channel = try ControlChannel(device, path: path)
            var newest: Superblock?
            var isZero = true
            for copy in 0..<HeadLayout.copies {
                let place = try channel.read(head.superblockOffset(copy), byteCount: head.placeSize)
                isZero = isZero && place.view.allSatisfy { $0 == 0 }
                if let one = try Superblock(place.base), one.version > newest?.version ?? 0 { newest = one }
            }
            guard let newest else {
                return isZero ? "empty at its front" : "holds something that is no device of Apus, or a damaged one"
            }
            return "holds records of namespace '\(newest.identity.namespace)' (slot \(newest.slot) of \(newest.slotCount),"
                + " opened \(newest.identity.session) times)"
        } catch {
            return "cannot be read as a device of Apus: \(error.text)"
        }
    }
}
