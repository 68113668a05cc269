"""Executes notebooks with nbclient and compares what they print with what is committed: the same cells, and the same words;
numbers may differ, but for whole ones of five digits or more (bytes and counts), and so may plots, and cells that say
`// varies` or `# varies`. No path of this machine may stand in an output, and the last cell must hold an assertion.

    python notebooks/execute.py [NOTEBOOK...]            checks these, or all: exit 1 at the first that does not hold
    python notebooks/execute.py --write [NOTEBOOK...]    writes the outputs into the notebooks, and marks their cells of C as C
"""

import pathlib, re, sys, tempfile

import nbclient, nbformat

root = pathlib.Path(__file__).resolve().parents[1]


def words(output):
    """What must not change in a printed text."""
    number = r"[-+]?(\d[\d,]*\.?\d*(e[-+]?\d+)?|nan|inf)"
    fixed = lambda m: m[0] if re.fullmatch(r"\d{5,}", m[0]) else "0"
    return re.sub(number, fixed, output.get("text", "")).split()


def fail(path, why):
    sys.exit(f"{path.name}: {why}")


def main(arguments):
    write = arguments[:1] == ["--write"]
    for path in map(pathlib.Path, arguments[write:] or sorted((root / "notebooks").glob("*.ipynb"))):
        committed = nbformat.read(path, 4)
        ran = nbformat.read(path, 4)
        place = {"metadata": {"path": str(path.resolve().parent)}}
        nbclient.NotebookClient(ran, timeout=900, kernel_name="python3", coalesce_streams=True, resources=place).execute()
        for cell in ran.cells:
            cell.metadata = {"magics_language": "c"} if cell.source.startswith("%%c ") else {}
        kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
        ran.metadata = {"kernelspec": kernel, "language_info": {"name": "python", "pygments_lexer": "ipython3"}}
        text = nbformat.writes(ran)
        for place in (str(root), str(pathlib.Path.home()) + "/", tempfile.gettempdir() + "/", "/home/", "site-packages"):
            if place in text:
                fail(path, f"an output names a place of this machine: {place}")
        code = [cell for cell in ran.cells if cell.cell_type == "code"]
        if "assert " not in code[-1].source:
            fail(path, "its last cell asserts nothing")
        if write:
            path.write_text(text + "\n")
            continue
        for old, new in zip((cell for cell in committed.cells if cell.cell_type == "code"), code):
            if "// varies" in new.source or "# varies" in new.source or "plot(" in new.source:
                same = bool(old.outputs) == bool(new.outputs)
            else:
                same = [words(o) for o in old.outputs] == [words(o) for o in new.outputs]
            if not same:
                fail(path, f"a cell prints other words than those committed (--write?):\n{new.source}\n{new.outputs}")
        print(f"{path.name}: {len(code)} cells")


main(sys.argv[1:])
