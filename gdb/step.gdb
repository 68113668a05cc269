# step.gdb - `make gdb` starts here: runs gdb/step.c up to its first gradient kernel, with the breakpoints of `stop-frozen` set.

source gdb/meltwater.gdb
stop-frozen
tbreak mean_grad
run
echo \n
echo This is the first gradient kernel of the first step, in which everything trains: the mean's dL/dx = dy / size.\n
echo Look:      bt   p *n   tensor n->in[0]   p n->out->grad[0]   tape   flow   ledger   help user-defined\n
echo Go on:     guard: up to the loop, where it asks whether the next input requires grad; product: down to the next product\n
echo \           step: through nothing but the way from the one to the other, and to the inner loop\n
echo \           continue: nothing is frozen yet, so to the LoRA step, where a gradient meets the first frozen weight\n
