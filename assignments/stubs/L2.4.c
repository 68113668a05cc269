    // Not done yet. out = y + s h B with h [N,R], B [R,O], s = n->scalar; dout [N,O] is n->out->grad. Add dL/dh to n->in[1]->grad:
    //     dh[n,r] += s sum_o dout[n,o] B[r,o]
    // One call of product(); scaled(M, s) is a matrix M times s. Who calls it: backward(), for input 1 of op_matmul_add: the way
    // to A.
    (void)n, (void)part;
