//! Diagnosis of a backbone's tokens: whether some of them carry something else than their patch, and what they carry.
//!
//! Large ViTs turn patches that tell little into memory: their tokens get norms far above the others', and no longer know where they
//! are or what they show; registers take that load over (Darcet et al., "Vision Transformers Need Registers", ICLR 2024). The
//! paper picks the norm that separates them by eye, for one model. Here a rule ([`densevit::norms`]) finds it in any model, or finds that there is
//! none.
//!
//! ```text
//! photos ─► survey (norms, likeness to neighbours, attention) ─► norms ─► probes (position, pixels)
//!                                                           └► pictures
//! ```

pub mod pictures;
pub mod probes;
pub mod survey;
