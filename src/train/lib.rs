//! # train
//!
//! The companion of `densevit`: trains the heads that it serves. The only package that links the training framework.
//!
//! ```text
//! folders of photos ─► data (photos, view) ─► backbone (the server's sessions) ─► data::cache ─► data::loader ─► head ─► loss ─► fit
//!                                                                                     │
//! densevit import --lift ◄── lift.safetensors ◄───────────────────────────────────────┘
//!
//! labelled images ─► segmentation::data ─► features (backbone, or vit, which may learn) ─► cache ─► source ─► head ─► loss ─► fit
//!                                                                                     │
//! segment.safetensors, backbone/model.safetensors ◄───────────────────────────────────┘
//!
//! cut-outs, photos ─► compose ─► datasets (VOC, COCO20k, SPair-71k, DAVIS 2017) ─► eval (backbone, heads, densevit::{discover, correspond})
//!
//! folders of photos ─► pretrain::data (crops) ─► vit, twice: student and teacher ─► heads ─► loss ─► fit
//!                                                                                     │
//! densevit import ◄── backbone.safetensors ◄──────────────────────────────────────────┘
//! ```

pub mod backbone;
pub mod checkpoint;
pub mod config;

pub mod data;

pub mod head;

pub mod loss;
pub mod optim;

pub mod linear;

pub mod cost;

mod canvas;

pub mod curve;
pub mod validation;

pub mod fit;

pub mod lift;

pub mod vit;

pub mod tokens;

pub mod segmentation;

pub mod datasets;

mod marks;

pub mod compose;

pub mod pretrain;

pub mod eval;
pub mod install;

pub mod commands;
