    // Not done yet. Fill in m: the bytes of one training step of a model of shape s, if everything trains (lora false), or if
    // the base is frozen and every c_attn carries an adapter of rank s.r (lora true). Numbers have s.bytes bytes; N = B T.
    //     weights, adapters  all parameters of the base (transformer.h has the list); all A and B
    //     gradients          of parameters, when all are there
    //     moments            the optimizer's two per number that trains
    //     kept               what the nodes hold when forward has ended: each value that some gradient will read, once. The row
    //                        at the end of each op's block in ops.c and ops_gpt.c says who reads what; layernorm and
    //                        cross-entropy also keep two numbers for each row, attention two for each row and head. What is made
    //                        again (`again` in its row), because its node keeps its input anyway, is not kept. Parameters do
    //                        not count.
    // You have the shape alone: no model is made. The grader asks for shapes of its own.
    Memory m = { 0, 0, 0, 0, 0 };
    (void)s, (void)lora;
    return m;
