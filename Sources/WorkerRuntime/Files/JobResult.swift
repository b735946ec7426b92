import JobStore

/// The result of a job: its files, and what the generator said of itself.
enum JobResult {
    /// `{"files":[…], …the members of the generator's own result}`.
    ///
    /// - Parameters:
    ///   - urls: address of each file by its name; none when it stays on this machine.
    ///   - ownJSON: the generator's result, a validated JSON object; a member `files` in it gives way to ours.
    /// - Returns: the JSON, and whether the generator's part was left out because the whole would be larger than a result may be.
    static func compose(
        files: [OutputFile],
        url: (OutputFile) -> String?,
        ownJSON: String?,
        limit: Int = StoreLimits.resultBytes
    ) -> (json: String, isCut: Bool) {
        var list = ""
        for file in files {
            let type = JSONText.quoted(FileName.contentType(file.name))
            var entry = "{\"name\":\(JSONText.quoted(file.name)),\"bytes\":\(file.bytes),\"content_type\":\(type)"
            if let url = url(file) { entry += ",\"url\":\(JSONText.quoted(url))" }
            list += (list.isEmpty ? "" : ",") + entry + "}"
        }
        let own = ownJSON.flatMap(members) ?? ""
        var whole = "{\"files\":["
        whole.reserveCapacity(list.utf8.count + own.utf8.count + 16)
        whole += list
        whole += own.isEmpty ? "]" : "],"
        whole += own
        whole += "}"
        if whole.utf8.count <= limit { return (whole, false) }
        let plain = "{\"files\":[\(list)]}"
        return (plain.utf8.count <= limit ? plain : "{\"files\":[],\"file_count\":\(files.count)}", true)
    }

    /// The members of an object as text, without `files`.
    private static func members(_ json: String) -> String? {
        do throws(JSONScanner.Malformed) {
            let bytes = Array(json.utf8)
            var scanner = try JSONScanner(bytes)
            guard case .object(let range) = try scanner.document() else { return nil }
            // The rule: nothing to leave out, nothing between the members. Their text goes on as it is.
            if isCompact(bytes), !JSONScanner.mayHold(member: "files", json) { return scanner.text(1..<bytes.count - 1) }
            return try scanner.members(of: range).filter { $0.name != "files" }
                .map { "\(JSONText.quoted($0.name)):\(scanner.text($0.text))" }.joined(separator: ",")
        } catch {
            return nil
        }
    }

    /// On one line, without space around the members as a whole.
    private static func isCompact(_ object: [UInt8]) -> Bool {
        object.count > 2 && object[1] == UInt8(ascii: "\"") && object.last == UInt8(ascii: "}")
            && object[object.count - 2] != 0x20 && !object.contains { $0 < 0x20 }
    }
}
