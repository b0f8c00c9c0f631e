//! What the service refuses beyond, and the admission that keeps requests in flight bounded by count and bytes.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use serde::{Deserialize, Serialize};

use crate::{engine::InferError, masks::MaskLimits, preprocess::DecodeLimits};

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
    /// Requests in flight, from arrival to answer. Default 256.
    pub max_in_flight: u64,
    /// Memory of the requests in flight (image, pixels, model input and map), in bytes. Default 2 GiB.
    pub max_in_flight_bytes: u64,
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
#[derive(Debug, Default)]
pub struct Admission {
    n_requests: AtomicU64,
    n_bytes: AtomicU64,
}

/// A place among the requests in flight; dropping it gives the place back.
#[derive(Debug)]
pub struct Admitted {
    admission: Arc<Admission>,
    n_bytes: u64,
}

impl Admission {
    /// Takes a place for a request that needs `n_bytes` of memory.
    ///
    /// # Errors
    /// [`InferError::Overloaded`] when a bound is reached.
    pub fn admit(self: &Arc<Self>, n_bytes: u64, limits: &Limits) -> Result<Admitted, InferError> {
        let place = Admitted { admission: Arc::clone(self), n_bytes };
        // Both counters are raised first and lowered by the drop of `place` when the request is refused.
        let n_requests = self.n_requests.fetch_add(1, Ordering::Relaxed) + 1;
        let total_bytes = self.n_bytes.fetch_add(n_bytes, Ordering::Relaxed) + n_bytes;
        if n_requests > limits.max_in_flight {
            return Err(overloaded(format!(
                "too many requests in flight: the limit is {} (limits.max_in_flight)",
                limits.max_in_flight
            )));
        }
        if total_bytes > limits.max_in_flight_bytes {
            return Err(overloaded(format!(
                "requests in flight need {total_bytes} bytes: the limit is {} (limits.max_in_flight_bytes)",
                limits.max_in_flight_bytes
            )));
        }
        Ok(place)
    }

    /// Requests in flight now.
    #[must_use]
    pub fn n_requests(&self) -> u64 {
        self.n_requests.load(Ordering::Relaxed)
    }
}

impl Drop for Admitted {
    fn drop(&mut self) {
        self.admission.n_requests.fetch_sub(1, Ordering::Relaxed);
        self.admission.n_bytes.fetch_sub(self.n_bytes, Ordering::Relaxed);
    }
}

fn overloaded(message: String) -> InferError {
    InferError::Overloaded { message, retry_after: Duration::from_millis(250) }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use super::*;

    #[test]
    fn full_service_refuses_and_recovers_when_a_request_ends() {
        let limits = Limits { max_in_flight: 2, ..Limits::default() };
        let admission = Arc::new(Admission::default());
        let first = admission.admit(1, &limits).unwrap();
        let _second = admission.admit(1, &limits).unwrap();
        let error = admission.admit(1, &limits).unwrap_err();
        assert!(error.to_string().contains("limits.max_in_flight"), "{error}");
        assert_eq!(admission.n_requests(), 2, "a refused request keeps no place");
        drop(first);
        admission.admit(1, &limits).unwrap();
    }

    #[test]
    fn byte_budget_counts_all_requests_in_flight() {
        let limits = Limits { max_in_flight_bytes: 100, ..Limits::default() };
        let admission = Arc::new(Admission::default());
        let _first = admission.admit(60, &limits).unwrap();
        let error = admission.admit(50, &limits).unwrap_err();
        assert!(error.to_string().contains("max_in_flight_bytes"), "{error}");
        admission.admit(40, &limits).unwrap();
    }
}
