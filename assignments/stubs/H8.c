    // Not done yet. y = x wte^T with x [N,C], wte [V,C]; dy [N,V]. Write dL/dx = dy wte into dx [N,C]: added to what is there, or
    // stored if n->first; only the share of `part` (see matmul_grad_a). Who calls it: backward(), for input 0 of op_lm_head.
    (void)dy, (void)dx, (void)part, (void)N, (void)C, (void)V;
