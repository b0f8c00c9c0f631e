//! Whose work it is, and how urgent it is to them: what the schedule shares the executors by.
//!
//! # Design
//! A tenant is named by its caller and believed: who must not choose a name is told so by a proxy or by authentication in front.
//! Names are short and copied, so that a request carries its caller through every stage without an allocation. A priority orders
//! the work of one tenant and takes nothing from others: a header that anybody can send must not be worth more than one's share.

use std::{fmt, str::FromStr};

/// Longest name of a tenant, in bytes: the length of a DNS label (RFC 1035, 2.3.4), which Kubernetes' names keep to as well.
pub const MAX_TENANT_BYTES: usize = 63;

/// Who sends a request. The empty name, the default, is everybody who gives none.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Tenant {
    n_bytes: u8,
    text: [u8; MAX_TENANT_BYTES],
}

/// How urgent a request is among those of its tenant. Lower ones get less, but never nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Priority {
    /// Somebody is waiting.
    Interactive,
    /// Nothing was said.
    #[default]
    Normal,
    /// Whatever is left over.
    Bulk,
}

/// Tenant and priority of a request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Caller {
    /// Who.
    pub tenant: Tenant,
    /// How urgent.
    pub priority: Priority,
}

/// Why a text names no tenant or no priority.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CallerError {
    /// Not the name of a tenant.
    #[error("needs 1 to {MAX_TENANT_BYTES} letters, digits, dots, hyphens or underscores (ASCII)")]
    Tenant,
    /// Not a priority.
    #[error("is none of interactive, normal, bulk")]
    Priority,
}

impl Tenant {
    /// The name; empty for those who give none.
    #[must_use]
    pub fn as_str(&self) -> &str {
        self.text.get(..usize::from(self.n_bytes)).and_then(|text| str::from_utf8(text).ok()).unwrap_or_default()
    }
}

impl Default for Tenant {
    fn default() -> Self {
        Self { n_bytes: 0, text: [0; MAX_TENANT_BYTES] }
    }
}

impl FromStr for Tenant {
    type Err = CallerError;

    fn from_str(name: &str) -> Result<Self, CallerError> {
        let is_allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_');
        let mut text = [0; MAX_TENANT_BYTES];
        let (n_bytes, room) = (u8::try_from(name.len()), text.get_mut(..name.len()));
        match (n_bytes, room) {
            (Ok(n_bytes), Some(room)) if n_bytes > 0 && name.bytes().all(is_allowed) => {
                room.copy_from_slice(name.as_bytes());
                Ok(Self { n_bytes, text })
            }
            _ => Err(CallerError::Tenant),
        }
    }
}

impl fmt::Debug for Tenant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Tenant({})", self.as_str())
    }
}

impl Priority {
    /// All, the most urgent first.
    pub const ALL: [Self; 3] = [Self::Interactive, Self::Normal, Self::Bulk];

    /// Shares of a tenant's time while work of all priorities waits: 16 to 4 to 1. Each step is a factor of four: enough to feel
    /// like precedence (interactive work has 76 % of the time that it would have alone), and bulk work still moves.
    #[must_use]
    pub const fn weight(self) -> u32 {
        match self {
            Self::Interactive => 16,
            Self::Normal => 4,
            Self::Bulk => 1,
        }
    }

    /// Position in [`Priority::ALL`].
    pub(super) const fn idx(self) -> usize {
        match self {
            Self::Interactive => 0,
            Self::Normal => 1,
            Self::Bulk => 2,
        }
    }
}

impl FromStr for Priority {
    type Err = CallerError;

    fn from_str(name: &str) -> Result<Self, CallerError> {
        match name {
            "interactive" => Ok(Self::Interactive),
            "normal" => Ok(Self::Normal),
            "bulk" => Ok(Self::Bulk),
            _ => Err(CallerError::Priority),
        }
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use super::*;

    #[test]
    fn names_are_kept_as_given_and_bad_ones_refused() {
        for name in ["a", "team-7.maps_EU", &"x".repeat(63)] {
            assert_eq!(name.parse::<Tenant>().unwrap().as_str(), name);
        }
        for bad in ["", "with space", "täg", "a/b", &"x".repeat(64), &"x".repeat(300)] {
            assert_eq!(bad.parse::<Tenant>(), Err(CallerError::Tenant), "{bad:?}");
        }
        assert_eq!(Tenant::default().as_str(), "");
    }

    #[test]
    fn priorities_are_known_by_their_lower_case_names() {
        assert_eq!("interactive".parse(), Ok(Priority::Interactive));
        assert_eq!("bulk".parse(), Ok(Priority::Bulk));
        assert_eq!("Bulk".parse::<Priority>(), Err(CallerError::Priority));
        assert!(Priority::ALL.iter().enumerate().all(|(idx, priority)| priority.idx() == idx));
    }
}
