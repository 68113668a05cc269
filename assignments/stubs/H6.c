    // Not done yet. x [N,V] are logits, n->ids the N targets, dy [N,1] n->out->grad; n->saved[2 r] and [2 r + 1] are row r's
    // largest logit and 1 / sum of e^(x - largest). Add to n->in[0]->grad. Only the rows rows(n, part). row_exp (kernels.h) makes
    // exponentials. Who calls it: backward(), for op_cross_entropy.
    (void)n, (void)part;
