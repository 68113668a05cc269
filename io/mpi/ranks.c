// ranks.c - see io/ranks.h: several processes, by MPI. The one file that knows of it.
//
// A sum must have the same bits in every process, and those of micro-batches that follow each other: so it is made in the order
// of the processes, which MPI_Allreduce does not promise. Each process is given its slice of everybody's gradients (Alltoall),
// adds them up in order, and gives the sum to everybody (Allgather). Of P numbers each of n sends 2 P (n - 1) / n, as in the best
// Allreduce; with two processes that is P.

#include "io/ranks.h"

#include <mpi.h>
#include <signal.h>
#include <stdlib.h>
#include <unistd.h>

enum { SLICE = 1 << 16, PATIENCE = 2 };  // numbers at most: buffers do not grow with the model; seconds
Ranks ranks = { 0, 1, 0 };
static MPI_Comm ends;                    // for the end alone: there nothing else can be under way
static int silenced = -1, heard = -1;    // stderr as it was, and the file that has what went there since

static void speak(int signal_number)
{
    char text[512];
    (void)signal_number;
    if (silenced < 0 || lseek(heard, 0, SEEK_SET) != 0) return;
    for (ssize_t n; (n = read(heard, text, sizeof text)) > 0;)
        if (write(silenced, text, (size_t)n) < 0) return;
}

// At every exit. If all come here MPI ends in order, and process 0 has said what there is to say. If not, something is wrong here
// alone: this one says it and ends without MPI's leave, for which mpirun ends the others.
static void end(void)
{
    MPI_Request request;
    int all = 0;
    MPI_Ibarrier(ends, &request);
    for (double start = MPI_Wtime(); !all && MPI_Wtime() - start < PATIENCE;) MPI_Test(&request, &all, MPI_STATUS_IGNORE);
    if (all) MPI_Finalize();
    else speak(0);
}

// What this process prints is lost, for process 0 prints the same; what it says of errors is put aside for speak().
static void be_silent(void)
{
    FILE *file = tmpfile();
    if (file == NULL || freopen("/dev/null", "w", stdout) == NULL) return;
    heard = fileno(file);
    silenced = dup(STDERR_FILENO);
    dup2(heard, STDERR_FILENO);
    signal(SIGABRT, speak); // from check(): the process ends when this returns
}

void ranks_begin(void)
{
    int provided, here; // on this machine
    MPI_Comm machine;
    MPI_Init_thread(NULL, NULL, MPI_THREAD_FUNNELED, &provided);
    MPI_Comm_rank(MPI_COMM_WORLD, &ranks.index);
    MPI_Comm_size(MPI_COMM_WORLD, &ranks.count);
    MPI_Comm_dup(MPI_COMM_WORLD, &ends);
    MPI_Comm_split_type(MPI_COMM_WORLD, MPI_COMM_TYPE_SHARED, 0, MPI_INFO_NULL, &machine);
    MPI_Comm_size(machine, &here);
    MPI_Comm_free(&machine);
    if (here > 1) parallel_set_threads((parallel_threads() + here - 1) / here); // they share its cores
    if (ranks.index > 0) be_silent();
    atexit(end);
}

// Copies `count` of all gradients' numbers, from number `from` on, to `flat` or back. Returns how many there are.
static int64_t copy_gradients(const Transformer *model, int64_t from, int64_t count, real *flat, bool back)
{
    int64_t first = 0; // number of the tensor
    for (int i = 0; i < model->parameter_count; i++) {
        const Tensor *t = model->parameters[i];
        if (t->grad == NULL) continue;
        int64_t begin = first > from ? first : from, stop = first + t->size < from + count ? first + t->size : from + count;
        real *there = begin < stop ? t->grad + (begin - first) : NULL, *here = begin < stop ? flat + (begin - from) : NULL;
        if (begin < stop) memcpy(back ? there : here, back ? here : there, (size_t)(stop - begin) * sizeof(real));
        first += t->size;
    }
    return first;
}

void ranks_add_up(void *context, Transformer *model, double *loss)
{
    (void)context;
    const int n = ranks.count;
    if (n == 1) return;
    int64_t all = copy_gradients(model, 0, 0, NULL, false), most = (all + n - 1) / n < SLICE ? (all + n - 1) / n : SLICE;
    real *flat = memory_take(MEMORY_WORKSPACE, 2 * n * most), *slices = flat + n * most;
    for (int64_t from = 0; from < all; from += n * most) {
        int64_t count = all - from < n * most ? all - from : n * most, slice = (count + n - 1) / n;
        int bytes = (int)(slice * (int64_t)sizeof(real));
        copy_gradients(model, from, count, flat, false);
        for (int64_t i = count; i < n * slice; i++) flat[i] = 0;
        MPI_Alltoall(flat, bytes, MPI_BYTE, slices, bytes, MPI_BYTE, MPI_COMM_WORLD);
        for (int r = 1; r < n; r++)
            for (int64_t i = 0; i < slice; i++) slices[i] += slices[r * slice + i];
        MPI_Allgather(slices, bytes, MPI_BYTE, flat, bytes, MPI_BYTE, MPI_COMM_WORLD);
        copy_gradients(model, from, count, flat, true);
        ranks.sent += 2 * (n - 1) * (int64_t)bytes;
    }
    memory_give(MEMORY_WORKSPACE, flat, 2 * n * most);
    double *losses = allocate((size_t)n, sizeof *losses, "the losses");
    MPI_Allgather(loss, 1, MPI_DOUBLE, losses, 1, MPI_DOUBLE, MPI_COMM_WORLD);
    for (int r = 0; r < n; r++) *loss = r == 0 ? losses[0] : *loss + losses[r];
    free(losses);
}

int ranks_most(int mine)
{
    MPI_Allreduce(MPI_IN_PLACE, &mine, 1, MPI_INT, MPI_MAX, MPI_COMM_WORLD);
    return mine;
}

int ranks_different(uint64_t hash)
{
    uint64_t first = hash;
    MPI_Bcast(&first, 1, MPI_UINT64_T, 0, MPI_COMM_WORLD);
    return ranks_most(hash == first ? 0 : ranks.index);
}
