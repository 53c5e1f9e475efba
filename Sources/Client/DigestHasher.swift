package import Base
internal import COpenSSL

/// Computes record digests: RIPEMD-160 over set name, particle type of the key and key bytes. Holds one
/// context that is used again and again; not thread-safe.
package final class DigestHasher {
    private let context: OpaquePointer
    private let algorithm: OpaquePointer
    private let buffer: UnsafeMutablePointer<UInt8>

    /// Nil if this OpenSSL has no RIPEMD-160 (the legacy provider in some builds).
    package init?() {
        guard let algorithm = EVP_MD_fetch(nil, "RIPEMD160", nil), let context = EVP_MD_CTX_new() else { return nil }
        self.algorithm = algorithm
        self.context = context
        buffer = .allocate(capacity: Int(EVP_MAX_MD_SIZE))
    }

    deinit {
        EVP_MD_CTX_free(context)
        EVP_MD_free(algorithm)
        buffer.deallocate()
    }

    /// The digest of a key; `set` is empty for no set.
    package func digest(set: UnsafeRawBufferPointer, particleType: UInt8, key: UnsafeRawBufferPointer) -> Digest {
        var type = particleType
        EVP_DigestInit_ex2(context, algorithm, nil)
        EVP_DigestUpdate(context, set.baseAddress, set.count)
        EVP_DigestUpdate(context, &type, 1)
        EVP_DigestUpdate(context, key.baseAddress, key.count)
        let isDone = EVP_DigestFinal_ex(context, buffer, nil)
        precondition(isDone == 1, "RIPEMD-160 was there a moment ago")
        return Digest(UnsafeRawPointer(buffer))
    }

    /// The digest of a text key.
    package func digest(set: String, key: String) -> Digest {
        var set = set
        var key = key
        return set.withUTF8 { set in
            key.withUTF8 { key in
                digest(
                    set: UnsafeRawBufferPointer(set), particleType: ParticleType.string,
                    key: UnsafeRawBufferPointer(key))
            }
        }
    }

    /// The digest of an integer key.
    package func digest(set: String, key: Int64) -> Digest {
        var set = set
        return set.withUTF8 { set in
            withUnsafeBytes(of: key.bigEndian) { key in
                digest(set: UnsafeRawBufferPointer(set), particleType: ParticleType.integer, key: key)
            }
        }
    }
}
