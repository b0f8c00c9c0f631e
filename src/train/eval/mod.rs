//! Measures heads, always beside plain upsampling.

pub mod upsampling;

pub mod probe;
