"""What gnuplot draws for `make plots`: every plots/*.gp runs without a word, for SVG and for PNG, and its SVG is XML with its
title, its axes' labels and as many curves as it is there for. Needs gnuplot, and the CSV files that `make plots` leaves.

    python3 tests/test_plots.py [DIR]     DIR: the CSV files (default: out/plots)"""

import glob
import os
import shutil
import subprocess
import sys
import tempfile
import xml.etree.ElementTree as xml

# Of each plot: how many curves with something drawn in them, and words that stand in it.
PLOTS = {
    "timeline": (3 * 8, ["Bytes over one training step", "full: all weights train", "LoRA on c_attn", "LoRA, blocks recomputed",
                         "MB", "changes of the ledger", "forward", "backward", "kept activations"]),
    "bytes": (6, ["measured (bars) and predicted by arithmetic", "MB", "full training", "LoRA on c_attn, r = 8", "weights",
                  "moments"]),
    "context": (5 * 2, ["What LoRA saves, and the activations that it keeps", "context, tokens", "MB", "GB", "TB",
                        "gpt3-175b, one window"]),
    "flow": (3 * 9 - 4, ["Where gradients flow", "full training", "LoRA on every c_attn", "forward", "skipped", "head (wte)",
                         "dA, dB"]),
    "learning": (3 + 7, ["the base reads tales", "learns the pirate's way", "nats a character", "step", "LoRA c_attn",
                         "LoRA all 4", "floor"]),
    "loss": (5, ["training loss, nats a character", "step", "pretraining", "full", "c_attn", "c_attn_codes", "all"]),
    "grid": (2, ["Validation loss after 60 steps", "rank r", "scale s = alpha / r", "nats a character"]),
}
DRAWN = {"path", "polygon", "use", "text", "image"}

passed = failed = 0


def expect(condition, message):
    global passed, failed
    passed += bool(condition)
    failed += not condition
    if not condition:
        print("FAIL", message)


def kind_of(element):
    return element.tag.rsplit("}", 1)[-1]


def check(name, directory):
    curves, words = PLOTS[name]
    for kind in "svg", "png":
        out = os.path.join(directory, f"{name}.{kind}")
        run = subprocess.run(["gnuplot", "-e", f"dir='{directory}'; name='{name}'; kind='{kind}'", f"plots/{name}.gp"],
                             capture_output=True, text=True)
        said = (run.stdout + run.stderr).strip()
        expect(run.returncode == 0 and said == "", f"{name}.gp, {kind}: exit status {run.returncode}: {said}")
        expect(os.path.exists(out) and os.path.getsize(out) > 2000, f"{name}.{kind} is not there, or nearly empty")
    try:
        root = xml.parse(os.path.join(directory, name + ".svg")).getroot()
    except (OSError, xml.ParseError) as error:
        return expect(False, f"{name}.svg is not XML: {error}")
    texts = [" ".join("".join(e.itertext()).split()) for e in root.iter() if kind_of(e) == "text"]
    for word in words:
        expect(any(word in text for text in texts), f"{name}.svg does not say: {word}")
    drawn = sum(e.get("id", "").startswith("gnuplot_plot_") and any(kind_of(i) in DRAWN for i in e.iter()) for e in root.iter())
    expect(drawn >= curves, f"{name}.svg has {drawn} curves, {curves} expected")


if shutil.which("gnuplot") is None:
    sys.exit("test_plots.py: no gnuplot here, so its drawing is not tested (install gnuplot-nox)")
csv = sorted(glob.glob(os.path.join(sys.argv[1] if len(sys.argv) > 1 else "out/plots", "*.csv")))
if not csv:
    sys.exit("test_plots.py: no CSV files to draw; run `make plots` first")
scripts = {os.path.basename(path)[:-3] for path in glob.glob("plots/*.gp")} - {"style"}
expect(scripts == set(PLOTS), f"plots/*.gp are {sorted(scripts)}, the test knows {sorted(PLOTS)}")
with tempfile.TemporaryDirectory() as work: # what `make plots` drew stays as it is
    for path in csv:
        shutil.copy(path, work)
    with open(os.path.join(work, "loss.csv"), "w") as file: # the demo's, not one of `make plots`
        file.write("run,step,loss,ms\n")
        file.writelines(f"{run},{step},{3 / (1 + step)},1\n" for run in ("pretraining", "full", "c_attn", "c_attn_codes", "all") for step in range(9))
    for plot in sorted(scripts & set(PLOTS)):
        check(plot, work)
print(f"{passed} passed, {failed} failed")
sys.exit(failed > 0)
