//! Norms of tokens: how many lie where, and whether they fall into two groups, which says that a backbone keeps something else than its
//! patch in some of them (Darcet et al., "Vision Transformers Need Registers", ICLR 2024).
//!
//! In: norms. Out: a [`Histogram`], a [`Spread`], and [`Outliers`] if there are some. Pure computation; called by `densevit view --norms` and by
//! `train inspect tokens`.

mod histogram;
mod outliers;

pub use self::{
    histogram::Histogram,
    outliers::{Outliers, Spread, find},
};
