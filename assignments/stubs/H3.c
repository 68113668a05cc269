    // Not done yet. dgain[c] += the sum over rows of dy h, with h the normalised x (n->saved as above); dgain is n->in[1]->grad.
    // Only the columns share(part, C, GRAIN): a sum over rows must not cross parts.
    // Who calls it: backward(), for input 1 of op_layernorm.
    (void)n, (void)part;
