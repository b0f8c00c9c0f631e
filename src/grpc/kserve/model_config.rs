//! A model's configuration in Triton's terms: what is true of it here, and nothing else.

use std::collections::HashMap;

use crate::{
    engine::{Engine, LoadedModel, Priority},
    grpc::{
        answer,
        kserve::{inputs, metadata::PLATFORM, outputs::Output},
        pb::inference::{
            self as pb, ModelConfig, ModelDynamicBatching, ModelInput, ModelInstanceGroup, ModelOutput, ModelParameter,
            ModelQueuePolicy, ModelVersionPolicy, model_config::SchedulingChoice, model_input::Format,
            model_instance_group::Kind, model_queue_policy::TimeoutAction, model_version_policy::PolicyChoice,
        },
    },
    manifest::Manifest,
};

/// The level of requests that name none, 1 being the first: [`Priority::Normal`].
const DEFAULT_PRIORITY_LEVEL: u64 = 2;

/// Describes a model.
pub(super) fn model_config(engine: &Engine, model: &LoadedModel) -> ModelConfig {
    let manifest = model.manifest();
    ModelConfig {
        name: manifest.name.clone(),
        platform: PLATFORM.to_owned(),
        backend: "onnxruntime".to_owned(),
        version_policy: Some(ModelVersionPolicy { policy_choice: Some(PolicyChoice::All(pb::model_version_policy::All {})) }),
        max_batch_size: narrowed(engine.limits().max_images_per_request),
        input: inputs(),
        output: Output::of(manifest).map(|wanted| output(wanted, manifest)).collect(),
        instance_group: vec![instance_group(model)],
        scheduling_choice: Some(SchedulingChoice::DynamicBatching(dynamic_batching(model))),
        parameters: parameters(model),
        model_transaction_policy: Some(pb::ModelTransactionPolicy { decoupled: false }),
        response_cache: Some(pb::ModelResponseCache { enable: false }),
    }
}

fn inputs() -> Vec<ModelInput> {
    let input = |spec: crate::grpc::kserve::outputs::TensorSpec| {
        let format = if spec.name == inputs::PIXELS { Format::Nhwc } else { Format::None };
        ModelInput {
            name: spec.name.to_owned(),
            data_type: spec.datatype.config() as i32,
            format: format as i32,
            dims: spec.dims,
            optional: true,
        }
    };
    inputs::specs().into_iter().map(input).collect()
}

fn output(output: Output, manifest: &Manifest) -> ModelOutput {
    let spec = output.spec(manifest);
    ModelOutput { name: spec.name.to_owned(), data_type: spec.datatype.config() as i32, dims: spec.dims }
}

fn instance_group(model: &LoadedModel) -> ModelInstanceGroup {
    let is_on_cpu = model.provider() == "cpu";
    let kind = if is_on_cpu { Kind::Cpu } else { Kind::Gpu };
    ModelInstanceGroup { name: model.provider().to_owned(), count: narrowed(model.n_executors()), kind: kind as i32 }
}

fn dynamic_batching(model: &LoadedModel) -> ModelDynamicBatching {
    let config = model.batch_config();
    ModelDynamicBatching {
        max_queue_delay_microseconds: config.max_queue_delay_ms.saturating_mul(1000),
        priority_levels: Priority::ALL.len() as u64,
        default_priority_level: DEFAULT_PRIORITY_LEVEL,
        default_queue_policy: Some(ModelQueuePolicy {
            timeout_action: TimeoutAction::Reject as i32,
            allow_timeout_override: true,
            max_queue_size: answer::to_u32(config.max_queue_count),
            ..ModelQueuePolicy::default()
        }),
        ..ModelDynamicBatching::default()
    }
}

/// Facts that Triton's fields have no place for.
fn parameters(model: &LoadedModel) -> HashMap<String, ModelParameter> {
    let Manifest { architecture, backbone, lift, segmenter, provenance, .. } = model.manifest();
    let mut facts = vec![
        ("digest", model.digest().to_owned()),
        ("license", provenance.license.clone()),
        ("provider", model.provider().to_owned()),
        ("run_max_batch_size", model.batch_config().max_batch_size.to_string()),
        ("patch_size", architecture.patch.to_string()),
        ("facets", list(backbone.facets.iter())),
        ("layers", list(backbone.layers.iter())),
        ("default_facet", backbone.default.facet.to_string()),
        ("default_layer", backbone.default.layer.to_string()),
    ];
    facts.extend(lift.iter().map(|lift| ("lift", format!("{}, for the {}", lift.form.name(), lift.tap))));
    facts.extend(segmenter.iter().map(|head| ("classes", list(head.classes.iter().map(|class| &class.name)))));
    facts.into_iter().map(|(name, value)| (name.to_owned(), ModelParameter { string_value: value })).collect()
}

fn list<T: ToString>(items: impl Iterator<Item = T>) -> String {
    items.map(|item| item.to_string()).collect::<Vec<_>>().join(",")
}

fn narrowed(count: usize) -> i32 {
    i32::try_from(count).unwrap_or(i32::MAX)
}
