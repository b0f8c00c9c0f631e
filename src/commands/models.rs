//! `densevit models`.

use clap::Args;

use crate::{commands::target::TargetArgs, grpc::pb::v1 as pb};

/// Flags of `densevit models`.
#[derive(Debug, Args)]
pub struct ModelsArgs {
    #[command(flatten)]
    target: TargetArgs,
}

/// Prints one line a model.
///
/// # Errors
/// When the server cannot be reached or started.
pub fn run(args: &ModelsArgs) -> anyhow::Result<()> {
    let models = args.target.with_client(async |client| Ok(client.models().await?))?;
    for model in &models {
        println!("{}", line(model));
        println!("    {}", model.description);
    }
    println!("{} model(s); * answers requests that name none", models.len());
    Ok(())
}

fn line(model: &pb::Model) -> String {
    let star = if model.is_default { "*" } else { " " };
    let lift = model.lift.as_ref().map_or_else(
        || "no LiFT head".to_owned(),
        |lift| format!("LiFT {} on {} of block {}", lift.form, facet_name(lift.facet()), lift.layer),
    );
    let segmenter = model.segmenter.as_ref().map_or_else(
        || "no segmentation head".to_owned(),
        |segmenter| format!("masks {} of {} classes", segmenter.form, segmenter.classes.len()),
    );
    let digest = model.digest.get(..12).unwrap_or(&model.digest);
    format!(
        "{star} {}/{}  {} patch {} channels {} registers {}  default {} of block {}  {lift}  {segmenter}  {} {}  {digest}",
        model.name,
        model.version,
        model.architecture,
        model.patch_size,
        model.channels,
        model.registers,
        facet_name(model.default_facet()),
        model.default_layer,
        model.precision,
        model.provider,
    )
}

fn facet_name(facet: pb::Facet) -> String {
    facet.as_str_name().trim_start_matches("FACET_").to_lowercase()
}
