//! One method an operator. Names, inputs and attributes are those of the ONNX operator set and of ONNX Runtime's `com.microsoft`.

use crate::onnx::{
    builder::{GraphBuilder, Value, float, int, ints, string},
    proto::DataType,
};

/// Part of an axis, `[begin, end)`; an `end` of `i64::MAX` means all the rest.
#[derive(Clone, Copy, Debug)]
pub struct Along {
    /// The axis.
    pub axis: i64,
    /// First index.
    pub begin: i64,
    /// One past the last index.
    pub end: i64,
}

/// A tensor in bytes: `scale * (values - zero)`.
#[derive(Clone, Debug)]
pub struct QuantizedValue {
    /// Bytes.
    pub values: Value,
    /// Scalar f32.
    pub scale: Value,
    /// Scalar byte.
    pub zero: Value,
}

/// A matrix in signed bytes, with a scale for each column, and the bias of its products.
#[derive(Clone, Debug)]
pub struct QuantizedWeight {
    /// `[K, N]` signed bytes.
    pub values: Value,
    /// `[N]` f32.
    pub scale: Value,
    /// `[N]` signed bytes.
    pub zero: Value,
    /// `[N]` f32.
    pub bias: Value,
}

impl GraphBuilder {
    /// `a @ b`.
    pub fn matmul(&mut self, a: &Value, b: &Value) -> Value {
        self.node("MatMul", &[a, b], Vec::new())
    }

    /// `a + b`.
    pub fn add(&mut self, a: &Value, b: &Value) -> Value {
        self.node("Add", &[a, b], Vec::new())
    }

    /// `a * b`.
    pub fn mul(&mut self, a: &Value, b: &Value) -> Value {
        self.node("Mul", &[a, b], Vec::new())
    }

    /// `x` in another element type.
    pub fn cast(&mut self, x: &Value, to: DataType) -> Value {
        self.node("Cast", &[x], vec![int("to", to as i64)])
    }

    /// `max(x, 0)`.
    pub fn relu(&mut self, x: &Value) -> Value {
        self.node("Relu", &[x], Vec::new())
    }

    /// `1 / (1 + exp(-x))`.
    pub fn sigmoid(&mut self, x: &Value) -> Value {
        self.node("Sigmoid", &[x], Vec::new())
    }

    /// Softmax over the last axis.
    pub fn softmax(&mut self, x: &Value) -> Value {
        self.node("Softmax", &[x], vec![int("axis", -1)])
    }

    /// `x` with `n` copies of its outermost entries before and after, along each of `axes`.
    pub fn pad_edge(&mut self, x: &Value, n: i64, axes: &[i64]) -> Value {
        let (pads, axes) = (self.ints(&vec![n; 2 * axes.len()]), self.ints(axes));
        let absent = Value(String::new());
        self.node("Pad", &[x, &pads, &absent, &axes], vec![string("mode", "edge")])
    }

    /// Exact (erf) GELU.
    pub fn gelu(&mut self, x: &Value) -> Value {
        self.node("Gelu", &[x], Vec::new())
    }

    /// Layer normalisation over the last axis; statistics in single precision whatever the type of `x`.
    pub fn layer_norm(&mut self, x: &Value, scale: &Value, bias: &Value, epsilon: f32) -> Value {
        self.node("LayerNormalization", &[x, scale, bias], vec![int("axis", -1), float("epsilon", epsilon), int("stash_type", 1)])
    }

    /// `com.microsoft.MultiHeadAttention` of `[B, T, D]` queries, keys and values; scores are scaled by `1 / sqrt(D / n_heads)`.
    pub fn multi_head_attention(&mut self, query: &Value, key: &Value, value: &Value, n_heads: u32) -> Value {
        self.microsoft_node("MultiHeadAttention", &[query, key, value], vec![int("num_heads", i64::from(n_heads))])
    }

    /// `round(x / scale) + zero`, saturated to bytes; `scale` and `zero` are scalars.
    pub fn quantize(&mut self, x: &Value, scale: &Value, zero: &Value) -> Value {
        self.node("QuantizeLinear", &[x, scale, zero], Vec::new())
    }

    /// `com.microsoft.MatMulIntegerToFloat`: product of bytes `x` and signed bytes `weight` `[K, N]`, times the scales, plus `bias`, in f32.
    pub fn matmul_integer(&mut self, x: &QuantizedValue, weight: &QuantizedWeight) -> Value {
        let QuantizedWeight { values, scale, zero, bias } = weight;
        self.microsoft_node("MatMulIntegerToFloat", &[&x.values, values, &x.scale, scale, &x.zero, zero, bias], Vec::new())
    }

    /// Smallest values of `x` over `axes`, which are dropped.
    pub fn reduce_min(&mut self, x: &Value, axes: &[i64]) -> Value {
        let axes = self.ints(axes);
        self.node("ReduceMin", &[x, &axes], vec![int("keepdims", 0)])
    }

    /// Largest values of `x` over `axes`, which are dropped.
    pub fn reduce_max(&mut self, x: &Value, axes: &[i64]) -> Value {
        let axes = self.ints(axes);
        self.node("ReduceMax", &[x, &axes], vec![int("keepdims", 0)])
    }

    /// Two-dimensional convolution with a square kernel and the same stride and padding on both axes.
    pub fn conv(&mut self, x: &Value, weight: &Value, bias: &Value, geometry: ConvGeometry) -> Value {
        let ConvGeometry { kernel, stride, pad } = geometry;
        let attributes = vec![ints("kernel_shape", &[kernel; 2]), ints("strides", &[stride; 2]), ints("pads", &[pad; 4])];
        self.node("Conv", &[x, weight, bias], attributes)
    }

    /// Transposed convolution whose kernel equals its stride.
    pub fn conv_transpose(&mut self, x: &Value, weight: &Value, bias: &Value, stride: i64) -> Value {
        self.node("ConvTranspose", &[x, weight, bias], vec![ints("kernel_shape", &[stride; 2]), ints("strides", &[stride; 2])])
    }

    /// Maximum over `side` x `side` windows that do not overlap.
    pub fn max_pool(&mut self, x: &Value, side: i64) -> Value {
        self.node("MaxPool", &[x], vec![ints("kernel_shape", &[side; 2]), ints("strides", &[side; 2])])
    }

    /// `x` with its axes in another order.
    pub fn transpose(&mut self, x: &Value, order: &[i64]) -> Value {
        self.node("Transpose", &[x], vec![ints("perm", order)])
    }

    /// `x` in another shape; 0 keeps an extent, -1 is inferred.
    pub fn reshape(&mut self, x: &Value, shape: &[i64]) -> Value {
        let shape = self.ints(shape);
        self.reshape_to(x, &shape)
    }

    /// `x` in a shape that the graph computes.
    pub fn reshape_to(&mut self, x: &Value, shape: &Value) -> Value {
        self.node("Reshape", &[x, shape], Vec::new())
    }

    /// Values one after the other along `axis`.
    pub fn concat(&mut self, values: &[&Value], axis: i64) -> Value {
        self.node("Concat", values, vec![int("axis", axis)])
    }

    /// Part of `x` along one axis.
    pub fn slice(&mut self, x: &Value, along: Along) -> Value {
        let (begin, end, axis) = (self.ints(&[along.begin]), self.ints(&[along.end]), self.ints(&[along.axis]));
        self.node("Slice", &[x, &begin, &end, &axis], Vec::new())
    }

    /// Every second entry of `x` along each of `axes`, from the first.
    pub fn every_second(&mut self, x: &Value, axes: &[i64]) -> Value {
        let n_axes = axes.len();
        let (begin, end) = (self.ints(&vec![0; n_axes]), self.ints(&vec![i64::MAX; n_axes]));
        let (axes, step) = (self.ints(axes), self.ints(&vec![2; n_axes]));
        self.node("Slice", &[x, &begin, &end, &axes, &step], Vec::new())
    }

    /// `extent` entries of `x` along `axis`, from the one at `begin`; the extent is a list of one integer that the graph computes.
    pub fn window(&mut self, x: &Value, (axis, begin): (i64, i64), extent: &Value) -> Value {
        let (begin, axis) = (self.ints(&[begin]), self.ints(&[axis]));
        let end = self.add(&begin, extent);
        self.node("Slice", &[x, &begin, &end, &axis], Vec::new())
    }

    /// Extents `[begin, end)` of `x`, as a list of integers.
    pub fn shape(&mut self, x: &Value, begin: i64, end: i64) -> Value {
        self.node("Shape", &[x], vec![int("start", begin), int("end", end)])
    }

    /// `x` repeated to a shape that the graph computes.
    pub fn expand(&mut self, x: &Value, shape: &Value) -> Value {
        self.node("Expand", &[x, shape], Vec::new())
    }

    /// `x` without axes of extent one.
    pub fn squeeze(&mut self, x: &Value, axes: &[i64]) -> Value {
        let axes = self.ints(axes);
        self.node("Squeeze", &[x, &axes], Vec::new())
    }

    /// Bilinear resize of `[B, C, H, W]` to extents that the graph computes (four integers): half-pixel centres, clamped borders,
    /// no antialias.
    pub fn resize_bilinear_to(&mut self, x: &Value, sizes: &Value) -> Value {
        let absent = Value(String::new());
        self.node("Resize", &[x, &absent, &absent, sizes], bilinear())
    }

    /// Bilinear resize of `[B, C, H, W]` by constant factors a axis.
    pub fn resize_bilinear_by(&mut self, x: &Value, factors: &Value) -> Value {
        let absent = Value(String::new());
        self.node("Resize", &[x, &absent, factors], bilinear())
    }
}

/// Geometry of a convolution.
#[derive(Clone, Copy, Debug)]
pub struct ConvGeometry {
    /// Side of the kernel.
    pub kernel: i64,
    /// Step.
    pub stride: i64,
    /// Padding on each side.
    pub pad: i64,
}

fn bilinear() -> Vec<crate::onnx::proto::AttributeProto> {
    vec![string("mode", "linear"), string("coordinate_transformation_mode", "half_pixel")]
}
