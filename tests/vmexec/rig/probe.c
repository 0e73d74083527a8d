/*
 * The program that conformance containers run: says on standard output, as one JSON object, what it finds itself in.
 *
 * Words: "quit" ends it at once, "exit:N" and "signal:N" end it so, "pause" waits for a signal for ever; "read:PATH" adds a file's content,
 * "stat:PATH" its inode, "write:PATH" what writing to it answers, "list:PATH" a folder. Words without a colon are only shown.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/personality.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <time.h>
#include <unistd.h>

static char buffer[1 << 17];
static const char *comma = "";

static void text(const char *s, size_t length) {
    putchar('"');
    for (size_t i = 0; i < length; i++) {
        unsigned char c = (unsigned char)s[i];
        if (c == '"' || c == '\\')
            printf("\\%c", c);
        else if (c < 32 || c > 126)
            printf("\\u%04x", c);
        else
            putchar(c);
    }
    putchar('"');
}

static void key(const char *name) {
    printf("%s\n", comma);
    text(name, strlen(name));
    putchar(':');
    comma = ",";
}

static void string(const char *name, const char *value) {
    key(name);
    text(value, strlen(value));
}

static void number(const char *name, long long value) {
    key(name);
    printf("%lld", value);
}

/* What a call answered: its value, or its errno as a negative number. */
static void answer(const char *name, long value) { number(name, value < 0 ? -errno : value); }

static void strings(const char *name, char **list) {
    key(name);
    putchar('[');
    for (int i = 0; list[i]; i++) {
        if (i)
            putchar(',');
        text(list[i], strlen(list[i]));
    }
    putchar(']');
}

static void file(const char *name, const char *path) {
    int fd = open(path, O_RDONLY | O_NONBLOCK);
    if (fd < 0) {
        number(name, -errno);
        return;
    }
    size_t length = 0;
    ssize_t count;
    while (length < sizeof buffer && (count = read(fd, buffer + length, sizeof buffer - length)) > 0)
        length += (size_t)count;
    close(fd);
    key(name);
    text(buffer, length);
}

static void inode(const char *name, const char *path) {
    struct stat st;
    char target[4096] = "";
    if (lstat(path, &st) < 0) {
        number(name, -errno);
        return;
    }
    if (S_ISLNK(st.st_mode) && readlink(path, target, sizeof target - 1) < 0)
        target[0] = 0;
    key(name);
    printf("\"%o %u:%u %u:%u %s\"", st.st_mode, st.st_uid, st.st_gid, major(st.st_rdev), minor(st.st_rdev), target);
}

static void folder(const char *prefix, const char *path) {
    struct dirent **entries;
    int count = scandir(path, &entries, NULL, alphasort);
    if (count < 0) {
        number(prefix, -errno);
        return;
    }
    for (int i = 0; i < count; i++) {
        if (strcmp(entries[i]->d_name, ".") && strcmp(entries[i]->d_name, "..")) {
            char name[600], full[600];
            snprintf(name, sizeof name, "%s/%s", prefix, entries[i]->d_name);
            snprintf(full, sizeof full, "%s/%s", path, entries[i]->d_name);
            inode(name, full);
        }
        free(entries[i]);
    }
    free(entries);
}

static void descriptors(void) {
    for (int fd = 0; fd < 64; fd++) {
        char path[64], target[4096], name[32];
        snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
        ssize_t length = readlink(path, target, sizeof target - 1);
        if (length >= 0) {
            /* Without the number of a pipe or socket. */
            char *bracket = memchr(target, '[', (size_t)length);
            target[bracket ? bracket - target : length] = 0;
            snprintf(name, sizeof name, "fd/%d", fd);
            string(name, target);
        }
    }
}

static void namespaces(void) {
    static const char *const kinds[] = {"cgroup", "ipc", "mnt", "net", "pid", "time", "user", "uts", NULL};
    for (int i = 0; kinds[i]; i++) {
        char path[64], target[64] = "", name[32];
        snprintf(path, sizeof path, "/proc/self/ns/%s", kinds[i]);
        if (readlink(path, target, sizeof target - 1) < 0)
            snprintf(target, sizeof target, "errno %d", errno);
        snprintf(name, sizeof name, "ns/%s", kinds[i]);
        string(name, target);
    }
}

static void process(char **argv, char **env) {
    char host[256], domain[256];
    struct winsize size = {0};
    struct sched_param param;
    gid_t groups[256];
    strings("argv", argv);
    strings("env", env);
    string("cwd", getcwd(buffer, sizeof buffer) ? buffer : "?");
    gethostname(host, sizeof host);
    getdomainname(domain, sizeof domain);
    string("hostname", host);
    string("domainname", domain);
    int count = getgroups(256, groups);
    key("groups");
    for (int i = 0; i < count; i++)
        printf("%s%u", i ? "," : "[", groups[i]);
    puts(count > 0 ? "]" : "[]");
    number("leads session", getsid(0) == getpid());
    number("leads group", getpgrp() == getpid());
    number("pid is 1", getpid() == 1);
    number("tty", isatty(0));
    ioctl(0, TIOCGWINSZ, &size);
    number("columns", size.ws_col);
    number("rows", size.ws_row);
    answer("foreground", tcgetpgrp(0) == getpgrp());
    number("scheduler", sched_getscheduler(0));
    sched_getparam(0, &param);
    number("priority", param.sched_priority);
    number("nice", getpriority(PRIO_PROCESS, 0));
    answer("io priority", syscall(SYS_ioprio_get, 1, 0));
    answer("personality", personality(0xffffffff));
    umask(0);
}

/* System calls that policies decide on, each with arguments that do no harm. */
static void verdicts(void) {
    answer("call/getpid", syscall(SYS_getpid) > 0 ? 0 : -1);
    answer("call/mkdir", mkdir("/tmp/probe", 0700));
    answer("call/chmod", chmod("/tmp", 0777));
    answer("call/chown", chown("/tmp", 0, 0));
    answer("call/mount", syscall(SYS_mount, "none", "/tmp", "tmpfs", 0, 0));
    answer("call/umount2", syscall(SYS_umount2, "/nowhere", 0));
    answer("call/mknod", mknod("/tmp/null", S_IFCHR | 0666, makedev(1, 3)));
    answer("call/sethostname", syscall(SYS_sethostname, "x", -1));
    answer("call/chroot", chroot("/"));
    answer("call/setuid", syscall(SYS_setresuid, -1, -1, -1));
    answer("call/setgroups", syscall(SYS_setgroups, 0, 0) < 0 ? -1 : 0);
    answer("call/raw socket", socket(AF_INET, SOCK_RAW, 1) < 0 ? -1 : 0);
    answer("call/unix socket", socket(AF_UNIX, SOCK_STREAM, 0) < 0 ? -1 : 0);
    answer("call/ptrace", syscall(SYS_ptrace, -1, 0, 0, 0));
    answer("call/bpf", syscall(SYS_bpf, -1, 0, 0));
    answer("call/perf_event_open", syscall(SYS_perf_event_open, 0, 0, 0, 0, 0));
    answer("call/keyctl", syscall(SYS_keyctl, -1, 0, 0, 0, 0));
    answer("call/unshare", syscall(SYS_unshare, 0x40000000));
    answer("call/setns", syscall(SYS_setns, -1, 0));
    answer("call/reboot", syscall(SYS_reboot, 0, 0, 0, 0));
    answer("call/swapon", syscall(SYS_swapon, "/nowhere", 0));
    answer("call/init_module", syscall(SYS_init_module, 0, 0, 0));
    answer("call/settimeofday", syscall(SYS_settimeofday, 0, 0));
    answer("call/kexec_load", syscall(SYS_kexec_load, 0, 0, 0, -1));
    answer("call/open_by_handle_at", syscall(SYS_open_by_handle_at, -1, 0, 0));
    answer("call/iopl", syscall(SYS_iopl, 0));
    answer("call/nice", setpriority(PRIO_PROCESS, 0, -1));
    answer("call/io_uring_setup", syscall(SYS_io_uring_setup, 0, 0));
}

static void asked(char **words) {
    for (int i = 0; words[i]; i++) {
        const char *path = strchr(words[i], ':');
        if (!path)
            continue;
        path++;
        if (!strncmp(words[i], "read:", 5))
            file(words[i], path);
        else if (!strncmp(words[i], "stat:", 5))
            inode(words[i], path);
        else if (!strncmp(words[i], "list:", 5))
            folder(words[i], path);
        else if (!strncmp(words[i], "write:", 6)) {
            int fd = open(path, O_WRONLY | O_CREAT, 0600);
            answer(words[i], fd < 0 ? -1 : 0);
            if (fd >= 0)
                close(fd);
        }
    }
}

static void boot_clock(void) {
    struct timespec now;
    clock_gettime(CLOCK_BOOTTIME, &now);
    number("boot clock is ahead", now.tv_sec > 100000);
}

int main(int argc, char **argv, char **env) {
    for (int i = 1; i < argc; i++)
        if (!strcmp(argv[i], "pause"))
            for (;;)
                pause();
    if (argc > 1 && !strcmp(argv[1], "quit"))
        return 0;
    static char out[1 << 18];
    setvbuf(stdout, out, _IOFBF, sizeof out);
    putchar('{');
    file("status", "/proc/self/status");
    process(argv, env);
    file("mountinfo", "/proc/self/mountinfo");
    file("limits", "/proc/self/limits");
    file("cgroup", "/proc/self/cgroup");
    file("oom_score_adj", "/proc/self/oom_score_adj");
    file("attr/current", "/proc/self/attr/current");
    file("attr/exec", "/proc/self/attr/exec");
    file("timens_offsets", "/proc/self/timens_offsets");
    file("sessionid", "/proc/self/sessionid");
    boot_clock();
    descriptors();
    namespaces();
    folder("dev", "/dev");
    folder("pts", "/dev/pts");
    folder("root", "/");
    inode(".", ".");
    asked(argv + 1);
    verdicts();
    puts("}");
    fflush(stdout);
    for (int i = 1; i < argc; i++) {
        if (!strncmp(argv[i], "exit:", 5))
            _exit(atoi(argv[i] + 5));
        if (!strncmp(argv[i], "signal:", 7)) {
            raise(atoi(argv[i] + 7));
            pause();
        }
    }
    return 0;
}
