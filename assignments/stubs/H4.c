    // Not done yet. db[o] += the sum over the rows of dy [N,O]. Only the columns share(part, O, LANES).
    // Who calls it: backward(), for the bias of op_layernorm and of op_linear.
    (void)n, (void)dy, (void)db, (void)part;
