//! Which provider ran which nodes, as ONNX Runtime's own profile of a run says.
//!
//! # Design
//! A provider takes the nodes that it has kernels for, and the CPU silently takes the rest. The binding does not offer the runtime's list of
//! assignments; its profile names the provider of every node that was run. So the sessions of a warm-up are created with profiling, which
//! ends after their first run, where there is more than one provider: on the CPU alone there is nothing to tell. Without a place for
//! temporary files nothing is known, and nothing said.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
};

use serde::Deserialize;

use super::error::Source;

/// Nodes by the name of the provider that ran them: `cpu`, `cuda`.
pub type Placement = BTreeMap<String, usize>;

/// An event of a profile, in the format of Chrome's trace viewer; most are not of nodes.
#[derive(Deserialize)]
struct Event {
    #[serde(default)]
    name: String,
    #[serde(default)]
    args: Args,
}

#[derive(Default, Deserialize)]
struct Args {
    provider: Option<String>,
}

/// Reads a profile and removes it.
pub(super) fn take_profile(path: &Path) -> Result<Placement, Source> {
    let profile = fs::read(path)?;
    fs::remove_file(path)?;
    placement(&profile)
}

/// Nodes by provider; one that ran several times counts once.
fn placement(profile: &[u8]) -> Result<Placement, Source> {
    let events: Vec<Event> = serde_json::from_slice(profile)?;
    let node = |event: Event| event.args.provider.filter(|provider| !provider.is_empty()).map(|provider| (event.name, provider));
    let nodes: BTreeSet<(String, String)> =
        events.into_iter().filter(|event| event.name.ends_with("_kernel_time")).filter_map(node).collect();
    let mut placement = Placement::new();
    for (_, provider) in nodes {
        *placement.entry(short(&provider)).or_default() += 1;
    }
    Ok(placement)
}

/// `CUDAExecutionProvider` is `cuda`.
fn short(provider: &str) -> String {
    provider.strip_suffix("ExecutionProvider").unwrap_or(provider).to_lowercase()
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use super::*;

    #[test]
    fn nodes_count_once_with_the_provider_that_ran_them() {
        let profile = br#"[
            {"cat": "Session", "name": "model_run", "dur": 9, "args": {}},
            {"cat": "Node", "name": "mul_kernel_time", "args": {"op_name": "MatMul", "provider": "CUDAExecutionProvider"}},
            {"cat": "Node", "name": "mul_kernel_time", "args": {"op_name": "MatMul", "provider": "CUDAExecutionProvider"}},
            {"cat": "Node", "name": "add_kernel_time", "args": {"op_name": "Add", "provider": "CUDAExecutionProvider"}},
            {"cat": "Node", "name": "shape_kernel_time", "args": {"op_name": "Shape", "provider": "CPUExecutionProvider"}},
            {"cat": "Node", "name": "shape_fence_before", "args": {"op_name": "Shape"}}
        ]"#;
        let expected = [("cpu".to_owned(), 1), ("cuda".to_owned(), 2)];
        assert_eq!(placement(profile).unwrap(), expected.into());
        assert!(placement(b"{").is_err());
    }
}
