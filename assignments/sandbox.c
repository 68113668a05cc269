// sandbox.c - see sandbox.h.

#ifdef __linux__
#define _GNU_SOURCE
#else
#undef _POSIX_C_SOURCE // NPROC is no part of it
#endif

#include "sandbox.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <signal.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#ifdef __linux__
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sched.h>
#include <sys/mount.h>
#include <sys/personality.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#endif

enum { CPU_SECONDS = 5, MEMORY_BYTES = 1 << 30, COMPILED_BYTES = 1 << 22, COMPILER_PROCESSES = 16, COMPILER_DESCRIPTORS = 64 };

static struct { bool asked; uid_t user, other; gid_t group; } grader; // other: whom a solution runs as; 0: the grader itself

// Tries who there is: one user for each grader that runs, so that no process of it can be another's; in a container, which has few, one
// of those that it has. Asked before a new namespace makes everybody somebody else.
static void know_grader(void)
{
    uid_t pid = (uid_t)getpid(), tried[] = { 0x10000000 + pid, 20000 + pid % 40000, 65533 };
    if (grader.asked) return;
    grader.asked = true, grader.user = geteuid(), grader.group = getegid();
    for (int i = 0; i < 3 && grader.user == 0 && grader.other == 0; i++) {
        int status = 1;
        pid_t child = fork();
        if (child == 0) _exit(setgroups(0, NULL) != 0 || setgid(tried[i]) != 0 || setuid(tried[i]) != 0);
        while (child > 0 && waitpid(child, &status, 0) < 0 && errno == EINTR) ;
        if (child > 0 && status == 0) grader.other = tried[i];
    }
}

static void limited(int resource, rlim_t value) { setrlimit(resource, &(struct rlimit){ value, value }); }

static void set_limits(const Sandbox *s)
{
    setrlimit(RLIMIT_CPU, &(struct rlimit){ CPU_SECONDS, CPU_SECONDS + 1 });
    limited(RLIMIT_AS, MEMORY_BYTES);
    limited(RLIMIT_FSIZE, s->compiler ? COMPILED_BYTES : 0);
    limited(RLIMIT_CORE, 0);
    limited(RLIMIT_NOFILE, s->compiler ? COMPILER_DESCRIPTORS : s->loader ? 16 : 4);
}

// Takes the user's place, who runs nothing else; so the number of processes is limited last.
static void become_user(const Sandbox *s)
{
    uid_t id = grader.other;
    if (id != 0 && (setgroups(0, NULL) != 0 || setgid(id) != 0 || setuid(id) != 0)) _exit(125);
#ifdef RLIMIT_NPROC
    if (id != 0 || !s->compiler) limited(RLIMIT_NPROC, s->compiler ? COMPILER_PROCESSES : 1);
#else
    (void)s;
#endif
}

#ifdef __linux__

// ------------------------------------------------------------------------------------------------------------- the system calls

#if defined __x86_64__
#define ARCHITECTURE AUDIT_ARCH_X86_64
#elif defined __aarch64__
#define ARCHITECTURE AUDIT_ARCH_AARCH64
#endif

#ifdef ARCHITECTURE

static const int computing[] = {
    SYS_read, SYS_write, SYS_writev, SYS_close, SYS_fstat, SYS_newfstatat, SYS_lseek, SYS_ioctl, SYS_brk, SYS_mmap, SYS_munmap, SYS_mremap,
    SYS_madvise, SYS_mprotect, SYS_exit, SYS_exit_group, SYS_execveat, SYS_getpid, SYS_gettid, SYS_getuid, SYS_getrandom, SYS_rt_sigaction,
    SYS_rt_sigprocmask, SYS_rt_sigreturn, SYS_clock_gettime, SYS_futex, SYS_set_tid_address, SYS_set_robust_list, SYS_uname,
#ifdef SYS_rseq
    SYS_rseq,
#endif
#ifdef SYS_arch_prctl
    SYS_arch_prctl,
#endif
};
static const int loading[] = { SYS_pread64, SYS_readlinkat,
#ifdef SYS_access
    SYS_access, SYS_readlink, SYS_open, SYS_stat,
#endif
    SYS_faccessat };

typedef struct Filter { struct sock_filter steps[256]; size_t count; } Filter;
static void step(Filter *f, struct sock_filter what) { f->steps[f->count++] = what; }

// This call is good; or, if `argument` is not negative, only if that argument is `value`, or has none of the bits `value` if `bits`.
static void allow(Filter *f, int call, int argument, unsigned value, bool bits)
{
    static const size_t at[] = { offsetof(struct seccomp_data, args[0]), offsetof(struct seccomp_data, args[1]), offsetof(struct seccomp_data, args[2]) };
    step(f, (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, (unsigned)call, 0, argument < 0 ? 1 : 4));
    if (argument >= 0) {
        step(f, (struct sock_filter)BPF_STMT(BPF_LD | BPF_W | BPF_ABS, (unsigned)at[argument]));
        step(f, (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_K | (bits ? BPF_JSET : BPF_JEQ), value, bits, !bits));
    }
    step(f, (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW));
    if (argument >= 0) step(f, (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EPERM));
}

// What is not named is denied, and the program goes on: EPERM. False: this kernel has no filters.
static bool filter_calls(bool loader)
{
    Filter f = { .count = 0 };
    step(&f, (struct sock_filter)BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, arch)));
    step(&f, (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, ARCHITECTURE, 1, 0));
    step(&f, (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EPERM));
    step(&f, (struct sock_filter)BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)));
    for (size_t i = 0; i < sizeof computing / sizeof *computing; i++) allow(&f, computing[i], -1, 0, false);
    for (size_t i = 0; i < sizeof loading / sizeof *loading && loader; i++) allow(&f, loading[i], -1, 0, false);
    if (loader) allow(&f, SYS_openat, 2, O_WRONLY | O_RDWR | O_CREAT | O_TRUNC, true);
    allow(&f, SYS_tgkill, 0, (unsigned)getpid(), false); // abort(): a signal to itself
    allow(&f, SYS_prlimit64, 0, 0, false);               // its own limits, which it can only lower
    step(&f, (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EPERM));
    struct sock_fprog all = { (unsigned short)f.count, f.steps };
    return prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0 && prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &all) == 0;
}
#else
static bool filter_calls(bool loader) { return (void)loader, false; }
#endif

// ------------------------------------------------------------------------------------------------------------ a root of its own

static bool put(const char *path, const char *format, unsigned id)
{
    char text[64];
    int file = open(path, O_WRONLY), length = snprintf(text, sizeof text, format, id, id);
    bool good = file >= 0 && write(file, text, (size_t)length) == length;
    if (file >= 0) close(file);
    return good;
}

// In a new user namespace: oneself is oneself.
static bool map_oneself(unsigned uid, unsigned gid)
{
    return put("/proc/self/setgroups", "deny", 0) && put("/proc/self/uid_map", "%u %u 1\n", uid) && put("/proc/self/gid_map", "%u %u 1\n", gid);
}

// The system's directories and the room: nothing else of this machine is there for a compiler.
static bool change_root(const char *room)
{
    static const char *const shown[] = { "usr", "bin", "lib", "lib64", "lib32", "libx32", "etc/alternatives" };
    char top[512], from[64], to[600], link[600];
    snprintf(top, sizeof top, "%s.root", room);
    if (mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL) != 0 || mount("none", top, "tmpfs", 0, "mode=755") != 0) return false;
    for (size_t i = 0; i < sizeof shown / sizeof *shown; i++) {
        struct stat about;
        snprintf(from, sizeof from, "/%s", shown[i]);
        snprintf(to, sizeof to, "%s/%s", top, shown[i]);
        if (lstat(from, &about) != 0) continue;
        if (S_ISLNK(about.st_mode)) {
            ssize_t length = readlink(from, link, sizeof link - 1);
            if (length <= 0) return false;
            link[length] = '\0';
            if (symlink(link, to) != 0) return false;
            continue;
        }
        if (strchr(shown[i], '/') != NULL) snprintf(link, sizeof link, "%s/etc", top), mkdir(link, 0755);
        if (mkdir(to, 0755) != 0 || mount(from, to, NULL, MS_BIND | MS_REC, NULL) != 0) return false;
    }
    snprintf(to, sizeof to, "%s/room", top);
    return mkdir(to, 0755) == 0 && mount(room, to, NULL, MS_BIND, NULL) == 0 && chroot(top) == 0 && chdir("/room") == 0;
}

// fork(), with namespaces of its own if `own`; -1: they are not allowed here
static pid_t split(const Sandbox *s, bool own)
{
    int spaces = CLONE_NEWNET | CLONE_NEWIPC | (grader.other ? 0 : CLONE_NEWUSER) | (s->compiler || s->loader ? CLONE_NEWNS : 0) | (s->compiler ? CLONE_NEWPID : 0);
    return own ? (pid_t)syscall(SYS_clone, spaces | SIGCHLD, 0, 0, 0, 0) : fork();
}

// What `own` namespaces are for. False: not here.
static bool move_in(const Sandbox *s, bool own)
{
    if (own && grader.other == 0 && !map_oneself(grader.user, grader.group)) return false;
    if (chdir(s->directory) != 0) return false;
    if (s->compiler || s->loader) return !own || change_root(s->directory);
    return !(own || grader.user == 0) || chroot(".") == 0;
}

static void execute(const Sandbox *s, int program, char *const *arguments, char *const *environment)
{
    if (s->compiler) { execve(arguments[0], arguments, environment); return; }
    personality(ADDR_NO_RANDOMIZE); // so that an address is no coin to toss
    filter_calls(s->loader);
    syscall(SYS_execveat, program, "", arguments, environment, AT_EMPTY_PATH);
}

#else

static bool filter_calls(bool loader) { return (void)loader, false; }
static pid_t split(const Sandbox *s, bool own) { return (void)s, own ? -1 : fork(); }
static bool move_in(const Sandbox *s, bool own) { return (void)own, chdir(s->directory) == 0; }
static void execute(const Sandbox *s, int program, char *const *arguments, char *const *environment)
{
    (void)s, (void)program;
    execve(arguments[0], arguments, environment);
}
#endif

// ------------------------------------------------------------------------------------------------------------------- everywhere

static struct { bool asked, spaces[2], filter; } here; // what this system lets the grader do: namespaces for a solution, for a compiler

// Asks by trying: the child's exit status says.
static bool try_it(const Sandbox *s, bool own)
{
    int status = 1;
    pid_t child = split(s, own);
    if (child < 0) return false;
    if (child == 0) _exit(own ? !move_in(s, true) : !filter_calls(false));
    while (waitpid(child, &status, 0) < 0 && errno == EINTR) ;
    return WIFEXITED(status) && WEXITSTATUS(status) == 0;
}

static void ask(const Sandbox *s)
{
    const char *without = getenv("SANDBOX_WITHOUT"); // for a test: "namespaces"
    bool spaces = without == NULL || strstr(without, "namespaces") == NULL;
    for (int compiler = 0; compiler < 2; compiler++) {
        Sandbox trial = *s;
        trial.compiler = compiler;
        here.spaces[compiler] = spaces && try_it(&trial, true);
    }
    here.filter = try_it(s, false);
    here.asked = true;
}

_Noreturn static void begin(const Sandbox *s, char *const *arguments, bool own)
{
    char path[] = "PATH=/usr/local/bin:/usr/bin:/bin", temporary[] = "TMPDIR=out", language[] = "LC_ALL=C";
    char *environment[] = { path, temporary, language, NULL };
    int program = s->compiler ? -1 : open(arguments[0], O_RDONLY);
    setpgid(0, 0);
    if (!move_in(s, own)) _exit(126);
    if (program >= 0) program = fcntl(program, F_DUPFD_CLOEXEC, 10); // above those that stay
    int given[3] = { fcntl(s->input, F_DUPFD, 20), fcntl(s->said, F_DUPFD, 20), s->compiler ? -1 : fcntl(s->output, F_DUPFD, 20) };
    dup2(given[0], 0);
    dup2(given[1], 1);
    dup2(given[1], 2);
    if (!s->compiler) dup2(given[2], 3);
    for (int fd = s->compiler ? 3 : 4; fd < 256; fd++)
        if (fd != program) close(fd);
    set_limits(s);
    become_user(s);
    execute(s, program, arguments, s->compiler ? environment : environment + 3);
    _exit(127);
}

pid_t sandbox_start(const Sandbox *s, char *const *arguments)
{
    know_grader();
    if (!here.asked) ask(s);
    bool own = here.spaces[s->compiler];
    fflush(NULL);
    pid_t child = split(s, own);
    if (child == 0) begin(s, arguments, own);
    return child;
}

void sandbox_end(pid_t process)
{
    kill(-process, SIGKILL);
    uid_t id = grader.other;
    if (id == 0) return;
    pid_t child = fork(); // kill(-1) reaches what the caller's user runs
    if (child == 0) {
        if (setgid(id) == 0 && setuid(id) == 0) kill(-1, SIGKILL);
        _exit(0);
    }
    while (child > 0 && waitpid(child, NULL, 0) < 0 && errno == EINTR) ;
}

void sandbox_owns(const char *path)
{
    know_grader();
    if (grader.other != 0 && chown(path, grader.other, grader.other) != 0) perror(path);
}

const char *sandbox_says(void)
{
    static char text[400];
    if (!here.asked) return "nothing ran";
    snprintf(text, sizeof text, "%s; %s; %s%s", grader.other ? "a user of its own" : grader.user ? "NOT a user of its own, for the grader is not root" : "NOT a user of its own, for there is none here",
             here.filter ? "no files, processes, signals or network for it (system calls are filtered)" : "system calls are NOT filtered on this system",
             here.spaces[0] ? "namespaces of its own" : "NO namespaces of its own, which this system refuses",
             here.spaces[1] || !here.spaces[0] ? "" : ", but the compiler sees this machine's files");
    return text;
}
