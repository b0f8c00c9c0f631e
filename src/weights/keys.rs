//! How the sources name their weights: one table a naming scheme.

/// Query, key and value projections.
#[derive(Clone, Copy, Debug)]
pub(super) enum QkvNames {
    /// One layer; output rows are queries, keys, values.
    Fused(&'static str),
    /// Three layers.
    Split([&'static str; 3]),
}

/// Names of one scheme. Those of blocks follow `block`, `{i}` being the block's index; `.weight` and `.bias` follow layers.
#[derive(Clone, Copy, Debug)]
pub(super) struct KeyScheme {
    pub(super) name: &'static str,
    /// None where there is no such token.
    pub(super) cls: Option<&'static str>,
    pub(super) position: &'static str,
    /// Either is accepted.
    pub(super) registers: [&'static str; 2],
    pub(super) mask: &'static str,
    pub(super) patch: &'static str,
    pub(super) block: &'static str,
    pub(super) norm1: &'static str,
    pub(super) norm2: &'static str,
    pub(super) qkv: QkvNames,
    pub(super) proj: &'static str,
    pub(super) fc1: &'static str,
    pub(super) fc2: &'static str,
    pub(super) w12: &'static str,
    pub(super) w3: &'static str,
    pub(super) scale1: &'static str,
    pub(super) scale2: &'static str,
    /// None where nothing follows the last block.
    pub(super) norm: Option<&'static str>,
    /// Beginnings of names that belong to no backbone.
    pub(super) ignored: &'static [&'static str],
}

/// DINO and DINOv2 as released by their authors, and timm.
const OFFICIAL: KeyScheme = KeyScheme {
    name: "official",
    cls: Some("cls_token"),
    position: "pos_embed",
    registers: ["register_tokens", "reg_token"],
    mask: "mask_token",
    patch: "patch_embed.proj",
    block: "blocks.{i}.",
    norm1: "norm1",
    norm2: "norm2",
    qkv: QkvNames::Fused("attn.qkv"),
    proj: "attn.proj",
    fc1: "mlp.fc1",
    fc2: "mlp.fc2",
    w12: "mlp.w12",
    w3: "mlp.w3",
    scale1: "ls1.gamma",
    scale2: "ls2.gamma",
    norm: Some("norm"),
    ignored: &["head.", "head_dist.", "fc_norm.", "dino_head.", "ibot_head."],
};

const SPLIT_QKV: QkvNames =
    QkvNames::Split(["attention.attention.query", "attention.attention.key", "attention.attention.value"]);

/// Hugging Face `Dinov2Model` and `Dinov2WithRegistersModel`.
const HF_DINOV2: KeyScheme = KeyScheme {
    name: "hf-dinov2",
    cls: Some("embeddings.cls_token"),
    position: "embeddings.position_embeddings",
    registers: ["embeddings.register_tokens", "embeddings.register_tokens"],
    mask: "embeddings.mask_token",
    patch: "embeddings.patch_embeddings.projection",
    block: "encoder.layer.{i}.",
    norm1: "norm1",
    norm2: "norm2",
    qkv: SPLIT_QKV,
    proj: "attention.output.dense",
    fc1: "mlp.fc1",
    fc2: "mlp.fc2",
    w12: "mlp.weights_in",
    w3: "mlp.weights_out",
    scale1: "layer_scale1.lambda1",
    scale2: "layer_scale2.lambda1",
    norm: Some("layernorm"),
    ignored: &["pooler.", "classifier.", "decoder.", "head."],
};

/// Hugging Face `ViTModel`.
const HF_VIT: KeyScheme = KeyScheme {
    name: "hf-vit",
    norm1: "layernorm_before",
    norm2: "layernorm_after",
    fc1: "intermediate.dense",
    fc2: "output.dense",
    ..HF_DINOV2
};

/// SelfPatch as released by its authors: patches only.
const SELFPATCH: KeyScheme = KeyScheme { name: "selfpatch", cls: None, norm: None, ..OFFICIAL };

/// All schemes.
pub(super) const SCHEMES: [KeyScheme; 4] = [OFFICIAL, HF_DINOV2, HF_VIT, SELFPATCH];

impl KeyScheme {
    /// The prefix before this scheme's names, if `name` is that of its first token: the CLS token, or the position table where there is
    /// no such token.
    pub(super) fn prefix_of<'a>(&self, name: &'a str) -> Option<&'a str> {
        let prefix = name.strip_suffix(self.cls.unwrap_or(self.position))?;
        (prefix.is_empty() || prefix.ends_with('.')).then_some(prefix)
    }

    /// A name inside block `i`.
    pub(super) fn in_block(&self, i: usize, name: &str) -> String {
        format!("{}{name}", self.block.replace("{i}", &i.to_string()))
    }

    /// A name that this scheme has in block 0, beside those of its tokens.
    pub(super) fn probe(&self) -> String {
        self.in_block(0, &format!("{}.weight", self.norm1))
    }
}

/// `blocks.<chunk>.<i>.rest` of sharded DINOv2 training checkpoints as `blocks.<i>.rest`.
pub(super) fn unchunked(name: &str) -> String {
    let Some((before, after)) = name.split_once("blocks.") else { return name.to_owned() };
    let mut parts = after.splitn(3, '.');
    let is_number =
        |part: Option<&str>| part.is_some_and(|part| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit()));
    let (chunk, block, rest) = (parts.next(), parts.next(), parts.next());
    match (block, rest) {
        (Some(block), Some(rest)) if is_number(chunk) && is_number(Some(block)) => format!("{before}blocks.{block}.{rest}"),
        _ => name.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chunk_numbers_are_dropped_and_plain_names_kept() {
        assert_eq!(unchunked("teacher.backbone.blocks.2.7.attn.qkv.weight"), "teacher.backbone.blocks.7.attn.qkv.weight");
        assert_eq!(unchunked("blocks.7.attn.qkv.weight"), "blocks.7.attn.qkv.weight");
        assert_eq!(unchunked("cls_token"), "cls_token");
    }
}
