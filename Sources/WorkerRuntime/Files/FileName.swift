/// Names of files that come from outside: one path component, nothing a file system or a URL takes for something else.
enum FileName {
    /// `A-Z a-z 0-9 . _ -`.
    static func isPlain(_ byte: UInt8) -> Bool {
        switch byte {
        case UInt8(ascii: "A")...UInt8(ascii: "Z"), UInt8(ascii: "a")...UInt8(ascii: "z"), UInt8(ascii: "0")...UInt8(ascii: "9"): true
        case UInt8(ascii: "."), UInt8(ascii: "_"), UInt8(ascii: "-"): true
        default: false
        }
    }

    /// One component, not `.` or `..`, no control characters, at most what a file system takes.
    static func isSafe(_ name: String) -> Bool {
        (1...WorkerLimits.fileNameBytes).contains(name.utf8.count) && name != "." && name != ".."
            && !name.unicodeScalars.contains { $0.value < 0x20 || $0.value == 0x7f || $0 == "/" || $0 == "\\" }
    }

    /// `name` for the path of a URL: everything but unreserved characters (RFC 3986 §2.3) as `%XX`.
    static func percentEncoded(_ name: String) -> String {
        var out = ""
        for byte in name.utf8 {
            if isPlain(byte) || byte == UInt8(ascii: "~") {
                out.unicodeScalars.append(Unicode.Scalar(byte))
            } else {
                out += "%" + (byte < 16 ? "0" : "") + String(byte, radix: 16, uppercase: true)
            }
        }
        return out
    }

    /// The media type by the name's extension, as far as generators commonly write it.
    static func contentType(_ name: String) -> String {
        guard let dot = name.utf8.lastIndex(of: UInt8(ascii: ".")) else { return "application/octet-stream" }
        switch name[name.index(after: dot)...].lowercased() {
        case "glb": return "model/gltf-binary"
        case "gltf": return "model/gltf+json"
        case "obj": return "model/obj"
        case "stl": return "model/stl"
        case "ply": return "application/x-ply"
        case "png": return "image/png"
        case "jpg", "jpeg": return "image/jpeg"
        case "webp": return "image/webp"
        case "gif": return "image/gif"
        case "mp4": return "video/mp4"
        case "webm": return "video/webm"
        case "wav": return "audio/wav"
        case "mp3": return "audio/mpeg"
        case "json": return "application/json"
        case "txt", "log": return "text/plain"
        case "csv": return "text/csv"
        case "pdf": return "application/pdf"
        case "zip": return "application/zip"
        default: return "application/octet-stream"
        }
    }
}
