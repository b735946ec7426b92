import JobStore

/// Who is asking. Every route has one, also where everybody may do everything.
///
/// Jobs store the owner that submitted them; whoever reads or changes a job is compared with it, here and nowhere else.
struct Principal: Sendable, Hashable {
    /// Whose jobs this one submits.
    let owner: Owner
    /// No credentials were shown.
    let isAnonymous: Bool

    static let anonymous = Principal(owner: .anonymous, isAnonymous: true)

    func mayView(_ owner: Owner) -> Bool { owner == self.owner }

    func mayChange(_ owner: Owner) -> Bool { owner == self.owner }
}
