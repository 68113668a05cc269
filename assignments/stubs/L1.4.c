    // Not done yet. tape->nodes[0] to [tape->count - 1] are the nodes; each was appended after its inputs were made. Pass the gradient on
    // from node to node until it has reached every leaf that requires one. In which order, so that a result's gradient is whole before it
    // is passed on? And what about an input that requires none?
    //     run_gradient(tape, n, i)      adds to the gradient of n->in[i] what n gives it, and lets go of what only this reads; inputs from
    //                                   the last to the first, for input 0 may take over the buffer of n->out->grad
    //     tell(tape, n, i, SKIPPED)     an observer hears that input i gets nothing from n
    //     n->op->program(tape, n)       if it is not NULL, stands for all of n's inputs, and takes n->out->grad with it
    //     release(n)                    what n holds, and its result's gradient, go; every node comes to this
    // Some results do not lead to the loss: they have no gradient (NULL), and nothing to pass on. n->in[i] may be NULL, too. At the end
    // the tape has no nodes. Who calls it: backward(), and recompute.c for the tape inside.
    (void)tape, (void)run_gradient;
