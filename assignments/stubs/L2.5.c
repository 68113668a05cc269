    // Not done yet. out = y + s h B with h [N,R], B [R,O], s = n->scalar; dy [N,O] is dL/dout. Write dL/dB into dB [R,O]:
    // added to what is there, or stored if n->first; only the share of `part` (see matmul_grad_b).
    // Who calls it: backward(), for input 2 of op_matmul_add.
    (void)dy, (void)dB, (void)part, (void)N, (void)R, (void)O;
