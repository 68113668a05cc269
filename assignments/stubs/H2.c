    // Not done yet. x and dy [N,C], gain [C]; the formula is above, n->saved[2 r] and [2 r + 1] are row r's mean and 1/deviation.
    // Add to dx [N,C], after begin(n, row, C), which sets a row to zero if n->first. Only the rows rows(n, part).
    // Who calls it: backward(), for input 0 of op_layernorm.
    (void)n, (void)dy, (void)dx, (void)part, (void)begin;
