//! Tables of classes: names, colours, and the values that stand for them in files of labels.
//!
//! # Design
//! The known data sets are described as anybody's own is, by a `classes.toml`; theirs are compiled in.

use std::path::Path;

use densevit::manifest::ClassSpec;
use serde::Deserialize;

use crate::segmentation::data::DataError;

/// Label of pixels that do not count. There are at most as many classes.
pub const IGNORED: u8 = 255;

/// Classes of a data set, and which of them a value in a file stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Classes {
    list: Vec<ClassSpec>,
    /// By value: class, [`IGNORED`], or none for values that should not be there.
    of_value: Vec<Option<u8>>,
}

/// `classes.toml`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Table {
    /// Values of pixels that do not count.
    #[serde(default)]
    ignore: Vec<u16>,
    class: Vec<Row>,
}

/// One class of a table.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Row {
    name: String,
    color: [u8; 3],
    /// Values that stand for it; none means its place in the table.
    #[serde(default)]
    values: Vec<u16>,
}

impl Classes {
    /// Reads a table (TOML); `path` is named in errors.
    ///
    /// # Errors
    /// [`DataError::Classes`] for something that is no table, no or too many classes, and a value that stands for two.
    pub fn parse(text: &str, path: &Path) -> Result<Self, DataError> {
        let bad = |problem: String| DataError::Classes { path: path.to_path_buf(), problem };
        let table: Table = toml::from_str(text).map_err(|error| bad(error.to_string()))?;
        if table.class.is_empty() || table.class.len() > usize::from(IGNORED) {
            return Err(bad(format!("{} classes: 1 to {IGNORED} are possible", table.class.len())));
        }
        let mut classes = Self { list: Vec::new(), of_value: Vec::new() };
        for value in table.ignore {
            classes.claim(value, IGNORED).map_err(bad)?;
        }
        for (class, row) in (0u8..).zip(table.class) {
            let values = if row.values.is_empty() { vec![u16::from(class)] } else { row.values };
            for value in values {
                classes.claim(value, class).map_err(bad)?;
            }
            classes.list.push(ClassSpec { name: row.name, color: row.color });
        }
        Ok(classes)
    }

    fn claim(&mut self, value: u16, class: u8) -> Result<(), String> {
        let place = usize::from(value);
        self.of_value.resize(self.of_value.len().max(place + 1), None);
        match self.of_value[place].replace(class) {
            None => Ok(()),
            Some(_taken) => Err(format!("value {value} stands for two things")),
        }
    }

    /// Names and colours.
    #[must_use]
    pub fn list(&self) -> &[ClassSpec] {
        &self.list
    }

    /// Number of classes (K).
    #[must_use]
    pub fn len(&self) -> usize {
        self.list.len()
    }

    /// Never: a table has a class.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// Class of a value, or [`IGNORED`]; none if it should not be there.
    #[must_use]
    pub fn of(&self, value: u16) -> Option<u8> {
        self.of_value.get(usize::from(value)).copied().flatten()
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use super::*;

    fn parse(text: &str) -> Result<Classes, String> {
        Classes::parse(text, Path::new("classes.toml")).map_err(|error| error.to_string())
    }

    #[test]
    fn values_stand_for_the_place_in_the_table_unless_they_are_listed() {
        let text =
            "ignore = [9]\nclass = [{ name = 'a', color = [1, 2, 3] }, { name = 'b', color = [0, 0, 0], values = [4, 700] }]";
        let classes = parse(text).unwrap();
        let values = [0, 1, 4, 9, 700, 701].map(|value| classes.of(value));
        assert_eq!(values, [Some(0), None, Some(1), Some(IGNORED), Some(1), None]);
        assert_eq!((classes.len(), classes.list()[0].color), (2, [1, 2, 3]));
    }

    #[test]
    fn tables_that_contradict_themselves_name_their_file() {
        let two = parse("ignore = [0]\nclass = [{ name = 'a', color = [0, 0, 0] }]").unwrap_err();
        assert_eq!(two, "classes.toml: value 0 stands for two things");
        assert!(parse("class = []").unwrap_err().contains("0 classes"));
        assert!(parse("klass = []").unwrap_err().contains("unknown field"));
    }
}
