//! Outputs of the graphs of one run, by name, until they are cut into those of the images.

use ort::value::DynValue;

/// Values by name. A run has a handful, so that lookups are linear.
#[derive(Debug, Default)]
pub(super) struct Values(Vec<(String, DynValue)>);

impl Values {
    pub(super) fn new(names: Vec<String>, values: Vec<DynValue>) -> Self {
        Self(names.into_iter().zip(values).collect())
    }

    pub(super) fn find(&self, name: &str) -> Option<&DynValue> {
        self.0.iter().find(|(known, _)| known == name).map(|(_, value)| value)
    }

    pub(super) fn take(&mut self, name: &str) -> Option<DynValue> {
        let idx = self.0.iter().position(|(known, _)| known == name)?;
        Some(self.0.swap_remove(idx).1)
    }
}
