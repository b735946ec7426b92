@testable import Gateway

extension RawClient.Response {
    /// The member at a path of names, as text: a string's content, else the value's JSON. Nil when absent or no JSON.
    func member(_ path: String...) -> String? {
        guard let json = try? CheckedJSON(body, maximumDepth: 32) else { return nil }
        var value = json.root
        for name in path {
            var found: JSONView?
            value.forEachMember { member, inner in if member == name { found = inner } }
            guard let found else { return nil }
            value = found
        }
        return value.string ?? value.raw
    }
}
