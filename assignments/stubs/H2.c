    // Not done yet. x [N,C] is n->in[0], gain [C] n->in[1], dy [N,C] n->out->grad; the formula is above, n->saved[2 r] and
    // [2 r + 1] are row r's mean and 1/deviation. Add to n->in[0]->grad. Only the rows rows(n, part).
    // Who calls it: backward(), for input 0 of op_layernorm.
    (void)n, (void)part;
