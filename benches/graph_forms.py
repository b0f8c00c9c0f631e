"""Which of several exact forms of an operator is fastest in ONNX Runtime on this machine: attention, and the 2x2 transposed
convolution of LiFT. Forms take turns inside a round, so that a busy machine slows all; medians of milliseconds on one thread.

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


def session(nodes, inputs, constants, opset=23):
    graph = h.make_graph(nodes, "g", [h.make_tensor_value_info(name, T.FLOAT, shape) for name, shape in inputs],
                         [h.make_tensor_value_info("y", T.FLOAT, None)], constants)
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
sys.exit(0)
