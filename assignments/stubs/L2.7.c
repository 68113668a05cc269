    // Not done yet. Of the first `inputs` inputs of the node (there may be fewer: n->in[i] is NULL from there on), those that
    // require a gradient say in their op's row what data that gradient reads: n->op->input[i].keeps. The union of these, and
    // nothing more. An op's row stands at the end of its block in ops.c.
    // Who calls it: record with all inputs, to know what the node must hold; and backward with i after input i is done.
    (void)n, (void)inputs;
    return KEEP_NONE;
