"""Which of several exact forms of an operator is fastest in ONNX Runtime on this machine: attention, the 2x2 transposed convolution
of LiFT, and masks and scores of segmentation heads. Forms take turns inside a round, so that a busy machine slows all; medians of milliseconds on one thread.

    python -m venv /tmp/venv && /tmp/venv/bin/pip install onnx==1.23.2 onnxruntime==1.31.1 numpy==2.4.6
    /tmp/venv/bin/python benches/graph_forms.py
"""

import statistics
import sys
import time

import numpy as np
import onnx
import onnxruntime as ort
from onnx import TensorProto as T
from onnx import helper as h
from onnx import numpy_helper

D, HEADS, HEAD = 384, 6, 64
RNG = np.random.default_rng(0)


def const(name, values, dtype):
    return numpy_helper.from_array(np.asarray(values, dtype), name)


def session(nodes, inputs, constants, opset=23, outputs=("y",)):
    graph = h.make_graph(nodes, "g", [h.make_tensor_value_info(name, T.FLOAT, shape) for name, shape in inputs],
                         [h.make_tensor_value_info(name, T.FLOAT, None) for name in outputs], constants)
    model = h.make_model(graph, opset_imports=[h.make_opsetid("", opset), h.make_opsetid("com.microsoft", 1)], ir_version=10)
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    return ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


def projections():
    """x -> q, k, v with weights of their own, as the backbone computes them."""
    nodes, constants = [], []
    for name in "qkv":
        constants += [const(f"w{name}", RNG.standard_normal((D, D)) / 20, np.float32), const(f"b{name}", RNG.standard_normal(D), np.float32)]
        nodes += [h.make_node("MatMul", ["x", f"w{name}"], [f"{name}0"]), h.make_node("Add", [f"{name}0", f"b{name}"], [name])]
    return nodes, constants


def attention_forms(tokens):
    nodes, constants = projections()
    inputs = [("x", [1, tokens, D])]
    split = const("split", [0, 0, HEADS, HEAD], np.int64)
    merge = const("merge", [0, 0, D], np.int64)
    heads = [node for name in "qkv" for node in (
        h.make_node("Reshape", [name, "split"], [f"{name}s"]),
        h.make_node("Transpose", [f"{name}s"], [f"{name}h"], perm=[0, 2, 3, 1] if name == "k" else [0, 2, 1, 3]))]
    plain = heads + [
        h.make_node("MatMul", ["qh", "kh"], ["s"]), h.make_node("Mul", ["s", "scale"], ["sc"]), h.make_node("Softmax", ["sc"], ["p"], axis=-1),
        h.make_node("MatMul", ["p", "vh"], ["o"]), h.make_node("Transpose", ["o"], ["ot"], perm=[0, 2, 1, 3]), h.make_node("Reshape", ["ot", "merge"], ["y"])]
    weights = {name: next(numpy_helper.to_array(c) for c in constants if c.name == name) for name in ("wq", "wk", "wv", "bq", "bk", "bv")}
    packed = [const("w", np.concatenate([weights["wq"], weights["wk"], weights["wv"]], 1), np.float32),
              const("b", np.concatenate([weights["bq"], weights["bk"], weights["bv"]]), np.float32)]
    return {
        "MatMul-Softmax-MatMul": session(nodes + plain, inputs, constants + [split, merge, const("scale", HEAD ** -0.5, np.float32)]),
        "com.microsoft MultiHeadAttention": session(nodes + [h.make_node("MultiHeadAttention", ["q", "k", "v"], ["y"], domain="com.microsoft", num_heads=HEADS)], inputs, constants),
        "com.microsoft Attention (packed)": session([h.make_node("Attention", ["x", "w", "b"], ["y"], domain="com.microsoft", num_heads=HEADS)], inputs, packed),
        "ONNX Attention": session(nodes + [h.make_node("Attention", ["q", "k", "v"], ["y"], q_num_heads=HEADS, kv_num_heads=HEADS)], inputs, constants),
    }, {"x": RNG.standard_normal((1, tokens, D)).astype(np.float32)}


def upsampling_forms(side):
    """From the joined map with channels last, as features come, to channels first, as the convolutions after it want it."""
    n_in, n_out = D + 32, (D + 32) // 2
    inputs = [("x", [1, "h", "w", n_in])]
    weight, bias = RNG.standard_normal((n_in, n_out, 2, 2)).astype(np.float32) / 40, RNG.standard_normal(n_out).astype(np.float32)
    depth = weight.transpose(2, 3, 1, 0).reshape(4 * n_out, n_in, 1, 1)
    first = h.make_node("Transpose", ["x"], ["t"], perm=[0, 3, 1, 2])
    matmul = weight.transpose(0, 2, 3, 1).reshape(n_in, 4 * n_out)
    split = [const("split", [1, side, side, 2, 2, n_out], np.int64), const("merge", [1, n_out, 2 * side, 2 * side], np.int64)]
    return {
        "Transpose, ConvTranspose": session([first, h.make_node("ConvTranspose", ["t", "w", "b"], ["y"], kernel_shape=[2, 2], strides=[2, 2])],
                                            inputs, [const("w", weight, np.float32), const("b", bias, np.float32)]),
        "Transpose, 1x1 Conv, DepthToSpace": session([first, h.make_node("Conv", ["t", "w", "b"], ["c"], kernel_shape=[1, 1]), h.make_node("DepthToSpace", ["c"], ["y"], blocksize=2, mode="DCR")],
                                                     inputs, [const("w", depth, np.float32), const("b", np.tile(bias, 4), np.float32)]),
        "MatMul, Reshape, Transpose": session([h.make_node("MatMul", ["x", "w"], ["m"]), h.make_node("Add", ["m", "b"], ["a"]), h.make_node("Reshape", ["a", "split"], ["s"]),
                                               h.make_node("Transpose", ["s"], ["t"], perm=[0, 5, 1, 3, 2, 4]), h.make_node("Reshape", ["t", "merge"], ["y"])],
                                              inputs, [const("w", matmul, np.float32), const("b", np.tile(bias, 4), np.float32), *split]),
    }, {"x": RNG.standard_normal((1, side, side, n_in)).astype(np.float32)}


def mask_forms(n_queries, n_cells, width, heads):
    """Cross-attention that also leaves its scaled scores, the mean over the heads, as masks `m`."""
    inputs = [("q", [1, n_queries, width]), ("k", [1, n_cells, width]), ("v", [1, n_cells, width])]
    scale = (width // heads) ** -0.5
    fused = [h.make_node("MultiHeadAttention", ["q", "k", "v"], ["y"], domain="com.microsoft", num_heads=heads),
             h.make_node("Mul", ["q", "mean"], ["qm"]), h.make_node("Transpose", ["k"], ["kt"], perm=[0, 2, 1]), h.make_node("MatMul", ["qm", "kt"], ["m"])]
    split = [node for name in "qkv" for node in (
        h.make_node("Reshape", [name, "split"], [f"{name}s"]),
        h.make_node("Transpose", [f"{name}s"], [f"{name}h"], perm=[0, 2, 3, 1] if name == "k" else [0, 2, 1, 3]))]
    plain = split + [
        h.make_node("MatMul", ["qh", "kh"], ["s"]), h.make_node("Mul", ["s", "scale"], ["a"]), h.make_node("ReduceMean", ["a", "axes"], ["m"], keepdims=0),
        h.make_node("Softmax", ["a"], ["p"], axis=-1), h.make_node("MatMul", ["p", "vh"], ["o"]),
        h.make_node("Transpose", ["o"], ["ot"], perm=[0, 2, 1, 3]), h.make_node("Reshape", ["ot", "merge"], ["y"])]
    shapes = [const("split", [0, 0, heads, width // heads], np.int64), const("merge", [0, 0, width], np.int64), const("axes", [1], np.int64)]
    return {
        "MultiHeadAttention, one product": session(fused, inputs, [const("mean", scale / heads, np.float32)], outputs=("m", "y")),
        "products, scores read twice": session(plain, inputs, shapes + [const("scale", scale, np.float32)], outputs=("m", "y")),
    }, {name: RNG.standard_normal(shape).astype(np.float32) for name, shape in inputs}


def score_forms(n_classes, side, upscale):
    """Masks and class shares to scores with channels last: resize, sigmoid, sum over the queries."""
    inputs = [("m", [1, n_classes, side, side]), ("s", [1, n_classes, n_classes])]
    linear = dict(mode="linear", coordinate_transformation_mode="half_pixel")
    resized = [h.make_node("Resize", ["m", "", "first"], ["up"], **linear), h.make_node("Sigmoid", ["up"], ["c"]), h.make_node("Reshape", ["c", "flat"], ["f"])]
    last = [h.make_node("Transpose", ["m"], ["ml"], perm=[0, 2, 3, 1]), h.make_node("Resize", ["ml", "", "last"], ["up"], **linear),
            h.make_node("Sigmoid", ["up"], ["c"]), h.make_node("Reshape", ["c", "rows"], ["f"]), h.make_node("MatMul", ["f", "s"], ["p"]), h.make_node("Reshape", ["p", "map"], ["y"])]
    before = resized + [h.make_node("Transpose", ["f"], ["t"], perm=[0, 2, 1]), h.make_node("MatMul", ["t", "s"], ["p"]), h.make_node("Reshape", ["p", "map"], ["y"])]
    after = resized + [h.make_node("Transpose", ["s"], ["st"], perm=[0, 2, 1]), h.make_node("MatMul", ["st", "f"], ["p"]),
                       h.make_node("Transpose", ["p"], ["t"], perm=[0, 2, 1]), h.make_node("Reshape", ["t", "map"], ["y"])]
    constants = [const("first", [1, 1, upscale, upscale], np.float32), const("last", [1, upscale, upscale, 1], np.float32), const("flat", [0, 0, -1], np.int64),
                 const("rows", [0, -1, n_classes], np.int64), const("map", [0, upscale * side, upscale * side, n_classes], np.int64)]
    feed = {"m": 3 * RNG.standard_normal(inputs[0][1]).astype(np.float32), "s": RNG.random(inputs[1][1]).astype(np.float32)}
    return {
        "transposed after the sum": session(after, inputs, constants),
        "transposed before the sum": session(before, inputs, constants),
        "channels last throughout": session(last, inputs, constants),
    }, feed


def compare(title, forms, feed, rounds=30):
    results = {name: form.run(None, feed)[0] for name, form in forms.items()}
    first = next(iter(results.values()))
    times = {name: [] for name in forms}
    for _ in range(rounds):
        for name, form in forms.items():
            began = time.perf_counter()
            form.run(None, feed)
            times[name].append(1e3 * (time.perf_counter() - began))
    fastest = min(statistics.median(values) for values in times.values())
    print(title)
    for name, values in times.items():
        median = statistics.median(values)
        print(f"  {name:<34} {median:8.2f} ms  {median / fastest:5.2f}x  largest difference {np.abs(results[name] - first).max():.1e}")


print(f"onnxruntime {ort.__version__}, onnx {onnx.__version__}, one thread")
for tokens in (257, 1025):
    compare(f"attention with its projections, {tokens} tokens, D = {D}", *attention_forms(tokens))
for side in (16, 32):
    compare(f"2x2 transposed convolution, {D + 32} -> {(D + 32) // 2}, {side} x {side}", *upsampling_forms(side))
for n_queries, n_cells, width, heads in ((11, 768, 192, 6), (150, 1600, 512, 16)):
    compare(f"cross-attention with masks, {n_queries} queries, {n_cells} cells, D = {width}", *mask_forms(n_queries, n_cells, width, heads))
for n_classes in (11, 150):
    compare(f"scores, {n_classes} classes, 32 x 32 to 128 x 128", *score_forms(n_classes, 32, 4))
sys.exit(0)
