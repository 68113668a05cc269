// ranks.c - see ranks.h: one process.

#include "ranks.h"

Ranks ranks = { 0, 1, 0 };

void ranks_begin(void) {}
void ranks_add_up(void *context, Transformer *model, double *loss) { (void)context, (void)model, (void)loss; }
int  ranks_most(int mine) { return mine; }
int  ranks_different(uint64_t hash) { return (void)hash, 0; }
