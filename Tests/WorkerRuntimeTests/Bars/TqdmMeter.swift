import Foundation

/// A port of `tqdm.std.tqdm.format_meter` (tqdm 4.70.1), statement by statement, so that the parser is held against what tqdm draws
/// and not against what we believe that it draws. Left out: `bar_format` and `rate` given by hand.
struct TqdmMeter {
    var n = 0.0
    var total: Double?
    var elapsed = 0.0
    var ncols: Int?
    var prefix = ""
    var ascii = false
    var unit = "it"
    var unitScale = false
    var postfix = ""
    var unitDivisor = 1000.0
    /// Counts are Python integers: printed without a point.
    var isInteger = true
    var colour = ""

    static func formatInterval(_ t: Double) -> String {
        let sign = t < 0 ? "-" : ""
        let all = Int(t.magnitude)
        let (minutes, s) = all.quotientAndRemainder(dividingBy: 60)
        let (h, m) = minutes.quotientAndRemainder(dividingBy: 60)
        func two(_ value: Int) -> String { value < 10 ? "0\(value)" : "\(value)" }
        return h > 0 ? "\(sign)\(h):\(two(m)):\(two(s))" : "\(sign)\(two(m)):\(two(s))"
    }

    static func formatSizeof(_ number: Double, divisor: Double) -> String {
        var num = number
        for unit in ["", "k", "M", "G", "T", "P", "E", "Z"] {
            if abs(num) < 999.5 {
                if abs(num) < 99.95 {
                    if abs(num) < 9.995 { return String(format: "%1.2f", num) + unit }
                    return String(format: "%2.1f", num) + unit
                }
                return String(format: "%3.0f", num) + unit
            }
            num /= divisor
        }
        return String(format: "%3.1fY", num)
    }

    private func str(_ value: Double) -> String {
        if isInteger { return String(Int(value)) }
        return value == value.rounded() ? String(format: "%.1f", value) : "\(value)"
    }

    private var bar: (Double, Int) -> String {
        { frac, width in
            let charset: [Character] = ascii ? Array(" 123456789#") : [" ", "▏", "▎", "▍", "▌", "▋", "▊", "▉", "█"]
            let nsyms = charset.count - 1
            let (length, part) = Int(frac * Double(width) * Double(nsyms)).quotientAndRemainder(dividingBy: nsyms)
            var res = String(repeating: charset[nsyms], count: length)
            if length < width { res += String(charset[part]) + String(repeating: charset[0], count: width - length - 1) }
            return colour.isEmpty ? res : colour + res + "\u{1b}[0m"
        }
    }

    /// What is printed, without the `\r` in front of it.
    func text() -> String {
        var total = total
        if let all = total, all != 0, n >= all + 0.5 || all == .infinity { total = nil }
        if total == 0 { total = 0 }
        let rate = elapsed > 0 ? n / elapsed : nil
        let inverse = rate.flatMap { $0 == 0 ? nil : 1 / $0 }
        func rateText(_ value: Double?) -> String {
            guard let value, value != 0 else { return "?" }
            return unitScale ? Self.formatSizeof(value, divisor: 1000) : String(format: "%5.2f", value)
        }
        let rateFormat = inverse.map { $0 > 1 } == true ? rateText(inverse) + "s/" + unit : rateText(rate) + unit + "/s"
        let nFormat = unitScale ? Self.formatSizeof(n, divisor: unitDivisor) : str(n)
        let totalFormat = total.map { unitScale ? Self.formatSizeof($0, divisor: unitDivisor) : str($0) } ?? "?"
        let post = postfix.isEmpty ? "" : ", " + postfix
        let hasTotal = total.map { $0 != 0 } ?? false
        let remaining = rate.flatMap { $0 == 0 ? nil : (hasTotal ? ((total ?? 0) - n) / $0 : 0) }
        let remainingText = remaining.map { Self.formatInterval(min($0, 1e12)) } ?? "?"
        let elapsedText = Self.formatInterval(elapsed)
        var left = prefix.isEmpty ? "" : (prefix.hasSuffix(": ") ? prefix : prefix + ": ")
        let right = "| \(nFormat)/\(totalFormat) [\(elapsedText)<\(remainingText), \(rateFormat)\(post)]"
        guard hasTotal, let total else {
            let res = "\(prefix.isEmpty ? "" : prefix + ": ")\(nFormat)\(unit) [\(elapsedText), \(rateFormat)\(post)]"
            return trimmed(res)
        }
        let frac = n / total
        left += String(format: "%3.0f", frac * 100) + "%|"
        if ncols == 0 { return String(left.dropLast()) + String(right.dropFirst()) }
        let width = ncols.map { max(1, $0 - left.count - right.count) } ?? 10
        return trimmed(left + bar(frac, width) + right)
    }

    private func trimmed(_ text: String) -> String {
        guard let ncols, ncols > 0 else { return text }
        // Codes of colours have no width.
        let visible = colour.isEmpty ? text.count : text.count - colour.count - 4
        return visible > ncols ? String(text.prefix(ncols)) : text
    }
}
