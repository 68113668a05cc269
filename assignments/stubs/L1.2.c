    // Not done yet. y = a b with a [N,I], b [I,O], y [N,O]; dy [N,O] is dL/dy, in n->out->grad. Add dL/da to n->in[0]->grad:
    //     da[n,i] += sum_o dy[n,o] b[i,o]
    // One call of product() (kernels.h; task L1.5 writes it) does it, and only the share of `part`. Which of gradient(n->in[0]),
    // gradient(n->out) and values(n->in[1]) is C, A and B there, and which has to be transposed() for the shapes to fit?
    // Who calls it: backward(), for input 0 of op_matmul, whether b trains or not.
    (void)n, (void)part;
