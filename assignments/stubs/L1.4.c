    // Not done yet. The tape has tape->count nodes, appended after their inputs. Visit each once, in an order in which a node's
    // result has its whole gradient before the node passes it on. For a node n:
    //     - if n->out->grad is NULL, nobody used the result: release(n), and that is all
    //     - if n->op is OP_RECOMPUTE: run_recompute(tape, n); otherwise for each input i, from the last to the first:
    //         - none there (NULL)? Next. Does it not require a gradient? Then skipped(tape, n, number, i), and nothing else
    //         - if tape->cut is not NULL and tape->cut(n, i) says true, next
    //         - count_gradient() in tape->counts; n->first = whether the input has no gradient yet; if so,
    //           need_grad(input, ops[n->op].input[i].first, n->out) makes room for one. It may take n->out->grad over for this,
    //           so look that pointer up before
    //         - run_kernel(n, i, dy, dx, tape, PHASE_WGRAD for a leaf (its node is NODE_LEAF), else PHASE_DGRAD)
    //         - unkeep(n, what it holds and the inputs before i do not need: n->kept without keeps_of(n, i))
    //     - release(n)
    // At the end no node is left: tape->count = 0. Who calls it: backward(), and run_recompute for the inner tape.
    (void)tape, (void)run_recompute, (void)skipped, (void)count_gradient, (void)trace;
