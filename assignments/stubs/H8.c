    // Not done yet. y = x wte^T with x [N,C], wte [V,C]; dy [N,V]. Add dL/dx to n->in[0]->grad:
    //     dx[n,c] += sum_v dy[n,v] wte[v,c]
    // One call of product() (see L1.2). Who calls it: backward(), for input 0 of op_lm_head.
    (void)n, (void)part;
