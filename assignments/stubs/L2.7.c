    // Not done yet. Of the first `inputs` inputs, those that require a gradient (or all, if n->trains) say in the op table what
    // data their gradient reads: ops[n->op].input[i].keeps. The union of these, and nothing more.
    // Who calls it: record_into with all inputs, to know what the node must hold; and backward() with i after input i is done.
    (void)n, (void)inputs;
