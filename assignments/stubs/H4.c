    // Not done yet. sums[j] += the sum over the rows i of A(i,j); element(A, i, j) points to one. Only the columns
    // share(part, A.columns, GRAIN). Who calls it: the gradients of a bias, in op_layernorm and in op_linear.
    (void)sums, (void)A, (void)part;
