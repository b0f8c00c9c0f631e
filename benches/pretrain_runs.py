"""What pre-training brings: DINO, SelfPatch on it, and both with four registers, with equal budgets, data and seeds, judged beside the weights
that all begin with. Prints the table of README ("Pre-train a backbone").

Learns from the photos, the training frames of CamVid, and composed scenes; every setting is the preset's. A run that was interrupted goes on when
the command is given again, and what is done is not done again. Judges, all on the backbones as they are served:

- k-NN: 20 neighbours on the mean of the patches, 224 px, ten classes of composed pictures (600 to learn from, 400 to tell)
- linear: mIoU of a linear probe on CamVid, 240 x 320 px, 10 epochs, two probes
- CorLoc: LOST and TokenCut on the keys of the last block, 100 composed scenes, 224 px
- outliers: share of patches after the last block, 60 photos, by the rule of `train inspect tokens`

Cut-outs that are judged on were never learned from; photos behind them may have been.

    make setup-train stamps && cargo build --release -p train
    python benches/pretrain_runs.py --photos photos/ --camvid camvid/ --out runs/compared [--jobs 2] [--preset gpu --device cuda]
"""

import argparse
import json
import os
import statistics
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
STAMPS = ROOT / "third_party" / "stamps"
TRAINER = ROOT / "target" / "release" / "train"
LICENSE = "Apache-2.0"
KINDS = {
    "as it began": ["--no-selfpatch", "--steps", "1", "--learning-rate", "1e-12", "--min-learning-rate", "0"],
    "DINO": ["--no-selfpatch"],
    "DINO + SelfPatch": [],
    "DINO + SelfPatch + 4 registers": ["--registers", "4"],
}


def main():
    global TRAINER
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", type=place, required=True, help="folder of photos")
    parser.add_argument("--camvid", type=place, required=True, help="CamVid: images/ and annotations/ with train/ and val/")
    parser.add_argument("--out", type=place, required=True)
    parser.add_argument("--stamps", type=place, default=STAMPS)
    parser.add_argument("--trainer", type=place, default=TRAINER)
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--jobs", type=int, default=2, help="runs beside each other, a thread each")
    parser.add_argument("--preset", default="cpu")
    parser.add_argument("--device", default="cpu")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    TRAINER = args.trainer
    compose(args)
    # Every kind once before the next seed; with registers first, it takes longest.
    runs = [Run(args, kind, seed) for seed in range(args.seeds) for kind in reversed(KINDS)]
    with ThreadPoolExecutor(args.jobs) as pool:
        scores = list(pool.map(Run.score, runs))
    report({(run.kind, run.seed): score for run, score in zip(runs, scores)}, args.seeds)


def place(path):
    """A path that holds from every folder: the trainer runs in the checkout."""
    return Path(path).resolve()


def train(*arguments):
    """Runs the trainer; its time on the processor in seconds."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "LD_LIBRARY_PATH": str(ROOT / "third_party" / "libtorch" / "lib")}
    command = [str(TRAINER), *map(str, arguments)]
    process = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    return process.returncode, usage.ru_utime + usage.ru_stime


def succeed(*arguments):
    status, _ = train(*arguments)
    if status != 0:
        raise SystemExit(f"train {arguments[0]} {arguments[1]} failed")


def compose(args):
    """Scenes to learn from, and others to judge on; whole folders or none."""
    stock = ["--photos", args.photos, "--cut-outs", *(args.stamps / name for name in ("animals", "food", "plants", "vehicles"))]
    for name, arguments in {
        "scenes": ["voc", "--train", 600, "--seed", 1],
        "boxes": ["voc", "--test", 100],
        "classes": ["folders", "--train", 600, "--test", 400, "--size", "256,256"],
    }.items():
        folder = args.out / name
        if not (folder / "sheet.png").exists():
            print(f"composing {folder}", flush=True)
            succeed("compose", *arguments, "--out", folder, *stock)


class Run:
    def __init__(self, args, kind, seed):
        self.args, self.kind, self.seed = args, kind, seed
        self.name = f"{kind.replace(' + ', '-').replace(' ', '-').lower()}-s{seed}"
        self.folder = args.out / self.name
        self.models = args.out / "models"

    def score(self):
        self.train()
        return self.judge()

    def train(self):
        model = self.models / self.name / "1"
        if model.exists():
            return
        self.folder.mkdir(exist_ok=True)
        print(f"training {self.name}", flush=True)
        args = self.args
        images = [args.photos, args.camvid / "images" / "train", args.out / "scenes" / "JPEGImages"]
        options = ["--preset", args.preset, "--device", args.device, "--half", "--seed", self.seed, *KINDS[self.kind]]
        resume = ["--resume"] if (self.folder / "checkpoint.safetensors").exists() else []
        status, seconds = train(
            "pretrain", "--images", *images, "--out", self.folder, "--name", self.name, "--license", LICENSE, *options, *resume,
            "--install", "--models", self.models,
        )
        with open(self.folder / "seconds.txt", "a") as file:
            file.write(f"{seconds:.0f}\n")
        if status != 0:
            raise SystemExit(f"training {self.name} failed or was interrupted; the same command goes on from its last checkpoint")

    def judge(self):
        model, args = self.models / self.name / "1", self.args

        def judged(name, *arguments):
            file = self.folder / f"{name}.json"
            if not file.exists():
                print(f"judging {self.name}: {name}", flush=True)
                succeed(*arguments, "--model", model, "--json", file)
            return json.loads(file.read_text())

        classes = args.out / "classes"
        knn = judged("knn", "eval", "classify", "--train", classes / "train", "--test", classes / "test", "--vector", "mean", "--neighbours", 20)
        linear = judged("linear", "eval", "camvid", "--data", args.camvid, "--rows", 15, "--cols", 20, "--epochs", 10)
        boxes = args.out / "boxes"
        corloc = judged(
            "corloc", "eval", "corloc", "--data", boxes, "--split", "test", "--sizes", 224, "--facet", "key", "--passes", 1, "--no-head",
            "--finders", "lost,tokencut",
        )
        weights = self.folder / "backbone.safetensors"
        tokens = judged("tokens", "inspect", "tokens", "--weights", weights, "--images", args.photos, "--limit", 60, "--size", 224)
        outliers = tokens["blocks"][-1]["outliers"]
        return {
            "knn": 100 * dict(knn["knn"])[20],
            "linear": 100 * statistics.mean(linear[0]["miou"]),
            # Of each finder the first row, the map as it is.
            "lost": 100 * next(row["corloc"] for row in corloc if row["finder"].startswith("LOST")),
            "tokencut": 100 * next(row["corloc"] for row in corloc if row["finder"].startswith("TokenCut")),
            "outliers": 100 * outliers["share"] if outliers else 0.0,
            "minutes": sum(map(float, (self.folder / "seconds.txt").read_text().split())) / 60,
        }


def report(scores, seeds):
    columns = ["knn", "linear", "lost", "tokencut", "outliers", "minutes"]
    print("| | k-NN | linear mIoU | CorLoc, LOST | CorLoc, TokenCut | outliers % | minutes of a core |")
    print("|---|---|---|---|---|---|---|")
    for kind in KINDS:
        cells = []
        for column in columns:
            values = [scores[kind, seed][column] for seed in range(seeds)]
            each = ", ".join(f"{value:.1f}" for value in values)
            cells.append(f"{statistics.mean(values):.1f} ({each})" if column != "minutes" else f"{statistics.mean(values):.0f}")
        print(f"| {kind} | " + " | ".join(cells) + " |")


if __name__ == "__main__":
    main()
