// q21_order.c - why does backward need a topological order?
//
// a = 3x, b = 2a, c = 5a, y = b + c: dy/dx = 21. Nodes are appended in an order in which inputs come before results, and
// backward walks it from the end. Here the first three nodes are put into all six orders before it does. Then a chain
// h = h + h, where a walk along every path would take 2^20 calls. Asked in micrograd#96, #67; TrenTorch#182 shipped 6 for 21.
// Look at: record_into (where a node is appended) and run_backward in autograd.c.

#include "question.h"

enum { MIDDLE = 3, DOUBLINGS = 20 };
static const char names[] = "abc";

// dh/dx of the chain h = h + h, and how many gradient kernels ran.
static double double_up(int64_t *kernels)
{
    Tape *tape = tape_new();
    measure_begin(tape, NULL);
    Tensor *x = tensor_from("x", (real[]){ 1 }, SHAPE(1)), *h = x;
    x->requires_grad = true;
    for (int i = 0; i < DOUBLINGS; i++) h = op_add(tape, h, h);
    backward(tape, h);
    Measured m = measure_end(NULL, 1);
    *kernels = m.phase[PHASE_DGRAD].kernels + m.phase[PHASE_WGRAD].kernels;
    double slope = (double)x->grad[0];
    tape_free(tape);
    tensor_drop(x);
    return slope;
}

int main(void)
{
    question("Does it matter in which order the nodes pass their gradients on?");
    predict("dy/dx is 21. What comes out if a passes on before c has added its part?");

    int right = 0, late_a = 0;
    double answer[6];
    bool reached[6], once = true;
    printf("  order, from y down %10s\n", "dy/dx");
    for (int order = 0; order < 6; order++) {
        Tape *tape = tape_new();
        measure_begin(tape, NULL);
        Tensor *x = tensor_from("x", (real[]){ 2 }, SHAPE(1));
        x->requires_grad = true;
        Tensor *a = op_scale(tape, x, 3);
        Tensor *b = op_scale(tape, a, 2);
        Tensor *c = op_scale(tape, a, 5);
        Tensor *y = op_add(tape, b, c);

        Node made[MIDDLE];
        memcpy(made, tape->nodes, sizeof made);
        int first = order / 2, second = (first + 1 + order % 2) % 3, third = 3 - first - second; // who runs after y, then, last
        tape->nodes[2] = made[first];
        tape->nodes[1] = made[second];
        tape->nodes[0] = made[third];
        backward(tape, y);
        reached[order] = x->grad != NULL;
        answer[order] = reached[order] ? (double)x->grad[0] : 0;
        printf("  y, %c, %c, %c %18s%s\n", names[first], names[second], names[third], grad_text(x),
               third == 0 ? "   a after all who use it" : "");
        right += answer[order] == 21;
        late_a += third == 0 && answer[order] == 21;
        once &= measure_end(NULL, 1).phase[PHASE_WGRAD].kernels <= 1;
        tape_free(tape);
        tensor_drop(x);
    }

    int64_t calls;
    double slope = double_up(&calls);
    measured("h = h + h, 20 times: dh/dx", "%.0f", slope);
    measured("h = h + h, 20 times: gradient kernels that ran", "%" PRId64, calls);

    why("A node passes on what it has when its turn comes. If a consumer adds its part later, that part is lost. Walking "
        "the order of creation backwards, each node runs once, when all who used its result have run.");
    finding(right == 2 && late_a == 2, "of six orders the two with a last give 21, and no other does");
    finding(answer[3] == 6 && answer[4] == 15, "a too early: 6 or 15, what the consumers before it had brought");
    finding(!reached[0] && !reached[1], "a first of all: it has nothing to pass on, and x gets no gradient");
    finding(slope == 1048576, "20 doublings: exactly 2^20");
    finding(calls <= 2 * DOUBLINGS && once,
            "... by at most two gradients for each of 20 nodes, not one for each of 2^20 paths");
    return answered();
}
