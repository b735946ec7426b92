import Glibc

/// The standard normal distribution, and what a forecast of a duration needs of it.
enum Normal {
    /// P(X ≤ x).
    static func cumulative(_ x: Double) -> Double { 0.5 * erfc(-x / squareRootOf2) }

    /// P(X > x), exact far out where `1 - cumulative(x)` is 0.
    static func survival(_ x: Double) -> Double { 0.5 * erfc(x / squareRootOf2) }

    /// The x with P(X ≤ x) = p; infinite at 0 and 1, not a number outside.
    ///
    /// Acklam's rational approximation (relative error 1.2e-9) and one step of Halley's method.
    static func quantile(_ p: Double) -> Double {
        guard p > 0 else { return p == 0 ? -.infinity : .nan }
        guard p < 1 else { return p == 1 ? .infinity : .nan }
        var x: Double
        if p < tail {
            x = tailQuantile((-2 * log(p)).squareRoot())
        } else if p > 1 - tail {
            x = -tailQuantile((-2 * log1p(-p)).squareRoot())
        } else {
            let q = p - 0.5
            let r = q * q
            let numerator = ((((a.0 * r + a.1) * r + a.2) * r + a.3) * r + a.4) * r + a.5
            let denominator = ((((b.0 * r + b.1) * r + b.2) * r + b.3) * r + b.4) * r + 1
            x = numerator * q / denominator
        }
        // In the upper half the survival function keeps the digits.
        let error = x > 0 ? (1 - p) - survival(x) : cumulative(x) - p
        let step = error * rootOf2Pi * exp(x * x / 2)
        if step.isFinite { x -= step / (1 + x * step / 2) }
        return x
    }

    private static let squareRootOf2 = 1.414_213_562_373_095_1
    private static let rootOf2Pi = 2.506_628_274_631_000_5
    private static let tail = 0.02425

    private static let a = (
        -3.969683028665376e+01, 2.209460984245205e+02, -2.759285104469687e+02, 1.383577518672690e+02, -3.066479806614716e+01,
        2.506628277459239e+00
    )
    private static let b = (
        -5.447609879822406e+01, 1.615858368580409e+02, -1.556989798598866e+02, 6.680131188771972e+01, -1.328068155288572e+01
    )

    private static func tailQuantile(_ q: Double) -> Double {
        let numerator =
            ((((-7.784894002430293e-03 * q - 3.223964580411365e-01) * q - 2.400758277161838e+00) * q - 2.549732539343734e+00) * q
                + 4.374664141464968e+00) * q + 2.938163982698783e+00
        let denominator =
            (((7.784695709041462e-03 * q + 3.224671290700398e-01) * q + 2.445134137142996e+00) * q + 3.754408661907416e+00) * q + 1
        return numerator / denominator
    }
}
