//! The one refusal of this room: what was sent makes no sense.

/// A message or a record that can't be understood. Nothing was done with it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {reason}")]
pub struct Malformed {
    /// The path as the sender wrote it, such as `transfers[3].code`.
    pub field: String,
    /// What is wrong with it, for people.
    pub reason: String,
}

impl Malformed {
    pub fn new(field: impl Into<String>, reason: impl Into<String>) -> Self {
        Self { field: field.into(), reason: reason.into() }
    }

    /// The same refusal, seen from the message that holds this one.
    pub fn within(self, outer: &str) -> Self {
        Self { field: format!("{outer}.{}", self.field), reason: self.reason }
    }
}
