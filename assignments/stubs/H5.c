    // Not done yet. y = softmax(x) in each row of width V: n->out->data; dy is n->out->grad; the formula is above. Add to
    // n->in[0]->grad, only the rows rows(n, part). Who calls it: backward(), for op_softmax.
    (void)n, (void)part;
