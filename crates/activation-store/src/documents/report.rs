//! What was left out while documents were read: [`DocumentReport`].

/// What a source of documents left out. Nothing is left out without being counted here.
///
/// The counts are those of what has been handed out so far, exact at the end of the stream.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[non_exhaustive]
pub struct DocumentReport {
    /// Documents without a value: `null` (also `NaN`, as pandas writes it) in the field of documents, a whole row that is null, or a
    /// conversation without messages.
    pub null_documents: u64,
    /// Conversations that are not well-formed (a message without a role), or that the chat template refuses (two messages of a user one after another).
    pub refused_conversations: u64,
    /// Files without a single document, beside others that have some.
    pub empty_files: u64,
}

impl DocumentReport {
    /// Whether nothing was left out.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Adds the counts of another stretch of the stream.
    pub(crate) fn add(&mut self, other: Self) {
        let Self { null_documents, refused_conversations, empty_files } = other;
        self.null_documents += null_documents;
        self.refused_conversations += refused_conversations;
        self.empty_files += empty_files;
    }
}
