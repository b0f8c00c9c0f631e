//! Writes the files of a model directory.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
};

use safetensors::{Dtype, serialize, tensor::TensorView};

use crate::{
    graph::{LiftOptions, SegmenterOptions, VitOptions, build_lift, build_segmenter, build_vit},
    import::{ImportError, ImportOptions, baked::baked, digest, head::Head, ranges::Ranges, segment::Segmenter, write_failed},
    manifest::{
        Architecture, BackboneFile, FORMAT, Facet, LiftFile, MANIFEST_FILE, Manifest, PositionSpec, PreprocessSpec, Provenance,
        SegmentInput, SegmenterFile, Tap,
    },
    onnx::{self, OPSET},
    weights::{self, ChannelOrder, Recognised, assemble_lift},
};

/// Weights above this go to a file of their own: protobuf messages end at 2 GiB.
const MAX_INLINE_BYTES: u64 = 1 << 30;

/// Writes graphs, position table and manifest into `dir`.
pub(super) fn model(recognised: &Recognised, options: &ImportOptions, dir: &Path) -> Result<(), ImportError> {
    let depth = recognised.weights.arch.depth;
    let options = &ImportOptions { facets: facets(recognised, options)?, ..options.clone() };
    let layers = layers(options, depth)?;
    if let Some(block) = options.query_downsample.filter(|block| *block >= depth) {
        let problem = format!("block {block} of {depth} (0-based)");
        return Err(ImportError::Option { option: "--query-downsample", problem });
    }
    let last = depth.saturating_sub(1);
    let provenance = provenance(recognised, options)?;
    let head = options.head.as_ref().map(|head| Head::open(head, depth, &provenance.source_sha256)).transpose()?;
    let head_tap = head.as_ref().map(|head| head.tap);
    let usual = if recognised.weights.norm.is_some() { Facet::NormToken } else { Facet::Token };
    let default = options.default.or(head_tap).unwrap_or(Tap { facet: usual, layer: last });
    for (option, tap) in [("--default", Some(default)), ("--lift-tap", head_tap)] {
        if let Some(tap) = tap.filter(|tap| !layers.contains(&tap.layer) || !options.facets.contains(&tap.facet)) {
            return Err(ImportError::Option {
                option,
                problem: format!("{tap} is not among the facets and layers that the graph offers"),
            });
        }
    }
    let position = write_position(recognised, dir)?;
    let backbone = write_backbone(recognised, options, (layers, default), dir)?;
    let lift = head.map(|head| lift(&recognised.weights.arch, &backbone, &head, dir)).transpose()?;
    let mut written = Manifest {
        format: FORMAT,
        name: options.name.clone(),
        version: options.version,
        architecture: recognised.weights.arch.clone(),
        preprocess: PreprocessSpec {
            mean: options.mean,
            std: options.std,
            interpolation: options.interpolation,
            resize: options.resize,
        },
        position,
        backbone,
        lift,
        segmenter: None,
        provenance,
    };
    if let Some(options) = &options.segment {
        written.segmenter = Some(segmenter(&written, &Segmenter::open(options, &written)?, dir)?);
    }
    manifest(&written, dir)
}

/// Writes `model.toml` and brings all files to the disk.
pub(super) fn manifest(manifest: &Manifest, dir: &Path) -> Result<(), ImportError> {
    let text = toml::to_string(manifest).map_err(|error| write_failed(dir, std::io::Error::other(error)))?;
    let path = dir.join(MANIFEST_FILE);
    fs::write(&path, text).map_err(|source| write_failed(&path, source))?;
    sync(dir)
}

/// The chosen facets; normed tokens only of a backbone that has a final norm.
fn facets(recognised: &Recognised, options: &ImportOptions) -> Result<Vec<Facet>, ImportError> {
    let has_norm = recognised.weights.norm.is_some();
    let facets: Vec<Facet> = options.facets.iter().copied().filter(|facet| has_norm || *facet != Facet::NormToken).collect();
    if facets.is_empty() && !has_norm {
        return Err(ImportError::Option { option: "--facets", problem: "the backbone has no final norm".into() });
    }
    Ok(facets)
}

fn layers(options: &ImportOptions, depth: u32) -> Result<Vec<u32>, ImportError> {
    let mut layers = options.layers.clone().unwrap_or_else(|| (0..depth).collect());
    layers.sort_unstable();
    layers.dedup();
    match layers.iter().find(|layer| **layer >= depth) {
        None if layers.is_empty() => Err(ImportError::Option { option: "--layers", problem: "names no block".into() }),
        None => Ok(layers),
        Some(layer) => {
            Err(ImportError::Option { option: "--layers", problem: format!("block {layer} of {depth} (0-based) does not exist") })
        }
    }
}

fn write_position(recognised: &Recognised, dir: &Path) -> Result<PositionSpec, ImportError> {
    let table = &recognised.weights.position;
    let (rows, cols, _width) = table.dim();
    let file = "position.safetensors";
    let path = dir.join(file);
    let bytes: Vec<u8> = table.iter().flat_map(|value| value.to_le_bytes()).collect();
    let view = TensorView::new(Dtype::F32, table.shape().to_vec(), &bytes);
    let bytes = view.and_then(|view| serialize([("position", view)], None));
    // Not by the crate's own writer, whose files only their owner can read: servers run as somebody else.
    let written = bytes.map_err(std::io::Error::other).and_then(|bytes| fs::write(&path, bytes));
    written.map_err(|source| write_failed(&path, source))?;
    let to_u32 = |value: usize| u32::try_from(value).unwrap_or(u32::MAX);
    Ok(PositionSpec {
        file: file.to_owned(),
        sha256: digest(&path)?,
        native_grid: [to_u32(rows), to_u32(cols)],
        variant: recognised.variant,
    })
}

fn write_backbone(
    recognised: &Recognised,
    options: &ImportOptions,
    (layers, default): (Vec<u32>, Tap),
    dir: &Path,
) -> Result<BackboneFile, ImportError> {
    let ranges = Ranges::open(options, &recognised.weights)?;
    let vit = VitOptions {
        facets: options.facets.clone(),
        layers: layers.clone(),
        mean: options.mean,
        std: options.std,
        precision: options.precision,
        ranges: ranges.as_ref().map(|ranges| ranges.blocks.clone()).unwrap_or_default(),
        observes_ranges: false,
        query_downsample: options.query_downsample,
        baked: baked(recognised, options)?,
    };
    let file = "backbone.onnx";
    let path = dir.join(file);
    let model = build_vit(&recognised.weights, &vit).map_err(ImportError::Graph)?;
    let data = onnx::save(model, &path, MAX_INLINE_BYTES).map_err(ImportError::Graph)?;
    let external = data.map(|data| Ok([data.file_name().unwrap_or_default().to_string_lossy().into_owned(), digest(&data)?]));
    Ok(BackboneFile {
        file: file.to_owned(),
        sha256: digest(&path)?,
        external: external.into_iter().collect::<Result<_, ImportError>>()?,
        opset: OPSET,
        precision: options.precision,
        ranges_sha256: ranges.map(|ranges| ranges.sha256),
        baked_size: options.baked_size,
        facets: options.facets.clone(),
        layers,
        query_downsample: options.query_downsample,
        default,
    })
}

/// Writes `lift.onnx` for a backbone.
pub(super) fn lift(arch: &Architecture, backbone: &BackboneFile, head: &Head<'_>, dir: &Path) -> Result<LiftFile, ImportError> {
    let source = &head.options.source;
    let failed = |error| ImportError::Weights { path: source.clone(), source: error };
    let order = head.options.order.unwrap_or(match head.tap.facet {
        // Only keys, queries and values have heads; tokens keep their order in the authors' extractor too.
        Facet::Key | Facet::Query | Facet::Value => ChannelOrder::HeadFastest { heads: arch.heads },
        Facet::Token | Facet::NormToken => ChannelOrder::Natural,
    });
    let tensors = weights::read(source).map_err(failed)?;
    let weights = assemble_lift(tensors, arch.patch, arch.width as usize, order).map_err(failed)?;
    let file = "lift.onnx";
    let path = dir.join(file);
    let model = build_lift(&weights, LiftOptions { patch: arch.patch, precision: backbone.precision.of_heads() })
        .map_err(ImportError::Graph)?;
    onnx::save(model, &path, MAX_INLINE_BYTES).map_err(ImportError::Graph)?;
    Ok(LiftFile {
        file: file.to_owned(),
        sha256: digest(&path)?,
        form: weights.form,
        window: weights.window(),
        tap: head.tap,
        backbone_sha256: backbone.sha256.clone(),
        guidance: weights.guidance,
        opset: OPSET,
        precision: backbone.precision.of_heads(),
        parameters: weights.n_parameters(),
        license: head.license.clone(),
        source: file_name(source),
        scores: head.scores.clone(),
    })
}

/// Writes `segment.onnx` for the model in `manifest`.
pub(super) fn segmenter(manifest: &Manifest, head: &Segmenter<'_>, dir: &Path) -> Result<SegmenterFile, ImportError> {
    let (backbone, card) = (&manifest.backbone, &head.card);
    if let Some(tap) = card.taps.iter().find(|tap| !backbone.offers(**tap)) {
        let problem = format!("the head takes the {tap}, which is not among the facets and layers that the graph offers");
        return Err(ImportError::Option { option: "--segment-taps", problem });
    }
    let file = "segment.onnx";
    let path = dir.join(file);
    let options = SegmenterOptions {
        precision: backbone.precision.of_heads(),
        upscale: card.upscale,
        is_halved: card.taps.iter().map(|tap| backbone.is_halved(*tap)).collect(),
    };
    let model = build_segmenter(&head.weights, &options).map_err(ImportError::Graph)?;
    onnx::save(model, &path, MAX_INLINE_BYTES).map_err(ImportError::Graph)?;
    let shape = head.weights.shape();
    let lift = manifest.lift.as_ref().filter(|_| card.input == SegmentInput::Lift);
    Ok(SegmenterFile {
        file: file.to_owned(),
        sha256: digest(&path)?,
        form: shape.form,
        input: card.input,
        taps: card.taps.clone(),
        upscale: card.upscale,
        size: card.size,
        backbone_sha256: backbone.sha256.clone(),
        lift_sha256: lift.map(|lift| lift.sha256.clone()),
        opset: OPSET,
        precision: backbone.precision.of_heads(),
        parameters: shape.n_parameters(),
        license: card.license.clone(),
        source: file_name(&head.options.source),
        scores: card.scores,
        classes: card.classes.clone(),
    })
}

fn provenance(recognised: &Recognised, options: &ImportOptions) -> Result<Provenance, ImportError> {
    let arch = &recognised.weights.arch;
    let made_up = || format!("{} ViT, width {}, depth {}, patch {}", arch.family, arch.width, arch.depth, arch.patch);
    let description = if options.description.is_empty() { made_up() } else { options.description.clone() };
    Ok(Provenance {
        description,
        license: options.license.clone(),
        source: file_name(&options.source),
        source_sha256: digest(&options.source)?,
        key_map: recognised.key_map.to_owned(),
        importer: format!("{} {}", env!("CARGO_PKG_NAME"), env!("CARGO_PKG_VERSION")),
    })
}

fn file_name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

/// Brings the files to the disk, so that the rename that follows never shows an empty one after a crash.
fn sync(dir: &Path) -> Result<(), ImportError> {
    let failed = |path: PathBuf| move |source| ImportError::Write { path, source };
    for entry in fs::read_dir(dir).map_err(failed(dir.to_path_buf()))? {
        let path = entry.map_err(failed(dir.to_path_buf()))?.path();
        File::open(&path).and_then(|file| file.sync_all()).map_err(failed(path))?;
    }
    Ok(())
}
