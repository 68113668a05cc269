    // Not done yet. y = x W + b with x [N,I], W [I,O], y [N,O]; dy [N,O] is dL/dy. Add dL/dx to n->in[0]->grad:
    //     dx[n,i] += sum_o dy[n,o] W[i,o]
    // One call of product(). It reads W and not W's gradient: this is the way through a frozen weight.
    // Who calls it: backward(), for input 0 of op_linear, whether W trains or not.
    (void)n, (void)part;
