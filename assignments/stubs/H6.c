    // Not done yet. x [N,V] are logits, n->ids the N targets, dy [N,1]; n->saved[2 r] and [2 r + 1] are row r's largest logit and
    // 1 / sum of e^(x - largest). Add to dx [N,V] after begin(n, row, V), which sets a row to zero if n->first. Only the rows
    // rows(n, part). Who calls it: backward(), for op_cross_entropy.
    (void)n, (void)dy, (void)dx, (void)part;
