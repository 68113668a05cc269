# meltwater.py - lets gdb print tensors and nodes in words. Loaded by meltwater.gdb where gdb has Python.
#
# It reads the program's memory and calls nothing in it, so it works on a core file too. `p/r *t` shows the bare fields.

import array
import math

import gdb


def norm(pointer, count):
    """sqrt(sum of squares) of `count` floats or doubles."""
    size = pointer.type.target().sizeof
    numbers = array.array({4: "f", 8: "d"}[size], bytes(gdb.selected_inferior().read_memory(int(pointer), count * size)))
    return math.sqrt(math.fsum(x * x for x in numbers))


def shape(t):
    """[2,3,5]; raises ValueError if this is no tensor: a variable that was not set yet."""
    ndim, size = int(t["ndim"]), int(t["size"])
    numbers = [int(t["shape"][d]) for d in range(ndim)] if 1 <= ndim <= 4 else []
    if not numbers or size != math.prod(numbers) or size < 1:
        raise ValueError
    return "[" + ",".join(map(str, numbers)) + "]"


def label(t):
    return t["name"].string(errors="replace") + " " + shape(t)


def tensor_text(t):
    text = label(t) + (" requires_grad" if t["requires_grad"] else " frozen")
    if t["codes"]:
        text += ", in %s codes" % str(t["codes"]["type"]).removeprefix("BASE_").lower()
    else:
        text += ", |data| = %.4g" % norm(t["data"], int(t["size"])) if t["data"] else ", its data is gone"
    if t["grad"] and not t["grad_empty"]:
        return text + ", |grad| = %.4g" % norm(t["grad"], int(t["size"]))
    return text + (", grad: empty, for a product to fill" if t["grad"] else ", grad: not computed")


def node_text(n):
    op = n["op"]["name"].string()
    inputs = [label(t) + ("" if t["requires_grad"] else " frozen") for t in (n["in"][i] for i in range(3)) if t]
    return "%s(%s)" % (op, ", ".join(inputs)) + (" -> " + label(n["out"]) if n["out"] else "")


class Words:
    def __init__(self, value, text):
        self.value, self.text = value, text

    def to_string(self):
        pointer = self.value.type.strip_typedefs().code == gdb.TYPE_CODE_PTR
        head = "%#x " % int(self.value) if pointer else ""
        try:
            return head + self.text(self.value.dereference() if pointer else self.value)
        except (ValueError, gdb.error):
            return head + "(not set yet)" if not pointer or int(self.value) else "NULL"


def words(value):
    """gdb asks this about every value that it shows."""
    kind = value.type.strip_typedefs()
    if kind.code == gdb.TYPE_CODE_PTR:
        kind = kind.target().strip_typedefs()
    text = {"Tensor": tensor_text, "Node": node_text}.get(kind.tag)
    return Words(value, text) if text else None


class Find(gdb.Command):
    """Used by meltwater.gdb's commands: sets a variable of gdb's, here without a call of the program's own functions."""

    def __init__(self, variable, function):
        super().__init__("find-" + variable, gdb.COMMAND_DATA)
        self.variable, self.function = variable, function

    def invoke(self, argument, from_tty):
        values = [gdb.parse_and_eval(word) for word in argument.split()]
        gdb.set_convenience_variable(self.variable, self.function(*values))


gdb.pretty_printers.append(words)
Find("norm", lambda pointer, count: norm(pointer, int(count)))
Find("shape", lambda tensor: shape(tensor.dereference()))
