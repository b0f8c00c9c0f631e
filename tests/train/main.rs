//! The trainer: its head against the authors' module, its gradients, its loop, and the circle from photos to served features.

#![expect(clippy::unwrap_used, clippy::panic, reason = "tests")]

mod circle;
mod head;
mod learning;
mod support;
