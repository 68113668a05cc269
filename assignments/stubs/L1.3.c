    // Not done yet. y = a b with a [N,I], b [I,O], y [N,O]; dy [N,O] is dL/dy. Add dL/db to n->in[1]->grad:
    //     db[i,o] += sum_n a[n,i] dy[n,o]
    // One call of product(), as in L1.2: three matrices, one of them transposed(), and `part`.
    // Who calls it: backward(), for input 1 of op_matmul, if that trains.
    (void)n, (void)part;
