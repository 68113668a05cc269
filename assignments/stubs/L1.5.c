    // Not done yet. C += A B with C [m,n], A [m,k], B [k,n], as three loops:
    //     C(i,j) += sum_k A.factor A(i,k) B.factor B(k,j)
    // A Matrix (kernels.h) says where its elements are: element(M, i, j) points to one, also if M is transposed or a block of a
    // larger one; its size is M.rows x M.columns. If C.empty, C holds nothing yet: do not read it; each row then begins as
    // C.start[0..n-1], or as zeros if C.start is NULL. Only the rows of C that are share(part, C.rows, 1): another part writes
    // the others. Who calls it: every op that multiplies matrices, forward and backward.
    (void)C, (void)A, (void)B, (void)part;
