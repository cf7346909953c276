#!/usr/bin/env python3
"""What the machine itself needs for the work of each case: the floor beside a builder's figures.

    BENCH_INPUTS=DIR BENCH_WORK=DIR floor.py [W1 W3 ...] [--reps N] [--out FILE]

The same data are walked, hashed, compressed, copied or synced by the plainest
tools that use all cores, in the same run and on the same file system, and one
JSON line a measurement is added to FILE, with the builder "machine". report.py
puts the medians beside the builders' figures. A case without a floor here has
no such plain equivalent.
"""
import argparse
import contextlib
import functools
import glob
import hashlib
import json
import os
import shlex
import subprocess
import tempfile
import time

from bench import Registry

INPUTS = os.environ["BENCH_INPUTS"]
WORK = os.environ["BENCH_WORK"]
HERE = os.path.dirname(os.path.abspath(__file__))
NCPU = os.cpu_count()
GZIP = f"pigz -p{NCPU} -6"
# Unlike sha256sum of Debian it uses the processor's instructions for it.
HASH = "openssl dgst -sha256 -r"
# Stands for the address of a registry that is started, empty, before the timing.
REGISTRY = "@registry@"
# Stands for the digest of W7's files, one after the other, which is made before the timing too.
DIGEST = "@digest@"


def walk(tree):
    return f"find {tree} -type f -size +0 | wc -l"


def floors(new):
    """By case: what is done, and the command. `new` makes a path that is not there."""
    i = INPUTS
    blob = max(glob.glob(os.path.join(os.path.dirname(i), "debian/blobs/sha256/*")),
               key=os.path.getsize, default=None)
    table = {
        "W1.noop": ("stat of each file", walk(f"{i}/W1")),
        "W1.noop-image": ("stat of each file", walk(f"{i}/W1")),
        "W1.noop-oci": ("stat of each file", walk(f"{i}/W1")),
        "W1.touched": ("hash of each file", f"tar -cf - -C {i}/W1 . | {HASH}"),
        "W2.40-runs": ("40 times: namespaces, overlay, pivot_root, exec", spawn(new, 40)),
        "W3.cold": ("hash of each file", f"tar -cf - -C {i}/W3/tree . | {HASH}"),
        "W3.noop": ("stat of each file", walk(f"{i}/W3/tree")),
        "W3.one-changed": ("stat of each file", walk(f"{i}/W3/tree")),
        "W3.cold-oci": ("tar to pigz", f"tar -cf - -C {i}/W3/tree . | {GZIP} > {new()}"),
        "W4.cold": ("hash of each file", f"ls {i}/W4/data/* | xargs -P{NCPU} -n8 {HASH}"),
        "W4.noop": ("stat of each file", walk(f"{i}/W4/data")),
        "W4.cold-oci-gzip": ("tar to pigz", f"tar -cf - -C {i}/W4/data . | {GZIP} > {new()}"),
        "W4.again-oci-gzip": ("cp of as much", f"mkdir {(d := new())} && cp $(ls {i}/W4/data/* | head -42) {d}"),
        "W4.cold-oci-zstd": ("tar to zstd", f"tar -cf - -C {i}/W4/data . | zstd -q -3 -T0 > {new()}"),
        "W5.8-sleep": ("the work itself", "sleep 1"),
        "W5.8-busy": ("the work itself", busy(f"{i}/W5/b/Dockerfile")),
        "W6.pull-unpack-run": ("gunzip, untar",
                               blob and f"mkdir {(d := new())} && tar -xzf {blob} -C {d}"),
        "W7.first-push": ("tar, hash, write; curl to a registry",
                          f"D=$(tar -cf - -C {i}/W7/data . | tee {(b := new())} | {HASH} | cut -c1-64); "
                          + upload(b, "$D")),
        "W7.push-elsewhere": ("curl to a registry", upload(f"{i}/W7/data/*", DIGEST)),
        "W8.build": ("hash of each file", f"tar -cf - -C {i}/W8/tree . | {HASH}"),
        "W8.local-20000": ("cp -a", f"cp -a {i}/W8/tree {new()}"),
    }
    return {case: what for case, what in table.items() if what[1]}


@functools.cache
def digest(files):
    hasher = hashlib.sha256()
    for path in sorted(glob.glob(files)):
        with open(path, "rb") as f:
            while piece := f.read(1 << 20):
                hasher.update(piece)
    return hasher.hexdigest()


def upload(files, digest):
    """One blob, in one request, as every builder sends it."""
    uploads = f"http://{REGISTRY}/v2/floor/blobs/uploads/"
    return (f"L=$(curl -sSi -X POST {uploads} | tr -d '\\r' | sed -n 's/^[Ll]ocation: //p'); "
            f"cat {files} | curl -sSf -T - -H 'Content-Type: application/octet-stream' \"$L&digest=sha256:{digest}\"")


def busy(dockerfile):
    """Its RUN steps, without containers, as many at a time as there are cores."""
    if not os.path.exists(dockerfile):
        return None
    with open(dockerfile) as f:
        steps = [line[4:].strip().replace("/out", "/dev/null") for line in f if line.startswith("RUN ")]
    scripts = " ".join(shlex.quote(step) for step in steps)
    return f"printf '%s\\0' {scripts} | xargs -0 -P{NCPU} -n1 busybox sh -c"


def spawn(new, count):
    """spawn.c, where it can be compiled and root runs it."""
    if os.getuid() != 0 or subprocess.run(["sh", "-c", "command -v gcc"], capture_output=True).returncode:
        return None
    d = new()
    return (f"mkdir -p {d}/root/bin {d}/root/proc && cp /bin/busybox {d}/root/bin/busybox && "
            f"ln {d}/root/bin/busybox {d}/root/bin/true && {WORK}/spawn {d}/root {count} 4")


def main():
    p = argparse.ArgumentParser()
    p.add_argument("workloads", nargs="*")
    p.add_argument("--reps", type=int, default=3)
    p.add_argument("--out", default=os.path.join(WORK, "results.jsonl"))
    a = p.parse_args()
    folder = tempfile.mkdtemp(prefix="floor.", dir=WORK)
    serial = iter(range(1 << 30))

    def new():
        return f"{folder}/{next(serial)}"

    if spawn(new, 1):
        subprocess.run(["gcc", "-O2", "-o", f"{WORK}/spawn", f"{HERE}/spawn.c"], check=True)
    for case in floors(new):
        name = case.split(".")[0]
        if a.workloads and not {name, case} & set(a.workloads):
            continue
        if not os.path.isdir(os.path.join(INPUTS, name)):
            continue
        for _ in range(a.reps):
            # New paths each time: nothing is removed before a timing.
            what, command = floors(new)[case]
            with Registry() if REGISTRY in command else contextlib.nullcontext() as registry:
                command = command.replace(REGISTRY, str(registry))
                if DIGEST in command:
                    command = command.replace(DIGEST, digest(f"{INPUTS}/W7/data/*"))
                os.sync()
                start = time.perf_counter()
                subprocess.run(["bash", "-ec", command], check=True, stdout=subprocess.DEVNULL)
                wall = time.perf_counter() - start
            with open(a.out, "a") as f:
                f.write(json.dumps({"builder": "machine", "case": case, "rc": 0,
                                    "wall": round(wall, 4), "floor": what}) + "\n")


if __name__ == "__main__":
    main()
