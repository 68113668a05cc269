    // Not done yet. y = x wte^T with x [N,C], wte [V,C]; dy [N,V]. Add dL/dwte to n->in[1]->grad:
    //     dwte[v,c] += sum_n dy[n,v] x[n,c]
    // One call of product(). Who calls it: backward(), for input 1 of op_lm_head, and before the embedding's, which adds its own:
    // the matrix is used twice.
    (void)n, (void)part;
