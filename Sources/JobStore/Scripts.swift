import CCrypto
import RedisLink

/// The embedded Lua scripts, each with the shared files that its `-- include:` line names put in front.
enum Scripts {
    static let submit = script("submit", PackageResources.submit_lua)
    static let claim = script("claim", PackageResources.claim_lua)
    static let heartbeat = script("heartbeat", PackageResources.heartbeat_lua)
    static let advance = script("advance", PackageResources.advance_lua)
    static let log = script("log", PackageResources.log_lua)
    static let preview = script("preview", PackageResources.preview_lua)
    static let finish = script("finish", PackageResources.finish_lua)
    static let fail = script("fail", PackageResources.fail_lua)
    static let release = script("release", PackageResources.release_lua)
    static let cancel = script("cancel", PackageResources.cancel_lua)
    static let reap = script("reap", PackageResources.reap_lua)
    static let open = script("open", PackageResources.open_lua)
    static let report = script("report", PackageResources.report_lua)
    static let retire = script("retire", PackageResources.retire_lua)
    static let settings = script("settings", PackageResources.settings_lua)
    static let purge = script("purge", PackageResources.purge_lua)
    static let audit = script("audit", PackageResources.audit_lua)
    static let register = script("register", PackageResources.register_lua)
    static let dismiss = script("dismiss", PackageResources.dismiss_lua)
    static let learn = script("learn", PackageResources.learn_lua)

    static let turn = script("turn", PackageResources.turn_lua)

    static let all = [
        submit, claim, heartbeat, advance, log, preview, finish, fail, release, cancel, reap, open, report, retire, settings, purge, audit,
        learn, register, dismiss, turn,
    ]

    private static func script(_ name: String, _ bytes: [UInt8]) -> RedisScript {
        let text = String(decoding: bytes, as: UTF8.self)
        var shared = ""
        if text.hasPrefix(includePrefix), let line = text.split(separator: "\n").first {
            for part in line.dropFirst(includePrefix.count).split(separator: " ") {
                shared += include(part)
            }
        }
        let source = ScriptLinker.link(shared, into: text)
        return RedisScript(name: name, source: source, sha1: Digest.sha1(source))
    }

    private static let includePrefix = "-- include: "

    private static func include(_ name: Substring) -> String {
        switch name {
        case "event": String(decoding: PackageResources.event_lua, as: UTF8.self)
        case "line": String(decoding: PackageResources.line_lua, as: UTF8.self)
        case "group": String(decoding: PackageResources.group_lua, as: UTF8.self)
        case "submitting": String(decoding: PackageResources.submitting_lua, as: UTF8.self)
        case "ends": String(decoding: PackageResources.ends_lua, as: UTF8.self)
        case "claiming": String(decoding: PackageResources.claiming_lua, as: UTF8.self)
        case "progress": String(decoding: PackageResources.progress_lua, as: UTF8.self)
        default: preconditionFailure("a script includes \(name), which is not embedded")
        }
    }
}

/// Message digests by the system's libcrypto.
public enum Digest {
    /// Lower-case hex SHA-1, which is what EVALSHA names scripts by; not used for anything secret.
    static func sha1(_ text: String) -> String { hex(text, EVP_sha1()) }

    /// Lower-case hex SHA-256.
    public static func sha256(_ text: String) -> String { hex(text, EVP_sha256()) }

    private static func hex(_ text: String, _ algorithm: OpaquePointer?) -> String {
        var digest = [UInt8](repeating: 0, count: Int(EVP_MAX_MD_SIZE))
        var length: UInt32 = 0
        let bytes = Array(text.utf8)
        // Fails only when an algorithm is missing from the library, and these two never are.
        precondition(EVP_Digest(bytes, bytes.count, &digest, &length, algorithm, nil) == 1, "libcrypto refused a digest")
        let digits = Array("0123456789abcdef".utf8)
        var out: [UInt8] = []
        for byte in digest.prefix(Int(length)) {
            out.append(digits[Int(byte >> 4)])
            out.append(digits[Int(byte & 15)])
        }
        return String(decoding: out, as: UTF8.self)
    }
}
