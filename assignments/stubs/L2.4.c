    // Not done yet. out = y + s h B with h [N,R], B [R,O], s = n->scalar; dy [N,O] is dL/dout. Write dL/dh into dh [N,R]:
    // added to what is there, or stored if n->first; only the share of `part` (see matmul_grad_a).
    // Who calls it: backward(), for input 1 of op_matmul_add: the way to A.
    (void)dy, (void)dh, (void)part, (void)N, (void)R, (void)O;
