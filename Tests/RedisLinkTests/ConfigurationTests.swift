import NIOCore
import RedisLink
import Testing

struct ConfigurationTests {
    @Test(
        arguments: [
            ("redis://h", "h:6379/0", nil, nil),
            ("redis://127.0.0.1:7000/3", "127.0.0.1:7000/3", nil, nil),
            ("redis://h:1/", "h:1/0", nil, nil),
            ("redis://:pw@h", "h:6379/0", nil, "pw"),
            ("redis://me:p%40w%3A%2F%25%20%C3%A9@h:65535/15", "h:65535/15", "me", "p@w:/% é"),
            ("redis://me@corp:pw@h", "h:6379/0", "me@corp", "pw"),
            ("redis://me:a:b@h", "h:6379/0", "me", "a:b"),
            ("redis://[::1]:7000/1", "[::1]:7000/1", nil, nil),
            ("redis://[fe80::1]", "[fe80::1]:6379/0", nil, nil),
            ("unix:///run/redis.sock", "unix:/run/redis.sock/0", nil, nil),
            ("unix:///a%20b/s?db=2&password=x%26y&user=u", "unix:/a b/s/2", "u", "x&y"),
        ] as [(String, String, String?, String?)]
    )
    func urlsAreRead(_ url: String, _ shown: String, _ user: String?, _ password: String?) throws {
        let configuration = try RedisConfiguration(url: url)
        #expect("\(configuration)" == shown)
        #expect(configuration.username == user)
        #expect(configuration.password == password)
    }

    @Test(arguments: [
        ("", "begin with redis://"), ("localhost:6379", "begin with redis://"), ("http://h", "begin with redis://"),
        ("rediss://h", "TLS"), ("redis://", "host is missing"), ("redis://:6379", "host is missing"),
        ("redis://h:", "port"), ("redis://h:0", "port"), ("redis://h:65536", "port"), ("redis://h:+1", "port"),
        ("redis://h:99999999999999999999", "port"), ("redis://::1:6379", "brackets"), ("redis://[::1", "bracket"),
        ("redis://[::1]x", "may follow"), ("redis://h/x", "database"), ("redis://h/-1", "database"), ("redis://h/1/2", "database"),
        ("redis://user@h", "without a password"), ("redis://:a%zz@h", "%25"), ("redis://:a%4@h", "%25"), ("redis://:%ff@h", "UTF-8"),
        ("redis://h?tls=1", "options"), ("unix://relative", "absolute"), ("unix:///", "absolute"), ("unix:///s?x=1", "unknown option"),
        ("unix:///s?user=u", "without a password"), ("unix:///" + String(repeating: "x", count: 120), "107"),
    ])
    func badURLsSayWhatToChange(_ url: String, _ hint: String) {
        #expect {
            try RedisConfiguration(url: url)
        } throws: { error in
            let error = error as? RedisError
            return error?.code == .invalidConfiguration && error?.message.contains(hint) == true
        }
    }

    @Test func messagesHoldNoPassword() {
        for url in ["redis://me:hunter2@h:bad", "redis://:hunter2@", "redis://me:hunter2@h/x", "unix:///s?password=hunter2&db=x"] {
            do throws(RedisError) {
                _ = try RedisConfiguration(url: url)
                Issue.record("\(url) was taken")
            } catch {
                #expect(!"\(error)".contains("hunter2"))
            }
        }
        #expect(!"\(RedisConfiguration(address: .unix(path: "/s"), password: "hunter2"))".contains("hunter2"))
    }
}

struct RedisErrorTests {
    @Test(
        arguments: [
            ("NOSCRIPT No matching script. Please use EVAL.", .noScript, false),
            ("OOM command not allowed when used memory > 'maxmemory'.", .outOfMemory, false),
            ("OOM command not allowed when used memory > 'maxmemory'. script: ab12, on @user_script:3.", .outOfMemory, true),
            ("READONLY You can't write against a read only replica.", .readOnly, false),
            ("MISCONF Redis is configured to save RDB snapshots", .readOnly, false),
            ("LOADING Redis is loading the dataset in memory", .loading, false),
            ("MASTERDOWN Link with MASTER is down", .loading, false),
            ("BUSY Redis is busy running a script.", .busy, false),
            ("BUSYGROUP Consumer Group name already exists", .server, true),
            ("WRONGTYPE Operation against a key holding the wrong kind of value", .wrongType, false),
            ("NOAUTH Authentication required.", .authentication, false),
            ("WRONGPASS invalid username-password pair", .authentication, false),
            ("NOPERM this user has no permissions", .authentication, false),
            ("ERR unknown command 'x'", .server, true),
            ("ERR Error running script (call to f_1): @user_script:1: @user_script: 1: -OOM command not allowed", .outOfMemory, true),
            ("", .server, true),
        ] as [(String, RedisError.Code, Bool)]
    )
    func repliesBecomeCodes(_ text: String, _ code: RedisError.Code, _ mayHaveRun: Bool) {
        let error = RedisError(serverReply: text)
        #expect(error.code == code)
        #expect(error.mayHaveRun == mayHaveRun)
        #expect(error.message.hasPrefix(text))
    }

    @Test func longRepliesAreCut() {
        let error = RedisError(serverReply: "ERR " + String(repeating: "é", count: 5_000))
        #expect(error.message.utf8.count < 1_100)
    }
}

struct RESPValueTests {
    @Test(
        arguments: [
            ("0", 0), ("-1", -1), ("007", 7), ("9223372036854775807", .max), ("-9223372036854775808", .min),
            ("9223372036854775808", nil), ("-9223372036854775809", nil), ("", nil), ("-", nil), ("+1", nil), (" 1", nil), ("1.0", nil),
            ("99999999999999999999999", nil),
        ] as [(String, Int?)]
    )
    func bulksAreReadAsIntegers(_ text: String, _ value: Int?) {
        #expect(RESPValue.bulk(.init(string: text)).int == value)
    }

    @Test func accessorsFitTheCases() {
        #expect(RESPValue.integer(5).string == "5")
        #expect(RESPValue.status("12").int == 12)
        #expect(RESPValue.error("ERR 1").string == nil)
        #expect(RESPValue.null.isNull)
        #expect(RESPValue.array([.null]).array == [.null])
        #expect(RESPValue.array([]).buffer == nil)
    }
}
