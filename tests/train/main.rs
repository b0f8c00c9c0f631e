//! The trainer: its heads against the authors' modules, its gradients, its loop, its backbone against the served one, and the circle from
//! photos to served features.

#![expect(clippy::unwrap_used, clippy::panic, reason = "tests")]

mod circle;
mod compose;
mod decoder;
mod head;
mod layouts;
mod learning;
mod pretrain;
mod pretrain_heads;
mod segmentation;
mod support;
mod tasks;
mod vit;
