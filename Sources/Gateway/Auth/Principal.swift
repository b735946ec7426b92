import JobStore

/// Who asks. Every route and every watch has one, from the first day; in this storey everybody is anonymous.
struct Principal: Sendable, Hashable {
    let owner: Owner
    let isAnonymous: Bool

    static let anonymous = Principal(owner: .anonymous, isAnonymous: true)

    /// May see a job of this owner.
    func mayView(_ owner: Owner) -> Bool { owner == self.owner }

    /// May cancel or retry a job of this owner.
    func mayChange(_ owner: Owner) -> Bool { owner == self.owner }
}
