import NIOCore
import TestSupport
import Testing

@testable import Gateway

@Suite(.timeLimit(.minutes(5))) struct BlobNameTests {
    @Test(arguments: [
        "photo.jpg", "a", "Ünïcode ☃.png", "with space", "a..b", "a.", "CON", "-rf", "%2e%2e", "~", "a:b",
        String(repeating: "a", count: 255),
    ])
    func takesPlainNames(_ name: String) { #expect(BlobName(name)?.text == name) }

    @Test(arguments: [
        "", ".", "..", ".hidden", "...", "/", "a/b", "../a", "a/../b", "\\", "a\\b", "C:\\x", "\0", "a\0b", "a\nb", "a\rb", "\u{7f}",
        "a\u{85}b",
        "\u{202e}gpj.exe", "a\u{200b}b", "a\u{2028}b", "\u{feff}a", "a\u{2066}b", ".\u{301}", String(repeating: "a", count: 256),
        String(repeating: "é", count: 128),
    ]) func refusesWhatIsNoPlainName(_ name: String) { #expect(BlobName(name) == nil) }

    /// Whatever is let through is one path segment and would show as what it is.
    @Test func hostileNamesByTheThousand() {
        var generator = SeededGenerator(seed: 99)
        let alphabet = Array("./\\\0\n%2eabc:~ \u{202e}\u{2028}\u{85}é☃".unicodeScalars)
        var taken = 0
        for _ in 0..<30_000 {
            var text = ""
            for _ in 0..<Int.random(in: 0...10, using: &generator) {
                let scalar =
                    generator.chance(85)
                    ? alphabet.randomElement(using: &generator) : Unicode.Scalar(UInt32.random(in: 0...0x10_ffff, using: &generator))
                if let scalar { text.unicodeScalars.append(scalar) }
            }
            guard let name = BlobName(text) else { continue }
            taken += 1
            let bytes = Array(name.text.utf8)
            #expect((1...255).contains(bytes.count) && bytes[0] != UInt8(ascii: "."))
            #expect(!bytes.contains { $0 < 0x20 || $0 == UInt8(ascii: "/") || $0 == UInt8(ascii: "\\") || $0 == 0x7f })
        }
        #expect(taken > 500)
    }

    @Test func imagesAreToldByTheirFirstBytes() {
        let images: [[UInt8]] = [
            [0x89, 0x50, 0x4e, 0x47, 0x0d, 0x0a, 0x1a, 0x0a], [0xff, 0xd8, 0xff, 0xe0], Array("GIF89a".utf8),
            Array("RIFF\0\0\0\0WEBPVP8 ".utf8),
            Array("BM\0\0\0\0".utf8), Array("\0\0\0\u{1c}ftypavif".utf8),
        ]
        for head in images { #expect(ContentType.isImage(ByteBuffer(bytes: head)), "\(head)") }
        let others = [
            "", "B", "P", "<svg", "<!DOCTYPE html>", "RIFF\0\0\0\0WAVE", "\0\0\0\u{1c}ftypisom", "%PDF-1.4", "GIF", "\u{ff}\u{d8}", "PNG",
        ]
        for head in others { #expect(!ContentType.isImage(ByteBuffer(string: head)), "\(head)") }
    }

    @Test func typesFollowTheEndOfTheName() {
        #expect(ContentType.ofName("a.GLB") == "model/gltf-binary")
        #expect(ContentType.ofName("a.b.png") == "image/png")
        // Never a type that a browser would run.
        for name in ["a.html", "a.htm", "a.svg", "a.js", "a.xml", "a.xhtml", "a", "a.", "html"] {
            #expect(ContentType.ofName(name) == "application/octet-stream", "\(name)")
        }
    }
}
