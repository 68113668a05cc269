    // Not done yet. y = x W + b with x [N,I], W [I,O], y [N,O]; dy [N,O] is dL/dy. Add dL/dW to n->in[1]->grad:
    //     dW[i,o] += sum_n x[n,i] dy[n,o]
    // One call of product(). Who calls it: backward(), for input 1 of op_linear, if W trains: under LoRA it does not.
    (void)n, (void)part;
