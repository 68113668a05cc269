# meltwater.gdb - commands for looking at tensors, the tape and the ledger of a program that is stopped. In plain gdb, so that
# they work in one without Python too; with Python, meltwater.py prints tensors and nodes in words wherever gdb shows one.
#
#     make gdb                                                             stops a small step for you (step.gdb)
#     gdb -x gdb/meltwater.gdb build/cc-float-debug/train                  any program, built with make DEBUG=1 programs

set breakpoint pending off
set confirm off
set pagination off
set width 0
set print thread-events off
set debuginfod enabled off

# `step` goes past what only says where numbers lie, how many, and for whom: what is left is the way from the guard to a product.
skip -rfunction ^(values|gradient|matrix|transposed|scaled|empty|starting_from|rows_of|last_dim|share|elements|rows|element|value)$
skip -rfunction ^(tell|is_small|need_grad|make_again|keeps_of|unkeep)$

define find-norm
  set $norm = norm_of($arg0, $arg1)
end
document find-norm
Used by the others: find-norm POINTER COUNT sets $norm. So does find-shape TENSOR with $shape. Both call the program's own
functions, which not every gdb can on every processor; meltwater.py replaces them by two that read its memory.
end
define find-shape
  set $shape = shape_text($arg0)
end

# $_strlen is one of gdb's own functions that are written in Python. ($without_python: shows the reduced form all the same.)
if $_isvoid($_strlen) || ! $_isvoid($without_python)
  echo This gdb runs without Python: p *t shows bare fields; use `tensor t`. All commands work.\n
else
  source gdb/meltwater.py
end

define say-grad
  if ($arg0)->grad == 0
    printf "grad: not computed"
  else
    if ($arg0)->grad_empty
      printf "grad: empty, for a product to fill"
    else
      find-norm ($arg0)->grad ($arg0)->size
      printf "|grad| = %.4g", $norm
    end
  end
end
document say-grad
Used by the others: what `grad` says, without the end of the line.
end

define grad
  say-grad $arg0
  printf "\n"
end
document grad
grad T: the norm of a tensor's gradient, or that there is none. Not computed is not the same as zero.
end

define tensor
  set $t = $arg0
  find-shape $t
  printf "%s %s", $t->name, $shape
  if $t->requires_grad
    printf " requires_grad, "
  else
    printf " frozen, "
  end
  say-grad $t
  if $t->codes != 0
    printf ", in %s codes: p *T->codes\n", base_type_names[$t->codes->type]
  end
  if $t->data == 0 && $t->codes == 0
    printf ", its data is gone\n"
  end
  if $t->data != 0
    find-norm $t->data $t->size
    printf ", |data| = %.4g\n ", $norm
    set $e = 0
    while $e < $t->size && $e < 8
      printf " %.4g", $t->data[$e]
      set $e = $e + 1
    end
    if $e < $t->size
      printf " ..."
    end
    printf "\n"
  end
end
document tensor
tensor T: a tensor's name, shape, flag, gradient, norm, and its first numbers. T is a pointer, without spaces: tensor n->in[1]
end

# Sets $tape from the argument, or from what `tape` means in this frame.
define find-tape
  if $argc == 1
    set $tape = $arg0
  else
    set $tape = tape
  end
  if $tape->count == 0
    printf "  the tape is empty: nothing was recorded yet, or backward has consumed it\n"
  end
end
document find-tape
Used by `tape` and `flow`.
end

# Sets $now to the node whose gradients run now: the last one that backward has not consumed; -1 before backward starts.
define find-now
  set $now = $tape->count - 1
  while $now >= 0 && $tape->nodes[$now].out->spent
    set $now = $now - 1
  end
  if $now >= 0 && $now == $tape->count - 1 && $tape->nodes[$now].out->grad == 0
    set $now = -1
  end
end
document find-now
Used by `tape` and `flow`.
end

define tape
  if $argc == 1
    find-tape $arg0
  else
    find-tape
  end
  find-now
  set $i = $tape->count - 1
  while $i >= 0
    set $node = &$tape->nodes[$i]
    if $i == $now
      printf "-> "
    else
      printf "   "
    end
    find-shape $node->out
    printf "#%-3d %-14s -> %-20s %-10s ", $i, $node->op->name, $node->out->name, $shape
    if $node->out->spent
      printf "has run: freed what it kept\n"
    else
      say-grad $node->out
      set $k = 0
      set $first = 1
      while $k < MAX_INPUTS
        if $node->in[$k] != 0 && ($node->kept & (1 << $k))
          if $first
            printf ", keeps"
            set $first = 0
          end
          printf " %s", $node->in[$k]->name
          if $node->in[$k]->data == 0
            printf " (to be made again)"
          end
        end
        set $k = $k + 1
      end
      printf "\n"
    end
    set $i = $i - 1
  end
end
document tape
tape [TAPE]: the recorded nodes, in the order in which backward runs them; -> marks the one that runs now.
Without an argument it takes what `tape` means in this frame; go `up` where that means nothing.
end

# One line of `flow`: input $k of node $i.
define flow-line
  set $in = $node->in[$k]
  set $weight = $node->op->weight
  if $i == $now
    printf "-> "
  else
    printf "   "
  end
  find-shape $in
  printf "#%-3d %-14s d/d %-38s %-9s ", $i, $node->op->name, $in->name, $shape
  if ! $in->requires_grad
    if $in->kind == MEMORY_WEIGHTS || $in->kind == MEMORY_ADAPTERS
      printf "frozen: no gradient of its own\n"
      set $frozen = $frozen + 1
    else
      printf "ends here: nothing below trains\n"
    end
  else
    if $in->spent
      printf "was used, and freed"
    else
      say-grad $in
    end
    if $k == 0 && $weight != 0 && ! $node->in[$weight]->requires_grad
      printf "   <- through frozen %s", $node->in[$weight]->name
      set $through = $through + 1
    end
    printf "\n"
  end
end
document flow-line
Used by `flow`.
end

define flow
  if $argc == 1
    find-tape $arg0
  else
    find-tape
  end
  find-now
  set $through = 0
  set $frozen = 0
  set $i = $tape->count - 1
  while $i >= 0
    set $node = &$tape->nodes[$i]
    set $k = (int)MAX_INPUTS - 1
    while $k >= 0
      if $node->in[$k] != 0
        flow-line
      end
      set $k = $k - 1
    end
    set $i = $i - 1
  end
  printf "%d gradients flow through frozen weight matrices; %d frozen inputs get none of their own\n", $through, $frozen
end
document flow
flow [TAPE]: every gradient that backward computes, passes on or leaves out, in the order in which it comes to it.
end

define ledger
  echo bytes                          live     own peak  at the peak\n
  set $k = 0
  while $k < MEMORY_KINDS
    printf "%-22s %12ld %12ld %12ld\n", memory_kind_names[$k], ledger.live[$k], ledger.own_peak[$k], ledger.at_peak[$k]
    set $k = $k + 1
  end
  printf "total                  %12ld              %12ld\n", ledger.total, ledger.peak
end
document ledger
ledger: the bytes of each kind: now, the most it ever held, and what it held when the total was highest.
end

# Inside a kernel of input 0: says what flows through which frozen weight.
define through
  find-shape n->in[1]
  find-norm n->out->grad n->out->size
  printf "through frozen %s %s: dX = f(dY, W) reads W's values; |dY| = %.4g, ", n->in[1]->name, $shape, $norm
  find-shape n->in[0]
  printf "dX goes to %s %s\n", n->in[0]->name, $shape
end
document through
Used by the breakpoints of `stop-frozen`.
end

define stop-frozen
  break linear_grad_x if ! n->in[1]->requires_grad
  commands
    silent
    through
  end
  break matmul_grad_a if ! n->in[1]->requires_grad
  commands
    silent
    through
  end
  break lm_head_grad_x if ! n->in[1]->requires_grad
  commands
    silent
    through
  end
  break layernorm_grad_x if ! n->in[1]->requires_grad
  commands
    silent
    through
  end
end
document stop-frozen
stop-frozen: stops in every kernel that passes a gradient through a frozen weight to what is below it.
end

define stop-guard
  break tell if event == SKIPPED
  commands
    silent
    printf "the guard: %s does not require grad, so nothing is computed for it\n", n->in[input]->name
  end
end
document stop-guard
stop-guard: stops wherever the guard in backward leaves a gradient out.
end

define guard
  if $_isvoid($guard_line)
    list run_backward,run_backward
    forward-search the guard
    set $guard_line = $_
  end
  tbreak autograd.c:$guard_line
  commands
    silent
    find-shape n->in[i]
    printf "at the guard, node %d (%s), input %d: %s %s ", number, n->op->name, i, n->in[i]->name, $shape
    if n->in[i]->requires_grad
      printf "requires grad: run_gradient comes next\n"
    else
      printf "does not require grad: nothing comes next\n"
    end
  end
  continue
end
document guard
guard: runs on to the line in run_backward that asks whether the next input requires a gradient. `product` leads back down.
end

define product
  tbreak product
  commands
    silent
    printf "a product: C [%d,%d] of A [%d,%d] and B [%d,%d]", (int)C.rows, (int)C.columns, (int)A.rows, (int)A.columns, (int)B.rows, (int)B.columns
    if C.empty
      printf ", stored: C is empty\n"
    else
      printf ", added to what C holds\n"
    end
    bt 2
  end
  continue
end
document product
product: runs on to the next product of matrices; from there a few `step`s lead to its inner loop, and `guard` back up.
end
