//! Numbers against references made elsewhere: the modules of the authors of LiFT and SegViT, a PyTorch forward of the default weights,
//! timm, transformers and pycocotools (tests/fixtures/README.md).

#![expect(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

mod backbones;
mod default_model;
mod finding;
mod lift;
mod masks;
mod pytorch_files;
mod register_model;
mod segmenters;
mod segvit;
mod support;
