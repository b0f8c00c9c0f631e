//! What is asked, in a form of which no two requests have the same.

use std::{
    fmt,
    hash::{Hash, Hasher},
    sync::Arc,
};

use sha2::{Digest as _, Sha256};

/// Options one after another, always in one order. Numbers have a fixed width; texts, lists and choices say their length or their kind first. So
/// who knows the order could read the values back from the bytes, and no two requests have the same.
#[derive(Clone, Debug, Default)]
pub struct Fields(Vec<u8>);

/// A request as the cache knows it.
#[derive(Clone)]
pub struct Question {
    digest: [u8; 32],
    fields: Arc<[u8]>,
    n_content_bytes: u64,
}

impl Fields {
    /// Adds a number: a value, a count, or which of several alternatives follows.
    pub fn number(&mut self, value: impl Into<u64>) {
        self.0.extend_from_slice(&value.into().to_le_bytes());
    }

    /// Adds a number of double precision, bit by bit: 0 and -0 are two values.
    pub fn float(&mut self, value: f64) {
        self.number(value.to_bits());
    }

    /// Adds a text.
    pub fn text(&mut self, value: &str) {
        self.number(value.len() as u64);
        self.0.extend_from_slice(value.as_bytes());
    }

    /// Adds what may be missing.
    pub fn option<T>(&mut self, value: Option<T>, write: impl FnOnce(&mut Self, T)) {
        self.number(value.is_some());
        if let Some(value) = value {
            write(self, value);
        }
    }

    /// Adds a list.
    pub fn list<T>(&mut self, values: &[T], mut write: impl FnMut(&mut Self, &T)) {
        self.number(values.len() as u64);
        values.iter().for_each(|value| write(self, value));
    }
}

impl Question {
    /// The question that these options ask of these contents. Takes the time of a SHA-256 of both.
    #[must_use]
    pub fn new(fields: Fields, contents: &[u8]) -> Self {
        let n_content_bytes = contents.len() as u64;
        let mut hasher = Sha256::new();
        hasher.update((fields.0.len() as u64).to_le_bytes());
        hasher.update(&fields.0);
        hasher.update(n_content_bytes.to_le_bytes());
        hasher.update(contents);
        Self { digest: hasher.finalize().into(), fields: fields.0.into(), n_content_bytes }
    }

    /// Memory that it holds outside of itself, in bytes.
    #[must_use]
    pub fn n_bytes(&self) -> usize {
        self.fields.len()
    }
}

impl PartialEq for Question {
    fn eq(&self, other: &Self) -> bool {
        let Self { digest, fields, n_content_bytes } = self;
        *digest == other.digest && *n_content_bytes == other.n_content_bytes && *fields == other.fields
    }
}

impl Eq for Question {}

impl Hash for Question {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.digest.hash(state);
    }
}

impl fmt::Debug for Question {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, ..] = self.digest;
        write!(f, "Question({a:02x}{b:02x}{c:02x}{d:02x}..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(contents: &[u8], write: impl FnOnce(&mut Fields)) -> Question {
        let mut fields = Fields::default();
        write(&mut fields);
        Question::new(fields, contents)
    }

    #[test]
    fn texts_lists_and_contents_cannot_flow_into_each_other() {
        let questions = [
            asked(b"ab", |_| {}),
            asked(b"abc", |_| {}),
            asked(b"", |fields| fields.text("ab")),
            asked(b"b", |fields| fields.text("a")),
            asked(b"", |fields| {
                fields.text("a");
                fields.text("b");
            }),
            asked(b"", |fields| fields.list(&["a", "b"], |fields, text| fields.text(text))),
            asked(b"", |fields| fields.list(&["ab"], |fields, text| fields.text(text))),
            asked(b"", |fields| fields.option(None::<u32>, Fields::number)),
            asked(b"", |fields| fields.option(Some(0u32), Fields::number)),
            asked(b"", |fields| fields.option(Some(1u32), Fields::number)),
            asked(b"", |fields| fields.option(Some(-0.0), Fields::float)),
        ];
        for (idx, question) in questions.iter().enumerate() {
            assert!(questions.iter().skip(idx + 1).all(|other| other != question && other.digest != question.digest), "{idx}");
        }
        assert_eq!(asked(b"ab", |fields| fields.float(0.5)), asked(b"ab", |fields| fields.float(0.5)));
    }

    #[test]
    fn equal_digests_alone_make_no_equal_questions() {
        let question = asked(b"ab", |fields| fields.text("x"));
        let other_size = Question { n_content_bytes: 3, ..question.clone() };
        let other_fields = Question { fields: asked(b"", |fields| fields.text("y")).fields, ..question.clone() };
        assert!(question != other_size && question != other_fields);
    }
}
