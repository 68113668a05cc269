    // Not done yet. y = x wte^T with x [N,C], wte [V,C]; dy [N,V]. Write dL/dwte = dy^T x into dwte [V,C]: added to what is there,
    // or stored if n->first; only the share of `part`. Who calls it: backward(), for input 1 of op_lm_head, and before the
    // embedding's, which adds its own: the matrix is used twice.
    (void)dy, (void)dwte, (void)part, (void)N, (void)C, (void)V;
