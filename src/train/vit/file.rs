//! Writes a backbone as `densevit import` reads it: under the names of the source that its weights came from.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use anyhow::Context as _;
use densevit::manifest::{FfnKind, PositionVariant};
use tch::{Kind, Tensor};

use crate::{
    checkpoint::{self, Stored},
    vit::{Vit, block::Block},
};

/// The weights, in the folder of a backbone.
pub const FILE: &str = "model.safetensors";

/// Names of a source. Those of blocks follow `blocks` and the block's index.
struct Names {
    cls: &'static str,
    position: &'static str,
    registers: &'static str,
    patch: &'static str,
    norm: &'static str,
    blocks: &'static str,
    norms: [&'static str; 2],
    /// One layer, or three.
    qkv: &'static [&'static str],
    proj: &'static str,
    mlp: [&'static str; 2],
    gated: [&'static str; 2],
    scales: [&'static str; 2],
}

const OFFICIAL: Names = Names {
    cls: "cls_token",
    position: "pos_embed",
    registers: "register_tokens",
    patch: "patch_embed.proj",
    norm: "norm",
    blocks: "blocks",
    norms: ["norm1", "norm2"],
    qkv: &["attn.qkv"],
    proj: "attn.proj",
    mlp: ["mlp.fc1", "mlp.fc2"],
    gated: ["mlp.w12", "mlp.w3"],
    scales: ["ls1.gamma", "ls2.gamma"],
};

const HF_DINOV2: Names = Names {
    cls: "embeddings.cls_token",
    position: "embeddings.position_embeddings",
    registers: "embeddings.register_tokens",
    patch: "embeddings.patch_embeddings.projection",
    norm: "layernorm",
    blocks: "encoder.layer",
    qkv: &["attention.attention.query", "attention.attention.key", "attention.attention.value"],
    proj: "attention.output.dense",
    gated: ["mlp.weights_in", "mlp.weights_out"],
    scales: ["layer_scale1.lambda1", "layer_scale2.lambda1"],
    ..OFFICIAL
};

const HF_VIT: Names =
    Names { norms: ["layernorm_before", "layernorm_after"], mlp: ["intermediate.dense", "output.dense"], ..HF_DINOV2 };

impl Vit {
    /// Writes the weights to `folder/model.safetensors`, and beside them what the file cannot say, in a `config.json`. Returns
    /// the file of weights.
    ///
    /// # Errors
    /// When a file cannot be written.
    pub fn write(&self, folder: &Path) -> anyhow::Result<PathBuf> {
        self.write_as(folder, FILE, Stored::Float)
    }

    /// The same under another name, in some element type.
    ///
    /// # Errors
    /// When a file cannot be written.
    pub fn write_as(&self, folder: &Path, name: &str, stored: Stored) -> anyhow::Result<PathBuf> {
        fs::create_dir_all(folder).with_context(|| format!("creating {}", folder.display()))?;
        let arch = self.arch();
        let config = serde_json::json!({ "num_attention_heads": arch.heads, "layer_norm_eps": arch.norm_eps });
        checkpoint::write_bytes(&folder.join("config.json"), serde_json::to_string_pretty(&config)?.as_bytes())?;
        let file = folder.join(name);
        checkpoint::write_as(&file, stored, &tch::no_grad(|| self.named()), &[])?;
        Ok(file)
    }

    /// All tensors under the names of the source.
    fn named(&self) -> BTreeMap<String, Tensor> {
        let names = match self.source.key_map {
            "hf-dinov2" => HF_DINOV2,
            "hf-vit" => HF_VIT,
            _ => OFFICIAL,
        };
        let mut tensors = BTreeMap::new();
        let width = i64::from(self.arch().width);
        let table = self.position.view([1, -1, width]);
        let options = (Kind::Float, table.device());
        let position = match &self.cls {
            None => table,
            Some(cls) => {
                tensors.insert(names.cls.to_owned(), cls.view([1, 1, width]));
                // The position of the CLS token is in the token already.
                Tensor::cat(&[Tensor::zeros([1, 1, width], options), table], 1)
            }
        };
        tensors.insert(names.position.to_owned(), position);
        if self.registers.size()[0] > 0 {
            tensors.insert(names.registers.to_owned(), self.registers.unsqueeze(0));
        }
        // Files of DINOv2's authors are told from timm's, which fit their table otherwise, by this token.
        let is_of_authors = self.source.variant == PositionVariant::Offset && self.arch().layer_scale;
        if self.source.key_map == "official" && is_of_authors {
            tensors.insert("mask_token".to_owned(), Tensor::zeros([1, width], options));
        }
        insert(&mut tensors, names.patch, &self.embed);
        if let Some(norm) = &self.norm {
            insert(&mut tensors, names.norm, norm);
        }
        for (idx, block) in self.blocks.iter().enumerate() {
            self.add_block(&mut tensors, &names, &format!("{}.{idx}.", names.blocks), block);
        }
        tensors
    }

    fn add_block(&self, tensors: &mut BTreeMap<String, Tensor>, names: &Names, prefix: &str, block: &Block) {
        let mut add = |name: &str, pair: &[Tensor; 2]| insert(tensors, &format!("{prefix}{name}"), pair);
        add(names.norms[0], &block.norm1);
        add(names.norms[1], &block.norm2);
        add(names.proj, &block.proj);
        let ffn = if self.arch().ffn == FfnKind::Swiglu { names.gated } else { names.mlp };
        add(ffn[0], &block.wide);
        add(ffn[1], &block.narrow);
        let rows = block.qkv[0].size()[0] / i64::try_from(names.qkv.len()).unwrap_or(1);
        for (part, name) in (0i64..).zip(names.qkv) {
            add(name, &block.qkv.each_ref().map(|tensor| tensor.narrow(0, part * rows, rows)));
        }
        for (name, scale) in names.scales.iter().zip([&block.scale1, &block.scale2]) {
            if let Some(scale) = scale {
                tensors.insert(format!("{prefix}{name}"), scale.shallow_clone());
            }
        }
    }
}

fn insert(tensors: &mut BTreeMap<String, Tensor>, name: &str, pair: &[Tensor; 2]) {
    for (part, tensor) in ["weight", "bias"].iter().zip(pair) {
        tensors.insert(format!("{name}.{part}"), tensor.shallow_clone());
    }
}
