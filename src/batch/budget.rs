//! How many requests and bytes may be inside at once: in total, and of that one tenant.
//!
//! # Design
//! A tenant may hold only a part of the whole, so that one that floods leaves room for the others; what it leaves free is the
//! price. Pushing out the work of the largest tenant instead would waste no room, but would take back what was accepted.

use std::{collections::HashMap, fmt};

use super::{
    caller::Tenant,
    error::{BatchError, Limit},
};

/// Requests and bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Load {
    /// Jobs, or requests.
    pub n_jobs: usize,
    /// Bytes that they hold.
    pub n_bytes: usize,
}

/// What may be inside, and what is.
#[derive(Debug)]
pub struct Budget {
    max: Load,
    max_of_tenant: Load,
    total: Load,
    /// Tenants that have something inside, so never more than `max.n_jobs`.
    by_tenant: HashMap<Tenant, Load>,
}

/// A bound that is reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Exceeded {
    /// Which.
    pub limit: Limit,
    /// Its value.
    pub max: usize,
    /// Whether a later try may succeed.
    pub is_temporary: bool,
}

impl Budget {
    /// A budget of which one tenant may use `tenant_percent`, but at least one job.
    #[must_use]
    pub fn new(max: Load, tenant_percent: u32) -> Self {
        let part = |whole: usize| {
            let part = (whole as u128 * u128::from(tenant_percent.min(100))).div_ceil(100);
            usize::try_from(part).unwrap_or(whole).max(1)
        };
        let max_of_tenant = Load { n_jobs: part(max.n_jobs), n_bytes: part(max.n_bytes) };
        Self { max, max_of_tenant, total: Load::default(), by_tenant: HashMap::new() }
    }

    /// Takes a place for a job of `n_bytes`.
    ///
    /// # Errors
    /// The first bound that would be exceeded; nothing is taken then.
    pub fn enter(&mut self, tenant: Tenant, n_bytes: usize) -> Result<(), Exceeded> {
        let own = self.by_tenant.get(&tenant).copied().unwrap_or_default();
        let exceeded = |limit, max| Err(Exceeded { limit, max, is_temporary: true });
        if n_bytes > self.max_of_tenant.n_bytes {
            let limit = if n_bytes > self.max.n_bytes { Limit::Bytes } else { Limit::TenantBytes };
            let max = if n_bytes > self.max.n_bytes { self.max.n_bytes } else { self.max_of_tenant.n_bytes };
            return Err(Exceeded { limit, max, is_temporary: false });
        }
        if self.total.n_jobs >= self.max.n_jobs {
            return exceeded(Limit::Count, self.max.n_jobs);
        }
        if n_bytes > self.max.n_bytes.saturating_sub(self.total.n_bytes) {
            return exceeded(Limit::Bytes, self.max.n_bytes);
        }
        if own.n_jobs >= self.max_of_tenant.n_jobs {
            return exceeded(Limit::TenantCount, self.max_of_tenant.n_jobs);
        }
        if n_bytes > self.max_of_tenant.n_bytes.saturating_sub(own.n_bytes) {
            return exceeded(Limit::TenantBytes, self.max_of_tenant.n_bytes);
        }
        for load in [&mut self.total, self.by_tenant.entry(tenant).or_default()] {
            load.n_jobs += 1;
            load.n_bytes += n_bytes;
        }
        Ok(())
    }

    /// Gives a place back.
    pub fn leave(&mut self, tenant: Tenant, n_bytes: usize) {
        let give_back = |load: &mut Load| {
            load.n_jobs = load.n_jobs.saturating_sub(1);
            load.n_bytes = load.n_bytes.saturating_sub(n_bytes);
            load.n_jobs == 0
        };
        give_back(&mut self.total);
        if self.by_tenant.get_mut(&tenant).is_some_and(give_back) {
            self.by_tenant.remove(&tenant);
        }
    }

    /// What is inside.
    #[must_use]
    pub fn total(&self) -> Load {
        self.total
    }
}

impl Exceeded {
    /// As the refusal of a job of `n_bytes`.
    pub(super) fn refusal(self, n_bytes: usize, retry_after: std::time::Duration) -> BatchError {
        let Self { limit, max, is_temporary } = self;
        if is_temporary { BatchError::Full { limit, max, retry_after } } else { BatchError::TooLarge { n_bytes, limit, max } }
    }
}

impl fmt::Display for Exceeded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} of {}", self.limit, self.max)
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use super::*;

    fn tenant(name: &str) -> Tenant {
        name.parse().unwrap()
    }

    #[test]
    fn one_tenant_leaves_room_for_others() {
        let mut budget = Budget::new(Load { n_jobs: 4, n_bytes: 100 }, 75);
        (0..3).for_each(|_| budget.enter(tenant("flood"), 1).unwrap());
        let refused = budget.enter(tenant("flood"), 1).unwrap_err();
        assert_eq!((refused.limit, refused.max), (Limit::TenantCount, 3));
        budget.enter(tenant("victim"), 75).unwrap();
        assert_eq!(budget.enter(tenant("third"), 1).unwrap_err().limit, Limit::Count);
        budget.leave(tenant("flood"), 1);
        assert_eq!(budget.enter(tenant("victim"), 1).unwrap_err().limit, Limit::TenantBytes);
        assert_eq!(budget.enter(tenant("third"), 24).unwrap_err().limit, Limit::Bytes);
        budget.enter(tenant("third"), 23).unwrap();
        assert_eq!(budget.total(), Load { n_jobs: 4, n_bytes: 100 });
    }

    #[test]
    fn what_leaves_is_forgotten() {
        let mut budget = Budget::new(Load { n_jobs: 2, n_bytes: 10 }, 100);
        budget.enter(tenant("a"), 10).unwrap();
        budget.leave(tenant("a"), 10);
        assert_eq!((budget.total(), budget.by_tenant.len()), (Load::default(), 0));
        assert!(!budget.enter(tenant("a"), 11).unwrap_err().is_temporary, "no later try can succeed");
    }
}
