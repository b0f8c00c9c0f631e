//! Limits and shares of a batcher.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{caller::Tenant, error::StartError};

/// Longest horizon, in milliseconds: a day.
const MAX_HORIZON_MS: u64 = 24 * 60 * 60 * 1000;

/// How jobs are batched and shared out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct BatchConfig {
    /// Jobs that run together at most; fewer do where more would bring nothing. Default 8.
    pub max_batch_size: usize,
    /// Jobs inside (waiting or running) at most; more are refused. Default 256.
    pub max_queue_count: usize,
    /// Bytes that their inputs may hold. Default 256 MiB.
    pub max_queue_bytes: usize,
    /// Part of both that one tenant may use, in percent. Default 75.
    pub max_tenant_percent: u32,
    /// How long a job may wait for companions although a worker is idle, in milliseconds. Default 0: never.
    pub max_queue_delay_ms: u64,
    /// A job without a deadline is as urgent as one with a deadline this long after its arrival, in milliseconds; nor does a
    /// later deadline make a job less urgent. Default 5000.
    pub horizon_ms: u64,
    /// Time on a worker that a tenant may be ahead of its share so that deadlines of several tenants can be met, in milliseconds for
    /// a weight of 1. Default 20.
    pub fair_quantum_ms: u64,
    /// Time on a worker that a tenant may have before all others after it was idle, in milliseconds for a weight of 1. Default 1000.
    pub tenant_burst_ms: u64,
    /// Tenants without a weight of their own that are told apart, each of weight 1; what is more shares the account of those who
    /// give no name. Default 64.
    pub max_tenants: usize,
    /// Kinds of jobs (size of the image and outputs) whose costs are remembered. More at the same time are refused. Default 64.
    pub max_buckets: usize,
    /// Weights of tenants that are to have more than 1, by name. Default none.
    pub tenant_weights: BTreeMap<String, u32>,
}

impl Default for BatchConfig {
    fn default() -> Self {
        Self {
            max_batch_size: 8,
            max_queue_count: 256,
            max_queue_bytes: 256 << 20,
            max_tenant_percent: 75,
            max_queue_delay_ms: 0,
            horizon_ms: 5000,
            fair_quantum_ms: 20,
            tenant_burst_ms: 1000,
            max_tenants: 64,
            max_buckets: 64,
            tenant_weights: BTreeMap::new(),
        }
    }
}

impl BatchConfig {
    pub(super) fn check(&self) -> Result<(), StartError> {
        let limits = [
            ("max_batch_size", self.max_batch_size),
            ("max_queue_count", self.max_queue_count),
            ("max_queue_bytes", self.max_queue_bytes),
            ("max_buckets", self.max_buckets),
        ];
        if let Some((field, _)) = limits.into_iter().find(|(_, limit)| *limit == 0) {
            return Err(StartError::ZeroLimit { field });
        }
        let ranges = [
            ("max_tenant_percent", u64::from(self.max_tenant_percent), 1, 100),
            ("horizon_ms", self.horizon_ms, 1, MAX_HORIZON_MS),
            ("max_queue_delay_ms", self.max_queue_delay_ms, 0, MAX_HORIZON_MS),
            ("fair_quantum_ms", self.fair_quantum_ms, 0, MAX_HORIZON_MS),
            ("tenant_burst_ms", self.tenant_burst_ms, 0, MAX_HORIZON_MS),
        ];
        if let Some((field, value, min, max)) = ranges.into_iter().find(|(_, value, min, max)| !(*min..=*max).contains(value)) {
            return Err(StartError::OutOfRange { field, value, min, max });
        }
        let is_bad = |(name, weight): &(&String, &u32)| name.parse::<Tenant>().is_err() || !(1..=1000).contains(*weight);
        match self.tenant_weights.iter().find(is_bad) {
            Some((name, weight)) => Err(StartError::Weight { name: name.clone(), weight: *weight }),
            None => Ok(()),
        }
    }

    /// The weights by tenant; names that are none were refused by `check`.
    pub(super) fn weights(&self) -> BTreeMap<Tenant, u32> {
        self.tenant_weights.iter().filter_map(|(name, weight)| Some((name.parse().ok()?, *weight))).collect()
    }
}
