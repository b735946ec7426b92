import TestSupport
import Testing

@testable import WorkerRuntime

struct BarLineTests {
    private func parse(_ text: String) -> BarLine? { BarLine(Array(text.utf8)) }

    // MARK: tqdm

    @Test(
        arguments: [
            ("  0%|          | 0/50 [00:00<?, ?it/s]", "", 0, 50, 0.0),
            ("Volume Decoding:  50%|█████     | 25/50 [00:12<00:12,  2.00it/s]", "Volume Decoding", 25, 50, 0.5),
            ("  6%|▋         | 3/50 [1:06:40<17:24:34, 1333.50s/it]", "", 3, 50, 0.06),
            ("Diffusion Sampling::  40%|####      | 20/50 [00:25<00:37,  1.25s/it]", "Diffusion Sampling", 20, 50, 0.4),
            (
                "Loading pipeline components...:  43%|████▎     | 3/7 [00:02<00:03,  1.20it/s]", "Loading pipeline components...", 3, 7,
                3.0 / 7
            ),
            ("Fetching 12 files: 100%|##########| 12/12 [00:00<00:00, 7.31it/s]", "Fetching 12 files", 12, 12, 1),
            ("Loading checkpoint shards:   0%|          | 0/2 [00:00<?, ?it/s]", "Loading checkpoint shards", 0, 2, 0),
            (" 40% 20/50 [00:25<00:37,  1.25s/it]", "", 20, 50, 0.4),
            ("x:  40% 20/50 [00:25<00:37,  1.25s/it, loss=[0.1, 0.2]]", "x", 20, 50, 0.4),
            ("45%|####5     | 9/20 [00:05<00:06,  1.80it/s, loss=0.123]", "", 9, 20, 0.45),
            (
                "      1/100     2.46G      1.05      2.1        45        640:  45%|████▌     | 9/20 [00:05<00:06,  1.80it/s]",
                "1/100     2.46G      1.05      2.1        45        640", 9, 20, 0.45
            ),
            ("50%|█████     | 0.5/1 [00:01<00:01, 1.0it/s]", "", 0.5, 1, 0.5),
            ("a 7% discount:  50%|█████     | 5/10 [00:01<00:01, 5.00it/s]", "a 7% discount", 5, 10, 0.5),
            ("Epoch 0:  45%|████▌     | 9/20 [00:05<00:06,  1.80it/s, v_num=0]", "Epoch 0", 9, 20, 0.45),
            ("step:  45%|>>>>      | 9/20 [00:05<00:06,  1.80it/s]", "step", 9, 20, 0.45),
        ] as [(String, String, Double, Double, Double)]
    )
    func barsWithATotalAreRead(_ text: String, title: String, done: Double, total: Double, fraction: Double) throws {
        let line = try #require(parse(text))
        #expect(line.style == .meter)
        #expect(line.title == title)
        #expect(line.done == done)
        #expect(line.total == total)
        #expect(try abs(#require(line.fraction) - fraction) < 1e-9)
        #expect(line.isComplete)
        #expect(line.restStart == nil)
    }

    @Test(
        arguments: [
            ("Loading: 7it [00:03,  2.33it/s]", "Loading", 7.0), ("0it [00:00, ?it/s]", "", 0), ("60it [00:03, 20.00it/s]", "", 60),
            ("Generating train split: 120 examples [00:00, 1000.12 examples/s]", "Generating train split", 120),
            ("12it [00:40,  3.33s/it]", "", 12), ("1.20GB [00:40, 30.0MB/s]", "", 1.2e9),
            ("tokens: 3.4k tok [00:01, 3.4k tok/s]", "tokens", 3400),
        ] as [(String, String, Double)]
    )
    func barsWithoutATotalAreCounts(_ text: String, title: String, done: Double) throws {
        let line = try #require(parse(text))
        #expect(line.title == title)
        #expect(line.done == done)
        #expect(line.total == nil)
        #expect(line.fraction == nil)
        #expect(line.isComplete)
    }

    @Test func bytesKeepTheRatioAndAreNoSteps() throws {
        let line = try #require(parse("model.safetensors:   7%|██▊ | 7.34M/105M [00:03<00:39, 2.45MB/s]"))
        #expect(line.title == "model.safetensors")
        #expect(!line.isExact)
        #expect(try abs(#require(line.fraction) - 7.34 / 105) < 1e-9)
    }

    @Test func whatIsPrintedBehindABarIsTheRest() throws {
        let text = " 45%|████▌     | 9/20 [00:05<00:06,  1.80it/s]hello world"
        let line = try #require(parse(text))
        #expect(line.done == 9)
        let rest = try #require(line.restStart)
        #expect(String(decoding: Array(text.utf8)[rest...], as: UTF8.self) == "hello world")
    }

    /// tqdm's own formatter against the parser: thousands of random bars.
    @Test(arguments: 0..<24) func whatTqdmDrawsIsRead(_ seed: Int) throws {
        var random = SeededGenerator(seed)
        for _ in 0..<250 {
            let (meter, title) = Self.meter(&random)
            let text = meter.text()
            let pieces = Array(text.utf8).withUnsafeBytes { TerminalText.pieces(of: $0) }
            #expect(pieces.count == 1)
            let line = try #require(pieces.first.flatMap { BarLine($0.text) }, "\(text)")
            #expect(line.title == title, "\(text)")
            #expect(line.isComplete && line.restStart == nil, "\(text)")
            #expect(line.elapsed == Int(meter.elapsed), "\(text)")
            if let total = meter.total, total > 0, meter.n < total + 0.5 {
                let fraction = try #require(line.fraction)
                #expect(abs(fraction - meter.n / total) <= (meter.unitScale ? 0.012 : 1e-9), "\(text)")
                if meter.isInteger, !meter.unitScale {
                    #expect(line.isExact && line.done == meter.n && line.total == total, "\(text)")
                }
            } else {
                #expect(line.total == nil && line.fraction == nil, "\(text)")
                if meter.isInteger, !meter.unitScale { #expect(line.done == meter.n, "\(text)") }
            }
        }
    }

    /// A narrow terminal cuts bars anywhere. What is left is read right or not at all.
    @Test(arguments: 0..<16) func cutBarsAreNeverMisread(_ seed: Int) throws {
        var random = SeededGenerator(1000 + seed)
        for _ in 0..<150 {
            var (meter, title) = Self.meter(&random)
            meter.ncols = Int.random(in: 5...90, using: &random)
            guard let line = BarLine(Array(meter.text().utf8)) else { continue }
            let text = meter.text()
            if let total = meter.total, total > 0, meter.n < total + 0.5 {
                let fraction = try #require(line.fraction, "\(text)")
                #expect(abs(fraction - meter.n / total) <= 0.016, "\(text)")
                #expect(line.title == title, "\(text)")
                if let known = line.total, line.isExact { #expect(known == total, "\(text)") }
            } else {
                #expect(line.fraction == nil, "\(text)")
            }
        }
    }

    private static func meter(_ random: inout SeededGenerator) -> (TqdmMeter, title: String) {
        let titles = [
            "", "", "Loading", "Diffusion Sampling:", "Epoch 3/10", "Hierarchical Volume Decoding [r384]", "a 7% discount", "a|b",
            "Größe 日本語",
            "model-00001-of-00003.safetensors", "Downloading (…)lve/main/config.json", "loss=0.12 acc=93.1%", "x: y", "[12:30] job",
        ]
        var meter = TqdmMeter()
        let title = titles.randomElement(using: &random) ?? ""
        meter.prefix = title
        meter.isInteger = Int.random(in: 0..<6, using: &random) > 0
        let total = Double(Int.random(in: 1...([20, 1000, 5_000_000, 3_000_000_000].randomElement(using: &random) ?? 20), using: &random))
        meter.total = Int.random(in: 0..<5, using: &random) > 0 ? total : nil
        meter.n = Double(Int.random(in: 0...Int(total), using: &random))
        if Int.random(in: 0..<12, using: &random) == 0 { meter.n = total }
        if Int.random(in: 0..<20, using: &random) == 0 { meter.n = total + 7 }
        if !meter.isInteger { meter.n = (meter.n * 0.37 * 8).rounded() / 8 }
        meter.elapsed = Double.random(in: 0...([1, 100, 4000, 400_000].randomElement(using: &random) ?? 1), using: &random)
        meter.ascii = Bool.random(using: &random)
        meter.unit = ["it", "it", "B", " files", "img", " samples", "s"].randomElement(using: &random) ?? "it"
        meter.unitScale = Int.random(in: 0..<4, using: &random) == 0
        meter.unitDivisor = Bool.random(using: &random) ? 1000 : 1024
        meter.postfix = ["", "", "loss=0.123", "lr=1e-4, loss=[0.1, 0.2]", "a|b", "GPU 45%"].randomElement(using: &random) ?? ""
        meter.ncols = [nil, nil, 0, 200, 240].randomElement(using: &random) ?? nil
        if meter.ncols != 0, Int.random(in: 0..<6, using: &random) == 0 { meter.colour = "\u{1b}[32m" }
        return (meter, title.hasSuffix(":") ? String(title.dropLast()) : title)
    }

    // MARK: Others

    @Test(
        arguments: [
            ("Downloading ━━━━━━━━━━━━━━━━━━━━╸━━━━━━━━━━━━━━━━━━━  50% 0:00:12", "Downloading", 0.5),
            ("   ━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━ 1.2/4.8 MB 5.6 MB/s eta 0:00:01", "", 0.25),
            ("Working... ━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━ 100% 0:00:00", "Working...", 1),
            ("9/20 ━━━━━━━━━━━━━━━━━━━━ 5s 6ms/step - loss: 0.3120", "", 0.45),
            ("9/20 [============>.................] - ETA: 5s - loss: 0.3120 - acc: 93%", "", 0.45),
            ("render [####----]   50%  00:00:03", "render", 0.5), ("[=========>          ] 45%", "", 0.45),
            ("file.bin             45%[========>           ]   1.20M  3.40MB/s    eta 5s", "file.bin", 0.45),
            ("Progress: [ 45%] [#####.........]", "Progress", 0.45), ("|██████████          | 9/20 [45%] in 5s (1.8/s, eta: 6s)", "", 0.45),
            (" 45% (9 of 20) |#####      | Elapsed Time: 0:00:05 ETA:   0:00:06", "", 0.45),
            ("Rendering ⣿⣿⣿⣿⣿⣿⣿⣀⣀⣀ 70%", "Rendering", 0.7), ("Loading ▓▓▓▓▓░░░░░ 5/10", "Loading", 0.5),
        ] as [(String, String, Double)]
    )
    func drawnBarsAreRead(_ text: String, title: String, fraction: Double) throws {
        let line = try #require(parse(text))
        #expect(line.title == title)
        #expect(try abs(#require(line.fraction) - fraction) < 1e-9)
    }

    @Test(
        arguments: [
            ("45%", "", 0.45), ("  7 %", "", 0.07), ("12.5%", "", 0.125), ("Progress: 45%", "Progress", 0.45),
            ("Rendering 45.5 % done", "Rendering", 0.455),
            ("[ 45%] Building CXX object foo.o", "", 0.45), ("Extracting (45%)", "Extracting", 0.45), ("50% complete", "", 0.5),
            ("###############   12.5%", "", 0.125), ("Loading model... 30%", "Loading model", 0.3), ("progress=99%", "progress", 0.99),
        ] as [(String, String, Double)]
    )
    func percentagesInWordsAreRead(_ text: String, title: String, fraction: Double) throws {
        let line = try #require(parse(text))
        #expect(line.style == .percent)
        #expect(line.title == title)
        #expect(line.fraction == fraction)
    }

    @Test(arguments: [
        "", "%", "100", "step 3/20", "Step 3/20: doing things", "epoch 3 of 20", "[3/20] compiling", "9/20", "processed 9/20 images",
        "CPU usage 45%", "GPU 0: 45%", "accuracy: 93.4%", "loss reduced by 20%", "Using 45% of memory", "load average: 45%", "val_acc 93%",
        "| 30%   34C    P8     9W / 350W |      1MiB / 24268MiB |      0%      Default |", "compression quality: 80%",
        "Encoding quality: 80%",
        "confidence 99%", "a 45% discount and 12% more", "discount 45%", "http://host/a%20b/45%", "100%sure", "120%", "1e5%", "x=%d 45%%",
        "2024-01-01 12:00:00,123 [INFO] worker: 9/20 done", "took 12 [00:05, then 00:06]", "Iteration 7 [00:03, foo]",
        "[12:34:56, INFO] message",
        "━━━━━━━━━━━━━━━━━━━━━━━━━━━━", "│ GPU 0 │ 45% │ 9/20 │", "┃ name ┃ 45% ┃", "| name | 45% | 9/20 |", "-------------- 9/20",
        "==== 3/20 ====",
        "table: |-----|-----| 5", "Train: 45% | Test: 55%", "45%| of people", "array([1, 2, 3])", "ETA 00:05:12", "files: 12it",
        "tests 100% passed",
        "Progress: 120%", "progress 50% to 70%", "the progress of the last seven days was 45%", "dropout: 50%", "memory: [#####-----] used",
    ])
    func whatIsNoProgressIsNotMisread(_ text: String) {
        #expect(parse(text) == nil)
    }

    @Test(arguments: 0..<12) func anythingAtAllIsReadWithoutHarm(_ seed: Int) {
        var random = SeededGenerator(seed)
        let alphabet = Array("0123456789%%||//[]<,:. itsB█━#=->\u{1b}ABab\r".utf8) + [0xe2, 0x94, 0xff, 0x80]
        for _ in 0..<1500 {
            let bytes = (0..<Int.random(in: 0...60, using: &random)).map { _ in alphabet.randomElement(using: &random) ?? 0 }
            for piece in bytes.withUnsafeBytes({ TerminalText.pieces(of: $0) }) {
                guard let line = BarLine(piece.text) else { continue }
                #expect(line.fraction.map { (0...1).contains($0) } ?? true)
                #expect(line.percent.map { (0...100).contains($0) } ?? true)
                #expect(line.restStart.map { $0 < piece.text.count } ?? true)
            }
        }
    }
}
