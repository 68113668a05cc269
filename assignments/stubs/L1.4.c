    // Not done yet. The tape has tape->count nodes, tape->nodes[0] the first; each was appended after its inputs were made. Visit
    // each once, in an order in which a node's result has its whole gradient before the node passes it on. For a node n:
    //     - if n->out->grad is NULL, the result did not lead to the loss: nothing to pass on
    //     - otherwise, if n->op->program is not NULL, n->op->program(tape, n): it takes the gradient with it
    //     - otherwise for each input i that there is (n->in[i] is not NULL), from the last to the first:
    //         - does it not require a gradient? Then tell(tape, n, i, SKIPPED), and nothing else
    //         - run_gradient(tape, n, i): makes room for the input's gradient if it has none yet, adds to it, and lets go of what
    //           only this gradient has read
    //     - in any case release(n): its result's gradient and all that it still keeps go
    // At the end no node is left: tape->count = 0. Who calls it: backward(), and recompute.c for the tape inside.
    (void)tape, (void)run_gradient;
