//! Semantic segmentation: the attention-to-mask decoder of SegViT (Zhang et al., NeurIPS 2022), its Shrunk form and a linear head, taught
//! on labelled images.
//!
//! ```text
//! data (layout, labels, view) ─► features (the server's sessions, or vit) ─► head ─► loss ─► learner (fit)
//!                                                                              └─► segmenter ─► confusion
//! ```

pub mod data;

pub mod card;

pub mod output;

pub mod layers;

pub mod forms;

pub mod head;

pub mod loss;

pub mod features;

pub mod cache;

pub mod source;

pub mod config;

pub mod confusion;
pub mod segmenter;

pub mod learner;

pub mod cost;
pub mod pictures;

pub mod install;
pub mod report;
