    // Not done yet. y = softmax(x) in each row of width V, and dy is dL/dy; the formula is above. Add to dx, only the rows
    // rows(n, part). Who calls it: backward(), for op_softmax.
    (void)n, (void)dy, (void)dx, (void)part;
