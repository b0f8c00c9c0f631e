//! Assembles a backbone from named tensors: finds the naming scheme, infers the sizes from the shapes, takes every tensor, and
//! refuses a file with anything left over.

use ndarray::{Array1, Array2, Array3, Axis, Ix1, Ix2, Ix3, Ix4, s};

use crate::{
    manifest::{Architecture, FfnKind, PositionVariant},
    weights::{
        Ffn, Linear, Norm, VitBlock, VitWeights, WeightsError,
        keys::{KeyScheme, QkvNames, SCHEMES, unchunked},
        named::NamedTensors,
    },
};

/// Names that an error lists on each side.
const MAX_LISTED: usize = 12;

/// What the file does not say.
#[derive(Clone, Debug, Default)]
pub struct VitHints {
    /// Attention heads; otherwise width / 64.
    pub heads: Option<u32>,
    /// Epsilon of the LayerNorms; otherwise 1e-6, the value of DINO and DINOv2.
    pub norm_eps: Option<f64>,
    /// Rows and columns of a position table that is not square.
    pub native_grid: Option<[usize; 2]>,
}

/// A backbone and where it came from.
#[derive(Clone, Debug)]
pub struct Recognised {
    /// The weights.
    pub weights: VitWeights,
    /// Naming scheme that fitted.
    pub key_map: &'static str,
    /// Prefix that was stripped from the names.
    pub prefix: String,
    /// Interpolation of the position table that the source uses.
    pub variant: PositionVariant,
}

/// Assembles the backbone in `tensors`.
///
/// # Errors
/// [`WeightsError::Unrecognised`] when no scheme fits, [`WeightsError::Unmatched`] with the names that are missing and left over,
/// [`WeightsError::Tensor`] for a tensor of the wrong shape.
pub fn assemble_vit(tensors: NamedTensors, hints: &VitHints) -> Result<Recognised, WeightsError> {
    let tensors = tensors.renamed(|name| Some(unchunked(name)));
    let (scheme, prefix) = find_scheme(&tensors)?;
    let ignored = |name: &str| scheme.ignored.iter().any(|start| name.starts_with(start));
    let tensors = tensors.renamed(|name| name.strip_prefix(&prefix).filter(|name| !ignored(name)).map(str::to_owned));
    let assembler = Assembler { tensors, scheme, missing: Vec::new() };
    assembler.assemble(hints, prefix)
}

/// The scheme whose landmarks are in the file, and the prefix before them. Of a student and a teacher, the teacher is taken.
fn find_scheme(tensors: &NamedTensors) -> Result<(KeyScheme, String), WeightsError> {
    let mut candidates: Vec<(KeyScheme, String)> = Vec::new();
    for scheme in SCHEMES {
        for name in tensors.names() {
            let Some(prefix) = scheme.prefix_of(name) else { continue };
            let has = |name: &str| tensors.shape(&format!("{prefix}{name}")).is_some();
            // A backbone without a CLS token is one that none of the others is.
            let is_other = scheme.cls.is_none() && SCHEMES.iter().filter_map(|scheme| scheme.cls).any(&has);
            if has(scheme.position) && has(&scheme.probe()) && !is_other {
                candidates.push((scheme, prefix.to_owned()));
            }
        }
    }
    candidates.sort_by_key(|(_, prefix)| !prefix.contains("teacher"));
    candidates.into_iter().next().ok_or_else(|| WeightsError::Unrecognised {
        expected: SCHEMES
            .map(|scheme| {
                let tokens = [scheme.cls, Some(scheme.position)].into_iter().flatten().collect::<Vec<_>>().join(", ");
                format!("{}: {tokens}, {}", scheme.name, scheme.probe())
            })
            .join("; "),
        found: listed(tensors.names().map(str::to_owned).collect()),
    })
}

struct Assembler {
    tensors: NamedTensors,
    scheme: KeyScheme,
    missing: Vec<String>,
}

impl Assembler {
    fn assemble(mut self, hints: &VitHints, prefix: String) -> Result<Recognised, WeightsError> {
        let scheme = self.scheme;
        let has_mask = self.tensors.take(scheme.mask).is_ok();
        let is_timm_registers = self.tensors.shape(scheme.registers[1]).is_some() && scheme.name == "official";
        let depth = (0..).take_while(|i| self.has(&format!("{}.weight", scheme.in_block(*i, scheme.norm1)))).count();
        let layer_scale = self.has(&scheme.in_block(0, scheme.scale1));
        let patch_weight = self.get::<Ix4>(&format!("{}.weight", scheme.patch));
        let patch_bias = self.get::<Ix1>(&format!("{}.bias", scheme.patch));
        let width = patch_bias.as_ref().map_or(0, Array1::len);
        let (cls, position) = self.tokens(width, hints)?;
        let registers = self.registers(width);
        let blocks: Vec<Option<VitBlock>> = (0..depth).map(|i| self.block(i, layer_scale)).collect();
        let norm = scheme.norm.map(|name| self.norm(name));
        self.refuse_unmatched()?;
        let (Some(patch_weight), Some(patch_bias), Some(blocks)) =
            (patch_weight, patch_bias, blocks.into_iter().collect::<Option<Vec<_>>>())
        else {
            return Err(WeightsError::Unmatched {
                key_map: scheme.name,
                missing: listed(self.missing),
                left_over: String::new(),
            });
        };
        let arch = architecture(&patch_weight, &blocks, registers.nrows(), layer_scale, (scheme, hints))?;
        // What is missing was refused above.
        let norm = norm.flatten();
        let weights = VitWeights { arch, patch_weight, patch_bias, cls, registers, position, blocks, norm };
        check_shapes(&weights)?;
        let weights = weights.counted();
        let variant = variant(scheme, &weights, layer_scale, has_mask, is_timm_registers);
        Ok(Recognised { weights, key_map: scheme.name, prefix, variant })
    }

    fn has(&self, name: &str) -> bool {
        self.tensors.shape(name).is_some()
    }

    /// Takes a tensor, or notes that it is missing or does not fit.
    fn get<D: ndarray::Dimension>(&mut self, name: &str) -> Option<ndarray::Array<f32, D>> {
        match self.tensors.take_as(name) {
            Ok(array) => Some(array),
            Err(WeightsError::Missing { name }) => {
                self.missing.push(name);
                None
            }
            Err(error) => {
                self.missing.push(format!("{name} ({error})"));
                None
            }
        }
    }

    /// The CLS token with its position, if there is one, and the table of the patches.
    fn tokens(&mut self, width: usize, hints: &VitHints) -> Result<(Option<Array1<f32>>, Array3<f32>), WeightsError> {
        let scheme = self.scheme;
        let cls = scheme.cls.map(|name| self.tensors.take(name)).transpose()?;
        let mut cls = cls.map(|token| token.into_iter().collect::<Array1<f32>>());
        let table = self.tensors.take_as::<Ix3>(scheme.position)?;
        let (_, n_rows, columns) = table.dim();
        let bad = |name: &str, problem: String| Err(WeightsError::Tensor { name: name.to_owned(), problem });
        let cls_width = cls.as_ref().map_or(width, Array1::len);
        if cls_width != width || columns != width {
            return bad(
                scheme.position,
                format!("has {columns} and the CLS token {cls_width} channels, the patch embedding {width}"),
            );
        }
        let table = table.index_axis_move(Axis(0), 0);
        let is_grid = |n: usize| hints.native_grid.map_or(n.isqrt().pow(2) == n, |[rows, cols]| rows * cols == n);
        // timm folds the position of the CLS token into the token and stores the patches only.
        let may_hold_cls = cls.is_some() && n_rows > 1 && is_grid(n_rows - 1);
        let patches = if is_grid(n_rows) && !(may_hold_cls && hints.native_grid.is_none()) {
            table
        } else if may_hold_cls {
            cls.iter_mut().for_each(|cls| *cls += &table.row(0));
            table.slice(s![1.., ..]).to_owned()
        } else {
            return bad(
                scheme.position,
                format!("has {n_rows} rows: neither a square grid nor one and a CLS token; give the grid"),
            );
        };
        let n_patches = patches.nrows();
        let [rows, cols] = hints.native_grid.unwrap_or([n_patches.isqrt(); 2]);
        let position = patches.into_shape_with_order((rows, cols, width));
        let position =
            position.map_err(|error| WeightsError::Tensor { name: scheme.position.to_owned(), problem: error.to_string() })?;
        Ok((cls, position))
    }

    fn registers(&mut self, width: usize) -> Array2<f32> {
        let [first, second] = self.scheme.registers;
        let name = if self.has(first) { first } else { second };
        if !self.has(name) {
            return Array2::zeros((0, width));
        }
        self.get::<Ix3>(name).map_or_else(|| Array2::zeros((0, width)), |tokens| tokens.index_axis_move(Axis(0), 0))
    }

    fn block(&mut self, i: usize, layer_scale: bool) -> Option<VitBlock> {
        let scheme = self.scheme;
        let name = |part: &str| scheme.in_block(i, part);
        let norm1 = self.norm(&name(scheme.norm1));
        let norm2 = self.norm(&name(scheme.norm2));
        let qkv = self.qkv(i);
        let proj = self.linear(&name(scheme.proj));
        let ffn = self.ffn(i);
        let scale1 = if layer_scale { self.get::<Ix1>(&name(scheme.scale1)) } else { None };
        let scale2 = if layer_scale { self.get::<Ix1>(&name(scheme.scale2)) } else { None };
        let [query, key, value] = qkv?;
        Some(VitBlock { norm1: norm1?, query, key, value, proj: proj?, scale1, norm2: norm2?, ffn: ffn?, scale2 })
    }

    fn qkv(&mut self, i: usize) -> Option<[Linear; 3]> {
        match self.scheme.qkv {
            QkvNames::Split(names) => {
                let [query, key, value] = names.map(|part| self.linear(&self.scheme.in_block(i, part)));
                Some([query?, key?, value?])
            }
            QkvNames::Fused(part) => {
                let fused = self.linear(&self.scheme.in_block(i, part))?;
                let width = fused.bias.len() / 3;
                Some([0, 1, 2].map(|part| Linear {
                    weight: fused.weight.slice(s![part * width..(part + 1) * width, ..]).to_owned(),
                    bias: fused.bias.slice(s![part * width..(part + 1) * width]).to_owned(),
                }))
            }
        }
    }

    fn ffn(&mut self, i: usize) -> Option<Ffn> {
        let scheme = self.scheme;
        if self.has(&format!("{}.weight", scheme.in_block(i, scheme.w12))) {
            let w12 = self.linear(&scheme.in_block(i, scheme.w12));
            let w3 = self.linear(&scheme.in_block(i, scheme.w3));
            return Some(Ffn::Swiglu { w12: w12?, w3: w3? });
        }
        let fc1 = self.linear(&scheme.in_block(i, scheme.fc1));
        let fc2 = self.linear(&scheme.in_block(i, scheme.fc2));
        let (fc1, fc2) = (fc1?, fc2?);
        // timm calls the fused gate and value of SwiGLU fc1: twice as many rows as fc2 has columns.
        if fc1.bias.len() == 2 * fc2.weight.ncols() {
            return Some(Ffn::Swiglu { w12: fc1, w3: fc2 });
        }
        Some(Ffn::Mlp { fc1, fc2 })
    }

    fn linear(&mut self, name: &str) -> Option<Linear> {
        let weight = self.get::<Ix2>(&format!("{name}.weight"));
        let bias = self.get::<Ix1>(&format!("{name}.bias"));
        Some(Linear { weight: weight?, bias: bias? })
    }

    fn norm(&mut self, name: &str) -> Option<Norm> {
        let weight = self.get::<Ix1>(&format!("{name}.weight"));
        let bias = self.get::<Ix1>(&format!("{name}.bias"));
        Some(Norm { weight: weight?, bias: bias? })
    }

    fn refuse_unmatched(&self) -> Result<(), WeightsError> {
        let left_over: Vec<String> = self.tensors.names().map(str::to_owned).collect();
        if self.missing.is_empty() && left_over.is_empty() {
            return Ok(());
        }
        Err(WeightsError::Unmatched {
            key_map: self.scheme.name,
            missing: listed(self.missing.clone()),
            left_over: listed(left_over),
        })
    }
}

fn architecture(
    patch_weight: &ndarray::Array4<f32>,
    blocks: &[VitBlock],
    n_registers: usize,
    layer_scale: bool,
    (scheme, hints): (KeyScheme, &VitHints),
) -> Result<Architecture, WeightsError> {
    let (width, n_channels, patch, patch_cols) = patch_weight.dim();
    let bad = |problem: String| WeightsError::Tensor { name: format!("{}.weight", scheme.patch), problem };
    if n_channels != 3 || patch != patch_cols || patch == 0 {
        return Err(bad(format!("has shape {:?}: a square kernel over three channels was expected", patch_weight.shape())));
    }
    let to_u32 = |value: usize| u32::try_from(value).unwrap_or(u32::MAX);
    let heads = hints.heads.unwrap_or(to_u32(width / 64));
    if heads == 0 || !width.is_multiple_of(heads as usize) {
        return Err(bad(format!("gives {width} channels, which {heads} heads do not divide; give the number of heads")));
    }
    let is_swiglu = blocks.iter().any(|block| matches!(block.ffn, Ffn::Swiglu { .. }));
    let family = match (scheme.name, layer_scale) {
        ("selfpatch", _) => Architecture::PATCHES_ONLY,
        ("hf-vit", _) => "vit",
        (_, true) => "dinov2",
        (_, false) => "dino",
    };
    Ok(Architecture {
        family: family.to_owned(),
        width: to_u32(width),
        depth: to_u32(blocks.len()),
        heads,
        patch: to_u32(patch),
        registers: to_u32(n_registers),
        ffn: if is_swiglu { FfnKind::Swiglu } else { FfnKind::Mlp },
        layer_scale,
        norm_eps: hints.norm_eps.unwrap_or(1e-6),
        parameters: 0,
    })
}

/// The interpolation that the code behind the source uses; see `graph::position` for what they are.
fn variant(
    scheme: KeyScheme,
    weights: &VitWeights,
    layer_scale: bool,
    has_mask: bool,
    is_timm_registers: bool,
) -> PositionVariant {
    let has_registers = weights.registers.nrows() > 0;
    match scheme.name {
        "official" | "selfpatch" if is_timm_registers || has_registers => PositionVariant::Antialias,
        // DINOv2 files of its authors hold a mask token, those of timm do not.
        "official" if layer_scale && !has_mask => PositionVariant::Antialias,
        "official" | "selfpatch" => PositionVariant::Offset,
        _ if has_registers => PositionVariant::Antialias,
        _ => PositionVariant::Exact,
    }
}

/// Every linear layer and norm must fit the width; a file may hold tensors of the right names and wrong sizes.
fn check_shapes(weights: &VitWeights) -> Result<(), WeightsError> {
    let width = weights.arch.width as usize;
    for (i, block) in weights.blocks.iter().enumerate() {
        let (wide, first, last) = match &block.ffn {
            Ffn::Mlp { fc1, fc2 } => (fc1.bias.len(), fc1, fc2),
            Ffn::Swiglu { w12, w3 } => (w12.bias.len() / 2, w12, w3),
        };
        let squares = [&block.query, &block.key, &block.value, &block.proj];
        let mut fits = squares.iter().all(|layer| layer.weight.dim() == (width, width) && layer.bias.len() == width);
        fits &= first.weight.dim() == (first.bias.len(), width) && last.weight.dim() == (width, wide) && last.bias.len() == width;
        fits &= [&block.norm1, &block.norm2].iter().all(|norm| norm.weight.len() == width && norm.bias.len() == width);
        fits &= [&block.scale1, &block.scale2].iter().all(|scale| scale.as_ref().is_none_or(|scale| scale.len() == width));
        if !fits {
            let problem = format!("holds a tensor whose shape does not fit {width} channels");
            return Err(WeightsError::Tensor { name: format!("block {i}"), problem });
        }
    }
    let is_wide = |norm: &Norm| norm.weight.len() == width && norm.bias.len() == width;
    let fits = weights.norm.as_ref().is_none_or(is_wide) && weights.registers.ncols() == width;
    if fits {
        Ok(())
    } else {
        Err(WeightsError::Tensor { name: "final norm or registers".into(), problem: format!("do not fit {width} channels") })
    }
}

impl VitWeights {
    /// The weights with their number filled in. A CLS position that was folded into the token counts.
    #[must_use]
    pub fn counted(mut self) -> Self {
        let linear = |layer: &Linear| layer.weight.len() + layer.bias.len();
        let norm = |norm: &Norm| norm.weight.len() + norm.bias.len();
        let block = |block: &VitBlock| {
            let ffn = match &block.ffn {
                Ffn::Mlp { fc1, fc2 } => linear(fc1) + linear(fc2),
                Ffn::Swiglu { w12, w3 } => linear(w12) + linear(w3),
            };
            let projections: usize = [&block.query, &block.key, &block.value, &block.proj].into_iter().map(linear).sum();
            let scales: usize = [&block.scale1, &block.scale2].into_iter().flatten().map(Array1::len).sum();
            projections + ffn + scales + norm(&block.norm1) + norm(&block.norm2)
        };
        let tokens = 2 * self.cls.as_ref().map_or(0, Array1::len) + self.registers.len() + self.position.len();
        let embedding = self.patch_weight.len() + self.patch_bias.len();
        let last = self.norm.as_ref().map_or(0, norm);
        let total = tokens + embedding + last + self.blocks.iter().map(block).sum::<usize>();
        self.arch.parameters = total as u64;
        self
    }
}

/// Up to [`MAX_LISTED`] names on one line.
fn listed(names: Vec<String>) -> String {
    let n_more = names.len().saturating_sub(MAX_LISTED);
    let mut text = names.into_iter().take(MAX_LISTED).collect::<Vec<_>>().join(", ");
    if n_more > 0 {
        text.push_str(&format!(" and {n_more} more"));
    }
    if text.is_empty() { "nothing".into() } else { text }
}
