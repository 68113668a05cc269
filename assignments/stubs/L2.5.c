    // Not done yet. out = y + s h B with h [N,R], B [R,O], s = n->scalar; dout [N,O] is n->out->grad. Add dL/dB to n->in[2]->grad:
    //     dB[r,o] += s sum_n h[n,r] dout[n,o]
    // One call of product(). Who calls it: backward(), for input 2 of op_matmul_add.
    (void)n, (void)part;
