//! Backbones from photos without labels: DINO (Caron et al., ICCV 2021), and SelfPatch on it (Yun et al., CVPR 2022).
//!
//! ```text
//! photos ─► data (crops) ─► network, twice ─► loss ─► learner (fit) ─► backbone.safetensors ─► install (models/NAME/VERSION)
//!                           vit ─► aggregation (neighbours) ─► projection
//! ```
//!
//! The teacher is a moving average of the student. The student says of every crop of a photo which prototypes it is like; it is to say what
//! the teacher says of the other global crops (DINO), and of each patch what the teacher says of that patch's neighbours (SelfPatch).
//!
//! # Design
//! - Followed to the letter where paper and code of SelfPatch differ: neighbours go round the border, the teacher sees all crops and its
//!   centre follows all, the student's patches are not aggregated, the loss of patches counts a tenth, the class-attention blocks have no
//!   LayerScale. `Border::Valid`, `TeacherCrops::Global` and `patch_weight` give what the paper or DINO says.
//! - A fresh backbone of SelfPatch has neither CLS token nor final norm, one of DINO has both. Weights to go on from (`--from`) keep what they
//!   have: SelfPatch reads their patches before the norm.
//! - Registers take part in every block, get no position and are left out afterwards.
//! - Crops of one size run as one batch.

pub mod aggregation;
pub mod collapse;
pub mod config;
pub mod data;
pub mod install;
pub mod learner;
pub mod loss;
pub mod neighbours;
pub mod network;
pub mod projection;
pub mod schedule;
