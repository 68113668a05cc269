"""C in the cells of a notebook: the notebooks beside this file begin with it. Needs a C compiler and make, and likes gnuplot.

    %%c NAME [double] [fails]     compiles the cell with the project's flags and sources, runs it in build/notebooks and shows
                                  what it prints; NAME becomes that text. Without a `main` the cell is the body of one.
                                  `double`: the build in double. `fails`: it must end with an error, and NAME is what it said.
    run(cells["NAME"], "double")  runs a cell once more, in the other build
    table(NAME)                   its lines as dictionaries; the first line names the columns
    plot({label: [(x, y), ...]}, title, x, y, log="xy")
"""

import hashlib, math, pathlib, shutil, subprocess

from IPython import get_ipython
from IPython.core.magic import register_cell_magic
from IPython.display import display

root = pathlib.Path(__file__).resolve().parents[1]
HEAD = "".join(f'#include "{h}.h"\n' for h in ("predict", "meter", "generate", "io/evaluation", "io/model_file", "io/adapter_file"))


cells = {}  # NAME: the code of each cell that ran


def run(code, real="float", fails=False):
    """Compiles and runs C; returns what it printed, or what it said if it is to fail."""
    folder = root / "build" / "notebooks"
    folder.mkdir(parents=True, exist_ok=True)
    source = folder / f"cell-{hashlib.sha256(code.encode()).hexdigest()[:12]}.c"
    if not source.exists():
        source.write_text(code)
    program = f"build/cc-{real}/build/notebooks/{source.stem}"
    made = subprocess.run(["make", "-s", "CC=cc", f"REAL={real}", program], cwd=root, capture_output=True, text=True)
    print(made.stderr, end="")
    if made.returncode:
        raise RuntimeError("the cell does not compile")
    ran = subprocess.run([root / program], cwd=folder, capture_output=True, text=True)
    if (ran.returncode != 0) != fails:
        raise RuntimeError(f"the cell's program ended with status {ran.returncode}:\n{ran.stdout}{ran.stderr}")
    return ran.stderr if fails else ran.stdout


@register_cell_magic
def c(line, cell):
    name, *flags = line.split()
    begin, end = ("", "") if "int main(" in cell else ("int main(void) {\n", "\n}\n")
    cells[name] = HEAD + begin + '#line 2 "cell"\n' + cell + end
    text = run(cells[name], "double" if "double" in flags else "float", "fails" in flags)
    print(text, end="")
    get_ipython().user_ns[name] = text


def value(word):
    try:
        return float(word)
    except ValueError:
        return word


def table(text):
    lines = [line.split() for line in text.splitlines() if line.strip()]
    return [dict(zip(lines[0], map(value, words))) for words in lines[1:]]


def text_plot(series, title, x, y, log, width=72, height=16):
    scale = [math.log10 if axis in log else float for axis in "xy"]
    points = [(scale[0](a), scale[1](b), "*+o#x@"[i % 6]) for i, s in enumerate(series.values()) for a, b in s]
    (x0, x1), (y0, y1) = [(min(p[k] for p in points), max(p[k] for p in points)) for k in (0, 1)]
    rows = [[" "] * width for _ in range(height)]
    for a, b, mark in points:
        rows[round((y1 - b) / (y1 - y0 or 1) * (height - 1))][round((a - x0) / (x1 - x0 or 1) * (width - 1))] = mark
    ends = [f"{10 ** v if axis in log else v:.4g}" for axis, v in zip("xxyy", (x0, x1, y0, y1))]
    key = ", ".join(f"{'*+o#x@'[i % 6]} {label}" for i, label in enumerate(series))
    frame = ["|" + "".join(row).rstrip() for row in rows] + ["+" + "-" * width]
    return "\n".join([title, f"{y}: {ends[2]} to {ends[3]}", *frame, f"{x}: {ends[0]} to {ends[1]}    {key}"])


def plot(series, title="", x="", y="", log=""):
    """An SVG by gnuplot, with a text plot for those who cannot see it; without gnuplot the text plot."""
    text = text_plot(series, title, x, y, log)
    if not shutil.which("gnuplot"):
        print(text)
        return
    script = 'set terminal svg size 680,380 font "sans,12" background "white" noenhanced\nset key outside top right horizontal\n'
    script += 'set grid\nset format "%g"\n'
    script += f'set title "{title}"\nset xlabel "{x}"\nset ylabel "{y}"\n'
    script += "".join(f"set logscale {axis}\n" for axis in log)
    for i, points in enumerate(series.values()):
        script += f"$data{i} << END\n" + "".join(f"{a} {b}\n" for a, b in points) + "END\n"
    styles = ["linespoints pt 7 ps 0.4" if len(points) < 60 else "lines" for points in series.values()]
    script += "plot " + ", ".join(f'$data{i} with {styles[i]} lw 2 title "{label}"' for i, label in enumerate(series)) + "\n"
    svg = subprocess.run(["gnuplot"], input=script, capture_output=True, text=True, check=True).stdout
    display({"image/svg+xml": svg, "text/plain": text}, raw=True)
