// ranks.h - the processes of one training, numbered from 0: one, or as many as mpirun started of a program built with
// `make MPI=1`. Each has the whole model and takes its parts of every batch (training_step_in_parts).
//
// ranks.c is this for one process, mpi/ranks.c for several; the Makefile takes one of the two. An exit with an error may come in
// one process or in all. Process 0 alone prints, and says what is wrong where all end; one that ends alone says it itself. A
// check() that fails in all processes is said by each.

#ifndef RANKS_H
#define RANKS_H

#include "transformer.h"

typedef struct Ranks {
    int     index, count; // which process this is, of how many
    int64_t sent;         // bytes of gradients that this one has given to the others, by the algorithm of mpi/ranks.c: MPI's own
                          // messages may differ; the loss and a flag are a few more
} Ranks;
extern Ranks ranks;

// After program_begin, before anything is printed.
void ranks_begin(void);
// Every gradient of the model, and the loss, become the sum over all processes, in their order: the same bits in each of them. A
// Parts' add_up; `context` is not used.
void ranks_add_up(void *context, Transformer *model, double *loss);
// The largest of all processes' numbers. All must call it, and each waits for the others.
int  ranks_most(int mine);
// A process whose hash is another than that of process 0; 0: there is none.
int  ranks_different(uint64_t hash);

#endif
