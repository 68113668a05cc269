// escape.c - what a solution must not be able to do, tried one after another where a solution runs: course-check links it as one, past all
// that refuses such code before. It says what worked; exit status 0: nothing did.

#define _GNU_SOURCE
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/ptrace.h>
#include <sys/resource.h>
#include <sys/shm.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

extern char **environ;
static int worked;

static void must_fail(const char *what, int good)
{
    if (!good) return;
    printf("it can %s\n", what);
    worked++;
}

static rlim_t limit_of(int resource)
{
    struct rlimit limit = { 0, 0 };
    return getrlimit(resource, &limit) == 0 ? limit.rlim_max : 0;
}

__attribute__((constructor)) static void before_main(void)
{
    must_fail("use more than 6 s before main", limit_of(RLIMIT_CPU) > 6);
    must_fail("use more than a gigabyte before main", limit_of(RLIMIT_AS) > 1 << 30);
    must_fail("write files before main", limit_of(RLIMIT_FSIZE) > 0);
    must_fail("open many files before main", limit_of(RLIMIT_NOFILE) > 16);
    must_fail("start processes before main", limit_of(RLIMIT_NPROC) > 1);
    must_fail("open a file before main", open("/etc/passwd", O_RDONLY) >= 0);
}

int main(int argc, char **argv)
{
    const char *shared = argc > 1 && argv[1][0] != 'e' ? argv[1] : "/tmp";
    must_fail("read the system's files", open("/etc/passwd", O_RDONLY) >= 0);
    must_fail("see the grader's tree", access("/work", F_OK) == 0 || access(shared, F_OK) == 0);
    must_fail("look at processes", open("/proc/self/maps", O_RDONLY) >= 0 || open("/proc/1/cmdline", O_RDONLY) >= 0);
    must_fail("write a file", open("/tmp/escaped", O_WRONLY | O_CREAT, 0600) >= 0 || open("escaped", O_WRONLY | O_CREAT, 0600) >= 0);
    must_fail("make a directory", mkdir("/tmp/escaped.d", 0700) == 0 || mkdir("escaped.d", 0700) == 0);
    must_fail("rename or link a file", rename("a", "b") == 0 || symlink("/etc/passwd", "link") == 0);
    must_fail("start a process", fork() >= 0 || vfork() >= 0 || system("true") == 0);
    must_fail("run a program", execv("/bin/sh", (char *[]){ "sh", NULL }) == 0);
    must_fail("end its parent", getppid() > 1 && kill(getppid(), 0) == 0);
    must_fail("end others", kill(-1, 0) == 0);
    must_fail("watch others", ptrace(PTRACE_ATTACH, getppid(), 0, 0) == 0);
    must_fail("reach the network", socket(AF_INET, SOCK_STREAM, 0) >= 0 || socket(AF_UNIX, SOCK_STREAM, 0) >= 0);
    must_fail("share memory", shmget(0x51a7, 4096, 01666) >= 0 || shm_open("/escaped", O_RDWR | O_CREAT, 0600) >= 0);
    must_fail("be root", getuid() == 0);
    must_fail("become root", setuid(0) == 0 && getuid() == 0);
    must_fail("leave its root", chroot("..") == 0);
    must_fail("raise its limits", setrlimit(RLIMIT_CPU, &(struct rlimit){ 600, 600 }) == 0 || setrlimit(RLIMIT_FSIZE, &(struct rlimit){ 1, 1 }) == 0);
    must_fail("leave its session", setsid() >= 0);
    must_fail("learn from its environment", environ[0] != NULL);
    must_fail("learn a seed from its arguments", argc > 2);
    for (int fd = 4; fd < 256; fd++) must_fail("use a descriptor of the grader's", fcntl(fd, F_GETFD) >= 0 || lseek(fd, 0, SEEK_CUR) >= 0);
    if (!worked) printf("it can do nothing but compute\n");
    fflush(stdout);
    return worked != 0;
}
