"""C in the cells of a notebook: the notebooks beside this file begin with it. Needs a C compiler and make, and likes gnuplot.

    %%c NAME [FLAG...]            compiles the cell with the project's flags and sources, runs it in build/notebooks and shows
                                  what it prints; NAME becomes that text. Without a `main` the cell is the body of one. Flags:
                                  `part`: functions for other cells, not run. `after=NAME`: this part goes before the cell.
                                  `double`: the build in double. `fails`: it must end with an error, and NAME is what it said.
                                  `table`: shows lines of as many words as the first one in columns.
    run(cells["NAME"], "double")  runs a cell once more, in the other build
    table(NAME)                   its lines as dictionaries; the first line names the columns
    save("x", x), in C            leaves a tensor's numbers and gradient for Python; saved("x") is (shape, numbers, gradient), each
                                  None if it was not there. What an earlier cell saved is gone.
    plot({label: [(x, y), ...]}, alt, title, x, y, log="xy")   `alt`: the picture in words, for those who cannot see it

Jupyter colours a notebook in one language, here Python, and so takes C for that. In a page that `jupyter nbconvert --to html`
makes, C is coloured as C: execute.py marks the cells.
"""

import csv, hashlib, html, math, pathlib, re, shutil, subprocess

from IPython import get_ipython
from IPython.core.magic import register_cell_magic
from IPython.display import display

root = pathlib.Path(__file__).resolve().parents[1]
folder = root / "build" / "notebooks"
HEAD = "#include <stdlib.h>\n" + "".join(f'#include "{h}.h"\n' for h in ("predict", "meter", "generate", "io/evaluation", "io/model_file", "io/adapter_file"))
HEAD += r"""
static inline void save_numbers(FILE *file, const real *numbers, int64_t count)
{
    for (int64_t i = 0; i < count && numbers != NULL; i++) fprintf(file, "%.17g ", (double)numbers[i]);
    fprintf(file, numbers == NULL ? "NULL\n" : "\n");
}
static inline void save(const char *name, const Tensor *t)
{
    char path[256];
    snprintf(path, sizeof path, "%s.numbers", name);
    FILE *file = fopen(path, "w");
    check(file != NULL, "cannot write %s", path);
    for (int d = 0; d < t->ndim; d++) fprintf(file, "%d ", t->shape[d]);
    fprintf(file, "\n");
    real *numbers = t->codes ? allocate((size_t)t->size, sizeof *numbers, "numbers of codes") : NULL;
    if (t->codes) unpack(t->codes, 0, t->size, numbers, 1);
    save_numbers(file, numbers ? numbers : t->data, t->size);
    free(numbers);
    save_numbers(file, t->grad_empty ? NULL : t->grad, t->size);
    fclose(file);
}
"""


cells = {}  # NAME: the code of each cell that ran
parts = {}  # NAME: the code of each part


def run(code, real="float", fails=False):
    """Compiles and runs C; returns what it printed, or what it said if it is to fail."""
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.glob("*.numbers"):
        old.unlink()
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
    before = [parts[flag.split("=")[1]] for flag in flags if flag.startswith("after=")]
    if "part" in flags:
        parts[name] = "".join(before) + f'#line 2 "{name}"\n{cell}'
        return
    begin, end = ("", "") if "int main(" in cell else ("int main(void) {\n", "\n}\n")
    cells[name] = HEAD + "".join(before) + begin + f'#line 2 "{name}"\n' + cell + end
    text = run(cells[name], "double" if "double" in flags else "float", "fails" in flags)
    print(aligned(text) if "table" in flags else text, end="")
    get_ipython().user_ns[name] = text


def aligned(text):
    """Lines with as many words as the first one, in columns: words to the left, what is all numbers below its head to the right."""
    rows = [line.split() for line in text.splitlines()]
    rows = [row if len(row) == len(rows[0]) else None for row in rows]
    columns = list(zip(*filter(None, rows)))
    numbers = [all(isinstance(value(word), float) or word == "-" for word in column[1:]) for column in columns]
    places = [("{:>%d}" if right else "{:<%d}") % max(map(len, column)) for right, column in zip(numbers, columns)]
    return "".join(("  ".join(places).format(*row).rstrip() if row else line) + "\n" for row, line in zip(rows, text.splitlines()))


def saved(name):
    """What C's save(name, tensor) left: its shape, its numbers, its gradient."""
    shape, *lines = (folder / f"{name}.numbers").read_text().splitlines()
    return [int(n) for n in shape.split()], *(None if line == "NULL" else [float(n) for n in line.split()] for line in lines)


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


def looks(labels):
    """(name, colour) of each curve. Kinds of bytes have those of the whole project (web/kinds.csv); others: cold, warm, the rest."""
    path = root / "web" / "kinds.csv"
    kinds = {row["kind"]: (row["name"], row["light"]) for row in csv.DictReader(path.open())} if path.exists() else {}
    others = ["#4f86b3", "#c2500f", "#12806a", "#6a4c93"]
    return [kinds.get(label, (label, others[i % len(others)])) for i, label in enumerate(labels)]


def plot(series, alt, title="", x="", y="", log=""):
    """An SVG by gnuplot, which says `alt` to those who cannot see it; and as text. Without gnuplot the text plot."""
    text = f"{text_plot(series, title, x, y, log)}\n{alt}"
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
    script += "plot " + ", ".join(f'$data{i} with {styles[i]} lw 2 lc rgb "{colour}" title "{name}"'
                                  for i, (name, colour) in enumerate(looks(series))) + "\n"
    svg = subprocess.run(["gnuplot"], input=script, capture_output=True, text=True, check=True).stdout
    svg = svg.replace("<svg", f'<svg role="img" aria-label="{html.escape(alt)}"', 1)
    svg = re.sub("<title>.*?</title>", lambda m: f"<title>{html.escape(title)}</title>", svg, count=1, flags=re.S)
    svg = re.sub("<desc>.*?</desc>", lambda m: f"<desc>{html.escape(alt)}</desc>", svg, count=1, flags=re.S)
    display({"image/svg+xml": svg, "text/plain": text}, raw=True)
