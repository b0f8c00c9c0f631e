//! The classes that a caller asked for.

use crate::masks::MaskError;

/// Most classes of a model: every 16-bit label but the one that means void.
pub const MAX_CLASSES: usize = 65_535;

/// Some or all classes of a model, in the caller's order, each once. Never empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClassSet {
    classes: Vec<u16>,
    n_classes: usize,
}

impl ClassSet {
    /// All classes of a model, in its order.
    ///
    /// # Errors
    /// [`MaskError::ClassCount`].
    pub fn all(n_classes: usize) -> Result<Self, MaskError> {
        let last = last_class(n_classes)?;
        Ok(Self { classes: (0..=last).collect(), n_classes })
    }

    /// These classes of a model that has `n_classes`.
    ///
    /// # Errors
    /// [`MaskError::UnknownClass`], [`MaskError::RepeatedClass`], [`MaskError::ClassCount`] when there are none.
    pub fn new(classes: &[usize], n_classes: usize) -> Result<Self, MaskError> {
        last_class(n_classes)?;
        if classes.is_empty() {
            return Err(MaskError::ClassCount { n_classes: 0 });
        }
        let mut is_named = vec![false; n_classes];
        let mut checked = Vec::with_capacity(classes.len().min(n_classes));
        for &class in classes {
            let unknown = MaskError::UnknownClass { class, n_classes };
            let (Some(is_named), Ok(label)) = (is_named.get_mut(class), u16::try_from(class)) else { return Err(unknown) };
            if std::mem::replace(is_named, true) {
                return Err(MaskError::RepeatedClass { class });
            }
            checked.push(label);
        }
        Ok(Self { classes: checked, n_classes })
    }

    /// The classes, in the caller's order.
    #[must_use]
    pub fn classes(&self) -> &[u16] {
        &self.classes
    }

    /// Classes of the model.
    #[must_use]
    pub fn n_classes(&self) -> usize {
        self.n_classes
    }

    /// Whether the set holds every class in the model's order.
    #[must_use]
    pub fn is_all(&self) -> bool {
        self.classes.len() == self.n_classes && self.classes.iter().enumerate().all(|(idx, class)| usize::from(*class) == idx)
    }

    /// For each class of the model, its place in the set.
    pub(super) fn places(&self) -> Vec<Option<usize>> {
        let mut places = vec![None; self.n_classes];
        for (place, class) in self.classes.iter().enumerate() {
            if let Some(entry) = places.get_mut(usize::from(*class)) {
                *entry = Some(place);
            }
        }
        places
    }

    /// Refuses data of another number of classes.
    pub(super) fn check(&self, n_classes: usize) -> Result<(), MaskError> {
        if self.n_classes == n_classes {
            return Ok(());
        }
        Err(MaskError::ForeignClasses { expected: self.n_classes, n_classes })
    }
}

/// The last of `n_classes` classes, where labels can tell them apart.
fn last_class(n_classes: usize) -> Result<u16, MaskError> {
    let last = n_classes.checked_sub(1).filter(|last| *last < MAX_CLASSES).and_then(|last| u16::try_from(last).ok());
    last.ok_or(MaskError::ClassCount { n_classes })
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use super::*;

    #[test]
    fn unknown_repeated_and_no_classes_are_refused() {
        assert!(matches!(ClassSet::new(&[0, 3], 3), Err(MaskError::UnknownClass { class: 3, n_classes: 3 })));
        assert!(matches!(ClassSet::new(&[1, 0, 1], 3), Err(MaskError::RepeatedClass { class: 1 })));
        assert!(matches!(ClassSet::new(&[], 3), Err(MaskError::ClassCount { .. })));
        assert!(matches!(ClassSet::all(0), Err(MaskError::ClassCount { .. })));
        assert!(matches!(ClassSet::all(65_536), Err(MaskError::ClassCount { .. })));
    }

    #[test]
    fn a_set_keeps_the_order_of_its_caller() {
        let set = ClassSet::new(&[2, 0], 3).unwrap();
        assert_eq!((set.classes(), set.places(), set.is_all()), ([2, 0].as_slice(), vec![Some(1), None, Some(0)], false));
        assert!(ClassSet::new(&[0, 1, 2], 3).unwrap().is_all() && !ClassSet::new(&[0, 2, 1], 3).unwrap().is_all());
        assert_eq!(ClassSet::all(65_535).unwrap().classes().last(), Some(&65_534));
    }
}
