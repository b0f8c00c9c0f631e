//! What the service refuses beyond, and the admission that keeps requests in flight bounded by count and bytes.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use serde::{Deserialize, Serialize};

use crate::{
    batch::{Budget, Exceeded, Limit, Load, Tenant},
    engine::InferError,
    masks::MaskLimits,
    preprocess::DecodeLimits,
    telemetry::record,
};

/// Most LiFT passes that a request may ask for.
pub const MAX_LIFT_PASSES: u32 = 4;

/// Bounds on single requests and on all requests in flight.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    /// Encoded or raw image, in bytes. Default 32 MiB.
    pub max_image_bytes: u64,
    /// Pixels of an image before the resize, read from its header before decoding. Default 50 million.
    pub max_image_pixels: u64,
    /// Pixels of the model's input. Default 1,048,576 (1024 x 1024).
    pub max_input_pixels: u64,
    /// Values of the largest map after LiFT (rows x cols x channels). Default 134,217,728 (512 MiB as f32).
    pub max_output_values: u64,
    /// Points of one request. Default 65,536.
    pub max_points: u32,
    /// Requests in flight, from arrival until the answer is sent. Default 256.
    pub max_in_flight: u64,
    /// Memory of the requests in flight (image, pixels, model input and map), in bytes; an answer that its client reads slowly keeps all of it
    /// until it is sent. Default 2 GiB.
    pub max_in_flight_bytes: u64,
    /// Part of the two above that one tenant may use, in percent. Default 75.
    pub max_tenant_percent: u32,
    /// Requests in flight on one bidirectional call. Default 16.
    pub max_in_flight_per_stream: usize,
    /// Images of one request of the Open Inference Protocol. Default 16.
    pub max_images_per_request: usize,
    /// Sizes of masks.
    pub masks: MaskLimits,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_image_bytes: 32 << 20,
            max_image_pixels: 50_000_000,
            max_input_pixels: 1 << 20,
            max_output_values: 1 << 27,
            max_points: 65_536,
            max_in_flight: 256,
            max_in_flight_bytes: 2 << 30,
            max_tenant_percent: 75,
            max_in_flight_per_stream: 16,
            max_images_per_request: 16,
            masks: MaskLimits::default(),
        }
    }
}

impl Limits {
    /// The part that the decoder needs.
    #[must_use]
    pub fn decode(&self) -> DecodeLimits {
        DecodeLimits { max_bytes: self.max_image_bytes, max_pixels: self.max_image_pixels }
    }
}

/// Counts requests in flight and refuses at once what would exceed the bounds.
#[derive(Debug)]
pub struct Admission {
    budget: Mutex<Budget>,
    max_tenant_percent: u32,
}

/// A place among the requests in flight; dropping it gives the place back.
#[derive(Debug)]
pub struct Admitted {
    admission: Arc<Admission>,
    tenant: Tenant,
    n_bytes: usize,
}

impl Admission {
    /// Nothing in flight.
    #[must_use]
    pub fn new(limits: &Limits) -> Arc<Self> {
        let max = Load { n_jobs: clamp(limits.max_in_flight), n_bytes: clamp(limits.max_in_flight_bytes) };
        let budget = Mutex::new(Budget::new(max, limits.max_tenant_percent));
        Arc::new(Self { budget, max_tenant_percent: limits.max_tenant_percent })
    }

    /// Takes a place for a request of `tenant` that needs `n_bytes` of memory.
    ///
    /// # Errors
    /// [`InferError::Overloaded`] when a bound is reached; it is worth trying again after `retry_after`.
    pub fn admit(self: &Arc<Self>, tenant: Tenant, n_bytes: u64, retry_after: Duration) -> Result<Admitted, InferError> {
        let n_bytes = clamp(n_bytes);
        let entered = self.budget().enter(tenant, n_bytes);
        entered.map_err(|exceeded| {
            record::refused(label(exceeded.limit));
            InferError::Overloaded { message: self.explain(exceeded), retry_after }
        })?;
        Ok(Admitted { admission: Arc::clone(self), tenant, n_bytes })
    }

    /// Requests in flight now.
    #[must_use]
    pub fn n_requests(&self) -> u64 {
        self.load().n_jobs as u64
    }

    /// Requests and bytes in flight now.
    pub(super) fn load(&self) -> Load {
        self.budget().total()
    }

    fn explain(&self, Exceeded { limit, max, .. }: Exceeded) -> String {
        let percent = self.max_tenant_percent;
        match limit {
            Limit::Count => format!("too many requests in flight: the limit is {max} (limits.max_in_flight)"),
            Limit::Bytes => {
                format!("requests in flight need too much memory: the limit is {max} bytes (limits.max_in_flight_bytes)")
            }
            Limit::TenantCount => format!(
                "too many requests of this tenant in flight: the limit is {max}, {percent} % (limits.max_tenant_percent) of limits.max_in_flight"
            ),
            Limit::TenantBytes | Limit::Buckets => format!(
                "requests of this tenant in flight need too much memory: the limit is {max} bytes, {percent} % (limits.max_tenant_percent) of \
                 limits.max_in_flight_bytes"
            ),
        }
    }

    fn budget(&self) -> MutexGuard<'_, Budget> {
        self.budget.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Admitted {
    fn drop(&mut self) {
        self.admission.budget().leave(self.tenant, self.n_bytes);
    }
}

/// Name of a bound for metric labels.
fn label(limit: Limit) -> &'static str {
    match limit {
        Limit::Count => "requests",
        Limit::Bytes => "bytes",
        Limit::TenantCount => "tenant_requests",
        Limit::TenantBytes | Limit::Buckets => "tenant_bytes",
    }
}

fn clamp(value: u64) -> usize {
    usize::try_from(value).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use super::*;

    const RETRY: Duration = Duration::from_millis(70);

    fn message(refused: Result<Admitted, InferError>) -> String {
        let error = refused.unwrap_err();
        assert!(matches!(error, InferError::Overloaded { retry_after: RETRY, .. }), "{error:?}");
        error.to_string()
    }

    #[test]
    fn full_service_refuses_and_recovers_when_a_request_ends() {
        let admission = Admission::new(&Limits { max_in_flight: 2, ..Limits::default() });
        let admit = || admission.admit(Tenant::default(), 1, RETRY);
        let first = admit().unwrap();
        let _second = admit().unwrap();
        assert!(message(admit()).contains("limits.max_in_flight"));
        assert_eq!(admission.n_requests(), 2, "a refused request keeps no place");
        drop(first);
        admit().unwrap();
    }

    #[test]
    fn byte_budget_counts_all_requests_in_flight() {
        let admission = Admission::new(&Limits { max_in_flight_bytes: 100, max_tenant_percent: 100, ..Limits::default() });
        let admit = |n_bytes| admission.admit(Tenant::default(), n_bytes, RETRY);
        let _first = admit(60).unwrap();
        assert!(message(admit(50)).contains("max_in_flight_bytes"));
        admit(40).unwrap();
    }

    #[test]
    fn one_tenant_leaves_room_for_others() {
        let admission = Admission::new(&Limits { max_in_flight: 4, max_tenant_percent: 50, ..Limits::default() });
        let admit = |name: &str| admission.admit(name.parse().unwrap(), 1, RETRY);
        let _inside = [admit("flood").unwrap(), admit("flood").unwrap()];
        assert!(message(admit("flood")).contains("50 % (limits.max_tenant_percent)"));
        admit("victim").unwrap();
    }
}
