//! The parameters of a request. Every one that is not known is refused.

use std::{collections::HashMap, str::FromStr as _, time::Duration};

use crate::{
    engine::{FeatureRequest, InferError, MaskSize, Part, Priority},
    grpc::pb::inference::{InferParameter, infer_parameter::ParameterChoice},
    manifest::{Facet, Interpolation, ResizePolicy},
    postprocess::{DType, Layout},
};

/// What may be set, for the message about what may not.
const KNOWN: &str = "facet, layer, lift_passes, dtype, l2_normalize, resize, height, width, short_side, interpolation, mask_size, \
                     min_score, timeout, priority";

/// The settings of a request.
#[derive(Clone, Debug)]
pub(super) struct Parameters {
    /// Which features; tokens are a matter of the outputs.
    pub(super) features: FeatureRequest,
    pub(super) resize: Option<ResizePolicy>,
    pub(super) interpolation: Option<Interpolation>,
    pub(super) mask_size: MaskSize,
    pub(super) min_score: f32,
    /// How long the answer is worth something.
    pub(super) timeout: Option<Duration>,
    /// How urgent it is, unless the call's metadata say.
    pub(super) priority: Option<Priority>,
}

/// Parameters that have not been read yet.
struct Unread(HashMap<String, InferParameter>);

impl Parameters {
    /// Reads all parameters.
    ///
    /// # Errors
    /// [`InferError::InvalidArgument`] with `parameters.NAME`.
    pub(super) fn parse(parameters: HashMap<String, InferParameter>) -> Result<Self, InferError> {
        let mut unread = Unread(parameters);
        let parsed = Self {
            features: features(&mut unread)?,
            resize: resize(&mut unread)?,
            interpolation: interpolation(&mut unread)?,
            mask_size: mask_size(&mut unread)?,
            min_score: min_score(&mut unread)?,
            timeout: unread.count("timeout")?.filter(|micros| *micros > 0).map(Duration::from_micros),
            priority: priority(&mut unread)?,
        };
        unread.finish()?;
        Ok(parsed)
    }
}

impl Unread {
    fn take(&mut self, name: &str) -> Result<Option<ParameterChoice>, InferError> {
        let Some(parameter) = self.0.remove(name) else { return Ok(None) };
        parameter.parameter_choice.map(Some).ok_or_else(|| invalid(name, "holds no value"))
    }

    fn text(&mut self, name: &str) -> Result<Option<String>, InferError> {
        match self.take(name)? {
            None => Ok(None),
            Some(ParameterChoice::StringParam(text)) => Ok(Some(text)),
            Some(other) => Err(invalid(name, format!("must be a string (string_param), not {}", shown(&other)))),
        }
    }

    /// A whole number that is not negative. Both forms occur: official clients send `priority` as uint64, everything else as int64.
    fn count(&mut self, name: &str) -> Result<Option<u64>, InferError> {
        let refused = |choice: &ParameterChoice| invalid(name, format!("must be a whole number from 0, not {}", shown(choice)));
        match self.take(name)? {
            None => Ok(None),
            Some(ParameterChoice::Uint64Param(count)) => Ok(Some(count)),
            Some(choice @ ParameterChoice::Int64Param(count)) => {
                u64::try_from(count).map(Some).map_err(|_negative| refused(&choice))
            }
            Some(other) => Err(refused(&other)),
        }
    }

    /// As [`count`](Self::count), of what is counted in 32 bits.
    fn small_count(&mut self, name: &str) -> Result<Option<u32>, InferError> {
        let narrowed = self.count(name)?.map(|count| {
            u32::try_from(count).map_err(|_large| invalid(name, format!("{count} is above the limit of {}", u32::MAX)))
        });
        narrowed.transpose()
    }

    fn flag(&mut self, name: &str) -> Result<Option<bool>, InferError> {
        match self.take(name)? {
            None => Ok(None),
            Some(ParameterChoice::BoolParam(flag)) => Ok(Some(flag)),
            Some(other) => Err(invalid(name, format!("must be true or false (bool_param), not {}", shown(&other)))),
        }
    }

    fn number(&mut self, name: &str) -> Result<Option<f64>, InferError> {
        match self.take(name)? {
            None => Ok(None),
            Some(ParameterChoice::DoubleParam(number)) => Ok(Some(number)),
            Some(ParameterChoice::Int64Param(number @ 0..=1)) => Ok(Some(if number == 0 { 0.0 } else { 1.0 })),
            Some(other) => Err(invalid(name, format!("must be a number (double_param), not {}", shown(&other)))),
        }
    }

    /// Refuses what nobody asked for. Names that the protocol reserves for its transports say nothing about the request.
    fn finish(self) -> Result<(), InferError> {
        let is_of_transport = |name: &str| name.starts_with("triton_") || name == "headers" || name == "binary_data_output";
        let unknown = self.0.into_keys().filter(|name| !is_of_transport(name)).min();
        let Some(name) = unknown else { return Ok(()) };
        if name.starts_with("sequence_") {
            return Err(invalid(&name, "is not offered: models keep no state between requests"));
        }
        Err(invalid(&name, format!("is not known; known are {KNOWN}")))
    }
}

fn features(unread: &mut Unread) -> Result<FeatureRequest, InferError> {
    let facet = unread.text("facet")?.map(|text| Facet::from_str(&text).map_err(|message| invalid("facet", message)));
    let dtype = match unread.text("dtype")?.as_deref() {
        None | Some("FP32") => DType::F32,
        Some("FP16") => DType::F16,
        Some(other) => return Err(invalid("dtype", format!("\"{other}\" is no element type of features: FP32 or FP16"))),
    };
    Ok(FeatureRequest {
        facet: facet.transpose()?,
        layer: unread.small_count("layer")?,
        lift_passes: unread.small_count("lift_passes")?,
        dtype,
        layout: Layout::Hwc,
        l2_normalize: unread.flag("l2_normalize")?.unwrap_or_default(),
        part: Part::All,
        cls_token: false,
        register_tokens: false,
    })
}

fn resize(unread: &mut Unread) -> Result<Option<ResizePolicy>, InferError> {
    let policy = unread.text("resize")?;
    let (height, width) = (unread.small_count("height")?, unread.small_count("width")?);
    let short_side = unread.small_count("short_side")?;
    match (policy.as_deref(), height, width, short_side) {
        (None, None, None, None) => Ok(None),
        (None | Some("exact"), Some(height), Some(width), None) => Ok(Some(ResizePolicy::Exact { height, width })),
        (Some("letterbox"), Some(height), Some(width), None) => Ok(Some(ResizePolicy::Letterbox { height, width })),
        (None | Some("short_side"), None, None, Some(pixels)) => Ok(Some(ResizePolicy::ShortSide { pixels })),
        (Some("native"), None, None, None) => Ok(Some(ResizePolicy::Native)),
        (Some("exact" | "letterbox" | "short_side" | "native") | None, ..) => Err(invalid(
            "resize",
            "exact and letterbox take height and width, short_side takes short_side, native takes nothing; no others may be set",
        )),
        (Some(other), ..) => Err(invalid("resize", format!("\"{other}\" is no policy: exact, letterbox, short_side or native"))),
    }
}

fn interpolation(unread: &mut Unread) -> Result<Option<Interpolation>, InferError> {
    match unread.text("interpolation")?.as_deref() {
        None => Ok(None),
        Some("nearest") => Ok(Some(Interpolation::Nearest)),
        Some("bilinear") => Ok(Some(Interpolation::Bilinear)),
        Some("bicubic") => Ok(Some(Interpolation::Bicubic)),
        Some("lanczos") => Ok(Some(Interpolation::Lanczos)),
        Some(other) => Err(invalid("interpolation", format!("\"{other}\" is no kernel: nearest, bilinear, bicubic or lanczos"))),
    }
}

fn mask_size(unread: &mut Unread) -> Result<MaskSize, InferError> {
    match unread.text("mask_size")?.as_deref() {
        None | Some("image") => Ok(MaskSize::Image),
        Some("scores") => Ok(MaskSize::Scores),
        Some(other) => Err(invalid("mask_size", format!("\"{other}\" is no raster: image or scores"))),
    }
}

fn min_score(unread: &mut Unread) -> Result<f32, InferError> {
    let score = unread.number("min_score")?.unwrap_or_default();
    if !(0.0..=1.0).contains(&score) {
        return Err(invalid("min_score", format!("{score} lies outside [0, 1]")));
    }
    #[expect(clippy::cast_possible_truncation, reason = "scores are single precision")]
    Ok(score as f32)
}

/// Triton's levels: 1 comes first, 0 is the default.
fn priority(unread: &mut Unread) -> Result<Option<Priority>, InferError> {
    let Some(level) = unread.count("priority")?.filter(|level| *level > 0) else { return Ok(None) };
    let place = usize::try_from(level - 1).ok().and_then(|idx| Priority::ALL.get(idx));
    let n_levels = Priority::ALL.len();
    place
        .copied()
        .map(Some)
        .ok_or_else(|| invalid("priority", format!("{level} is no level: 1, the most urgent, to {n_levels}, or 0")))
}

fn invalid(name: &str, message: impl Into<String>) -> InferError {
    InferError::invalid(format!("parameters.{name}"), message)
}

fn shown(choice: &ParameterChoice) -> String {
    match choice {
        ParameterChoice::BoolParam(value) => format!("{value}"),
        ParameterChoice::Int64Param(value) => format!("{value}"),
        ParameterChoice::Uint64Param(value) => format!("{value}"),
        ParameterChoice::DoubleParam(value) => format!("{value}"),
        ParameterChoice::StringParam(_) => "a string".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use super::*;

    fn parse(parameters: &[(&str, ParameterChoice)]) -> Result<Parameters, InferError> {
        let parameter = |choice: &ParameterChoice| InferParameter { parameter_choice: Some(choice.clone()) };
        Parameters::parse(parameters.iter().map(|(name, choice)| ((*name).to_owned(), parameter(choice))).collect())
    }

    fn text(text: &str) -> ParameterChoice {
        ParameterChoice::StringParam(text.to_owned())
    }

    #[test]
    fn nothing_set_leaves_every_choice_to_the_model() {
        let parsed = parse(&[]).unwrap();
        assert_eq!((parsed.features.facet, parsed.features.layer, parsed.features.lift_passes), (None, None, None));
        assert_eq!((parsed.resize, parsed.timeout, parsed.features.dtype), (None, None, DType::F32));
        assert_eq!(parsed.priority, None);
    }

    #[test]
    fn settings_reach_the_request() {
        use ParameterChoice::{BoolParam, DoubleParam, Int64Param, Uint64Param};
        let parsed = parse(&[
            ("facet", text("key")),
            ("layer", Int64Param(3)),
            ("dtype", text("FP16")),
            ("l2_normalize", BoolParam(true)),
            ("height", Int64Param(28)),
            ("width", Int64Param(42)),
            ("min_score", DoubleParam(0.25)),
            ("priority", Uint64Param(1)),
            ("timeout", Int64Param(1500)),
            ("triton_enable_empty_final_response", BoolParam(true)),
        ])
        .unwrap();
        assert_eq!((parsed.features.facet, parsed.features.layer), (Some(Facet::Key), Some(3)));
        assert_eq!(parsed.resize, Some(ResizePolicy::Exact { height: 28, width: 42 }));
        assert_eq!((parsed.timeout, parsed.min_score), (Some(Duration::from_micros(1500)), 0.25));
        assert_eq!(parsed.priority, Some(Priority::Interactive));
        assert!(parsed.features.l2_normalize && parsed.features.dtype == DType::F16);
    }

    #[test]
    fn each_bad_parameter_is_named() {
        use ParameterChoice::{BoolParam, DoubleParam, Int64Param};
        let cases: [(&[(&str, ParameterChoice)], &str); 13] = [
            (&[("fasset", text("key"))], "parameters.fasset"),
            (&[("facet", text("keys"))], "parameters.facet"),
            (&[("facet", Int64Param(1))], "parameters.facet"),
            (&[("layer", Int64Param(-1))], "parameters.layer"),
            (&[("layer", Int64Param(1 << 40))], "parameters.layer"),
            (&[("dtype", text("BF16"))], "parameters.dtype"),
            (&[("l2_normalize", text("yes"))], "parameters.l2_normalize"),
            (&[("height", Int64Param(28))], "parameters.resize"),
            (&[("resize", text("native")), ("short_side", Int64Param(28))], "parameters.resize"),
            (&[("min_score", DoubleParam(f64::NAN))], "parameters.min_score"),
            (&[("timeout", BoolParam(true))], "parameters.timeout"),
            (&[("priority", Int64Param(4))], "parameters.priority"),
            (&[("sequence_id", Int64Param(7))], "parameters.sequence_id"),
        ];
        for (parameters, field) in cases {
            assert_eq!(parse(parameters).unwrap_err().field(), Some(field));
        }
    }
}
