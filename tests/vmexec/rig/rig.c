/*
 * PID 1 of the conformance VM: runs each row of a table with crun and with vmexec and writes what came of it to the console.
 *
 * In the initramfs: /mod/NN-name.ko in load order, /tree (the containers' root), /rows/plain for a bench, /rows/NNNN/{how,crun.json,vmexec.json}
 * and, for a row that is an exec, {crun,vmexec}.exec. `how` holds the words "exec", "tty" and
 * "alone" (vmexec only).
 *
 * On the console, for each row and runtime, one line and that many bytes:
 *   == ROW RUNTIME EXIT FAILED READY_US TOTAL_US LENGTH
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/mman.h>
#include <sys/reboot.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <termios.h>
#include <time.h>
#include <unistd.h>
#include <x86intrin.h>

#define MAX_OUTPUT (1 << 20)
#define SOCKET "/run/console.sock"

static int console = 2, sealed_crun = -1;
static char output[MAX_OUTPUT];
static size_t output_length;

static void die(const char *format, ...) {
    va_list list;
    va_start(list, format);
    dprintf(console, "\n== rig: ");
    vdprintf(console, format, list);
    dprintf(console, ": %s\n", strerror(errno));
    va_end(list);
    sync();
    reboot(RB_AUTOBOOT);
}

static unsigned long long tsc_khz;

/* By the time stamp counter, whose rate the host says: under emulation the kernel's own clock goes in steps of 4 ms. */
static long long now_us(void) {
    struct timespec t;
    if (tsc_khz)
        return (long long)((__uint128_t)__rdtsc() * 1000 / tsc_khz);
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1000000LL + t.tv_nsec / 1000;
}

static void read_tsc_rate(void) {
    static char line[4096];
    int fd = open("/proc/cmdline", O_RDONLY);
    if (fd < 0 || read(fd, line, sizeof line - 1) < 0)
        die("read the command line");
    close(fd);
    char *found = strstr(line, "tsc_early_khz=");
    tsc_khz = found ? strtoull(found + 14, NULL, 10) : 0;
}

static void copy_file(const char *from, const char *to, mode_t mode) {
    static char block[1 << 16];
    int in = open(from, O_RDONLY), out = open(to, O_WRONLY | O_CREAT | O_TRUNC, mode & 07777);
    ssize_t count;
    if (in < 0 || out < 0)
        die("copy %s to %s", from, to);
    while ((count = read(in, block, sizeof block)) > 0)
        if (write(out, block, (size_t)count) != count)
            die("write %s", to);
    fchmod(out, mode & 07777);
    close(in);
    close(out);
}

/* What is at `from`, at `to`; symlinks as symlinks. */
static void copy_tree(const char *from, const char *to) {
    struct stat st;
    char target[4096];
    if (lstat(from, &st) < 0)
        die("stat %s", from);
    if (S_ISLNK(st.st_mode)) {
        ssize_t length = readlink(from, target, sizeof target - 1);
        target[length < 0 ? 0 : length] = 0;
        if (symlink(target, to) < 0)
            die("link %s", to);
    } else if (S_ISREG(st.st_mode)) {
        copy_file(from, to, st.st_mode);
    } else if (S_ISDIR(st.st_mode)) {
        mkdir(to, 0755);
        DIR *dir = opendir(from);
        for (struct dirent *e; dir && (e = readdir(dir));) {
            char a[4096], b[4096];
            if (!strcmp(e->d_name, ".") || !strcmp(e->d_name, ".."))
                continue;
            snprintf(a, sizeof a, "%s/%s", strcmp(from, "/") ? from : "", e->d_name);
            snprintf(b, sizeof b, "%s/%s", to, e->d_name);
            if (strcmp(a, "/new"))
                copy_tree(a, b);
        }
        closedir(dir);
        chmod(to, st.st_mode & 07777);
    }
}

static void insert_modules(void) {
    struct dirent **entries;
    int count = scandir("/mod", &entries, NULL, alphasort);
    for (int i = 0; i < count; i++) {
        char path[600];
        snprintf(path, sizeof path, "/mod/%s", entries[i]->d_name);
        int fd = open(path, O_RDONLY);
        if (entries[i]->d_name[0] != '.' && syscall(SYS_finit_module, fd, "", 0) < 0 && errno != EEXIST)
            die("insert %s", path);
        close(fd);
    }
}

/* pivot_root refuses the initramfs as the old root: what is in it moves onto a tmpfs, as the agent does it. */
static void leave_initramfs(void) {
    mkdir("/new", 0755);
    if (mount("tmpfs", "/new", "tmpfs", 0, NULL) < 0)
        die("mount /new");
    copy_tree("/", "/new");
    if (chdir("/new") < 0 || mount(".", "/", NULL, MS_MOVE, NULL) < 0 || chroot(".") < 0 || chdir("/") < 0)
        die("leave the initramfs");
}

static void write_file(const char *path, const char *content) {
    int fd = open(path, O_WRONLY);
    if (fd < 0 || write(fd, content, strlen(content)) < 0)
        die("write %s", path);
    close(fd);
}

static void open_console(void) {
    struct termios settings;
    for (int i = 0; (console = open("/dev/hvc0", O_RDWR | O_NOCTTY)) < 0; i++) {
        if (i == 20000) {
            console = 2;
            die("open /dev/hvc0");
        }
        usleep(500);
    }
    tcgetattr(console, &settings);
    cfmakeraw(&settings);
    tcsetattr(console, TCSANOW, &settings);
}

/* Namespaces for containers to join, by path. */
static void give_namespaces(void) {
    static const char *const kinds[] = {"net", "ipc", "uts", NULL};
    mkdir("/run/ns", 0755);
    int done[2], hold[2];
    char byte;
    if (pipe(done) < 0 || pipe(hold) < 0)
        die("pipe");
    pid_t pid = fork();
    if (pid == 0) {
        close(hold[1]);
        if (unshare(CLONE_NEWNET | CLONE_NEWIPC | CLONE_NEWUTS) < 0)
            die("unshare");
        _exit(write(done[1], "x", 1) == 1 && read(hold[0], &byte, 1) == 0 ? 0 : 1);
    }
    close(hold[0]);
    if (read(done[0], &byte, 1) != 1)
        die("unshare");
    for (int i = 0; kinds[i]; i++) {
        char from[64], to[64], name[64] = "";
        snprintf(from, sizeof from, "/proc/%d/ns/%s", pid, kinds[i]);
        snprintf(to, sizeof to, "/run/ns/%s", kinds[i]);
        close(open(to, O_CREAT | O_WRONLY, 0600));
        if (mount(from, to, NULL, MS_BIND, NULL) < 0 || readlink(from, name, sizeof name - 1) < 0)
            die("keep %s", from);
        dprintf(console, "== given %s\n", name);
    }
    close(hold[1]);
    close(done[0]);
    close(done[1]);
    waitpid(pid, NULL, 0);
}

static void boot(void) {
    static const char *const folders[] = {"/dev", "/proc", "/sys", "/run", "/tmp", "/c", "/vol", NULL};
    leave_initramfs();
    for (int i = 0; folders[i]; i++)
        mkdir(folders[i], 0755);
    mount("dev", "/dev", "devtmpfs", 0, NULL);
    mkdir("/dev/pts", 0755);
    mkdir("/dev/shm", 01777);
    mount("pts", "/dev/pts", "devpts", 0, NULL);
    mount("proc", "/proc", "proc", 0, NULL);
    mount("sys", "/sys", "sysfs", 0, NULL);
    mount("run", "/run", "tmpfs", 0, NULL);
    if (mount("cgroup2", "/sys/fs/cgroup", "cgroup2", 0, NULL) < 0)
        die("mount cgroup2");
    insert_modules();
    read_tsc_rate();
    open_console();
    write_file("/sys/fs/cgroup/cgroup.subtree_control", "+cpu +memory +pids +io +cpuset");
    setenv("PATH", "/bin", 1);
    /* What a caller ignores or has open must not reach the container. */
    signal(SIGPIPE, SIG_IGN);
    mkdir("/vol/dir", 0755);
    mkdir("/vol/dir/below", 0755);
    close(open("/vol/file", O_CREAT | O_WRONLY, 0644));
    mount("below", "/vol/dir/below", "tmpfs", 0, NULL);
    give_namespaces();
}

static void take_output(int fd) {
    static char spill[4096];
    for (;;) {
        size_t room = MAX_OUTPUT - output_length;
        ssize_t count = room ? read(fd, output + output_length, room) : read(fd, spill, sizeof spill);
        if (count < 0 && errno == EAGAIN) {
            struct pollfd wait = {.fd = fd, .events = POLLIN};
            poll(&wait, 1, 10000);
            continue;
        }
        if (count <= 0)
            return;
        output_length += room ? (size_t)count : 0;
    }
}

/*
 * crun copies itself into a sealed memory file and runs that, at every start, so that a container can't write to its
 * binary. It is given one that is sealed already: the same program, a third less time.
 */
static int seal_crun(void) {
    static char block[1 << 16];
    int in = open("/bin/crun", O_RDONLY | O_CLOEXEC), out = memfd_create("crun", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    ssize_t count;
    if (in < 0 || out < 0)
        die("copy crun");
    while ((count = read(in, block, sizeof block)) > 0)
        if (write(out, block, (size_t)count) != count)
            die("copy crun");
    close(in);
    if (fcntl(out, F_ADD_SEALS, F_SEAL_SEAL | F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE) < 0)
        die("seal crun");
    return out;
}

static pid_t spawn(char *const argv[], int out) {
    pid_t pid = fork();
    if (pid == 0) {
        int null = open("/dev/null", O_RDONLY);
        dup2(null, 0);
        dup2(out, 1);
        dup2(out, 2);
        if (sealed_crun >= 0)
            fexecve(sealed_crun, argv, environ);
        else
            execv("/bin/crun", argv);
        _exit(111);
    }
    return pid;
}

/* Exit code of a child, 128+n for signal n. */
static int reap(pid_t pid) {
    int status = 0;
    if (waitpid(pid, &status, 0) < 0)
        return -errno;
    return WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
}

static int receive_fd(int socket, char *message, ssize_t *length) {
    struct iovec part = {.iov_base = message, .iov_len = 8192};
    char control[CMSG_SPACE(sizeof(int))];
    struct msghdr header = {.msg_iov = &part, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof control};
    int fd = -1;
    *length = recvmsg(socket, &header, MSG_CMSG_CLOEXEC);
    struct cmsghdr *first = *length < 0 ? NULL : CMSG_FIRSTHDR(&header);
    if (first && first->cmsg_type == SCM_RIGHTS)
        memcpy(&fd, CMSG_DATA(first), sizeof fd);
    return fd;
}

struct outcome {
    pid_t pid;
    int master;
    int failed;
    int code;
    long long ready_us;
};

/* Starts vmexec and follows it until the program runs or doesn't. */
static struct outcome start_vmexec(const char *spec, const char *init_pid, int out) {
    struct outcome result = {.pid = -1, .master = -1};
    int pair[2];
    char sync_fd[16], spec_fd[16], message[8192];
    ssize_t length;
    long long start = now_us();
    int file = open(spec, O_RDONLY | O_CLOEXEC);
    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) < 0 || file < 0)
        die("start vmexec with %s", spec);
    pid_t helper = vfork();
    if (helper == 0) {
        dup2(open("/dev/null", O_RDONLY), 0);
        dup2(out, 1);
        dup2(out, 2);
        snprintf(sync_fd, sizeof sync_fd, "%d", dup(pair[1]));
        snprintf(spec_fd, sizeof spec_fd, "%d", dup(file));
        execl("/bin/vmexec", "vmexec", init_pid ? "exec" : "run", "--id", "t", "--spec-fd", spec_fd, "--sync-fd", sync_fd,
              init_pid ? "--pid" : NULL, init_pid, NULL);
        _exit(111);
    }
    close(pair[1]);
    close(file);
    for (;;) {
        int fd = receive_fd(pair[0], message, &length);
        if (length <= 0)
            break;
        if (message[0] == 'P')
            memcpy(&result.pid, message + 1, 4);
        else if (message[0] == 'T')
            result.master = fd;
        else if (message[0] == 'R') {
            result.ready_us = now_us() - start;
            send(pair[0], "S", 1, 0);
        } else if (message[0] == 'E') {
            result.failed = 1;
            output_length = (size_t)length - 1;
            memcpy(output, message + 1, output_length);
        }
    }
    close(pair[0]);
    result.code = reap(helper);
    return result;
}

/* A crun that hands its terminal over on a socket leaves the process to us, the subreaper. */
static struct outcome start_crun(char *const argv[], int tty, int out) {
    struct outcome result = {.pid = -1, .master = -1};
    struct sockaddr_un address = {.sun_family = AF_UNIX, .sun_path = SOCKET};
    char message[8192];
    ssize_t length;
    int listener = -1;
    if (tty) {
        unlink(SOCKET);
        listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
        if (bind(listener, (struct sockaddr *)&address, sizeof address) < 0 || listen(listener, 1) < 0)
            die("listen");
    }
    pid_t crun = spawn(argv, out);
    if (tty) {
        struct pollfd wait = {.fd = listener, .events = POLLIN};
        if (poll(&wait, 1, 10000) == 1) {
            int connection = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
            result.master = receive_fd(connection, message, &length);
            close(connection);
        }
        close(listener);
        result.code = reap(crun);
        result.failed = result.code != 0;
    } else {
        result.pid = crun;
    }
    return result;
}

static void report(const char *row, const char *runtime, struct outcome result, long long total_us) {
    dprintf(console, "== %s %s %d %d %lld %lld %zu\n", row, runtime, result.code, result.failed, result.ready_us, total_us,
            output_length);
    for (size_t done = 0; done < output_length;) {
        ssize_t count = write(console, output + done, output_length - done);
        if (count < 0)
            die("report");
        done += (size_t)count;
    }
}

static int has_word(const char *row, const char *word) {
    char path[600], content[256] = "";
    snprintf(path, sizeof path, "/rows/%s/how", row);
    int fd = open(path, O_RDONLY);
    if (fd < 0 || read(fd, content, sizeof content - 1) < 0)
        die("read %s", path);
    close(fd);
    return strstr(content, word) != NULL;
}

/* A fresh root at /c/rootfs, a mount of its own as in an agent's VM, and the row's files beside it. */
static void fresh_bundle(const char *row, const char *runtime) {
    char from[600];
    struct stat st;
    if (mount("bundle", "/c", "tmpfs", 0, NULL) < 0)
        die("mount /c");
    mkdir("/c/rootfs", 0755);
    if (mount("rootfs", "/c/rootfs", "tmpfs", 0, NULL) < 0)
        die("mount the root");
    copy_tree("/tree", "/c/rootfs");
    snprintf(from, sizeof from, "/rows/%s/%s.json", row, runtime);
    copy_file(from, "/c/config.json", 0644);
    snprintf(from, sizeof from, "/rows/%s/%s.exec", row, runtime);
    if (stat(from, &st) == 0)
        copy_file(from, "/c/exec.json", 0644);
    output_length = 0;
}

static void with_vmexec(const char *row) {
    int pipe_fds[2], exec = has_word(row, "exec");
    struct outcome init = {.pid = -1}, result;
    char init_pid[16];
    fresh_bundle(row, "vmexec");
    if (exec) {
        init = start_vmexec("/c/config.json", NULL, console);
        snprintf(init_pid, sizeof init_pid, "%d", init.pid);
        output_length = 0;
    }
    if (pipe2(pipe_fds, O_CLOEXEC) < 0)
        die("pipe");
    long long start = now_us();
    result = start_vmexec(exec ? "/c/exec.json" : "/c/config.json", exec ? init_pid : NULL, pipe_fds[1]);
    close(pipe_fds[1]);
    if (!result.failed)
        take_output(result.master >= 0 ? result.master : pipe_fds[0]);
    if (result.pid > 0) {
        int code = reap(result.pid);
        result.code = result.failed ? result.code : code;
    }
    long long total_us = now_us() - start;
    close(pipe_fds[0]);
    if (result.master >= 0)
        close(result.master);
    if (init.pid > 0) {
        kill(init.pid, SIGKILL);
        reap(init.pid);
    }
    while (waitpid(-1, NULL, WNOHANG) > 0)
        continue;
    rmdir("/sys/fs/cgroup/firkin/t");
    umount2("/c", MNT_DETACH);
    report(row, "vmexec", result, total_us);
}

static void with_crun(const char *row) {
    char *const once[] = {"/bin/crun", "--root=/run/crun", "--cgroup-manager=cgroupfs", "run", "--bundle=/c", "t", NULL};
    char *const tty_once[] = {"/bin/crun", "--root=/run/crun", "--cgroup-manager=cgroupfs", "run", "--bundle=/c", "--detach",
                              "--console-socket=" SOCKET, "t", NULL};
    char *const detached[] = {"/bin/crun", "--root=/run/crun", "--cgroup-manager=cgroupfs", "run", "--bundle=/c", "--detach",
                              "t", NULL};
    char *const more[] = {"/bin/crun", "--root=/run/crun", "--cgroup-manager=cgroupfs", "exec", "--process=/c/exec.json", "t",
                          NULL};
    char *const tty_more[] = {"/bin/crun", "--root=/run/crun", "--cgroup-manager=cgroupfs", "exec", "--process=/c/exec.json",
                              "--detach", "--console-socket=" SOCKET, "t", NULL};
    char *const end[] = {"/bin/crun", "--root=/run/crun", "--cgroup-manager=cgroupfs", "delete", "--force", "t", NULL};
    int pipe_fds[2], exec = has_word(row, "exec"), tty = has_word(row, "tty"), null = open("/dev/null", O_WRONLY);
    fresh_bundle(row, "crun");
    if (exec)
        reap(start_crun(detached, 0, console).pid);
    if (pipe2(pipe_fds, O_CLOEXEC) < 0)
        die("pipe");
    long long start = now_us();
    struct outcome result = start_crun(exec ? (tty ? tty_more : more) : (tty ? tty_once : once), tty, pipe_fds[1]);
    close(pipe_fds[1]);
    take_output(result.master >= 0 ? result.master : pipe_fds[0]);
    if (result.pid > 0)
        result.code = reap(result.pid);
    else if (!result.failed)
        result.code = reap(-1);
    long long total_us = now_us() - start;
    close(pipe_fds[0]);
    if (result.master >= 0)
        close(result.master);
    /* It has cleaned up after itself otherwise; one that failed leaves its state behind at times. */
    if (exec || tty || result.code)
        reap(spawn(end, null));
    close(null);
    while (waitpid(-1, NULL, WNOHANG) > 0)
        continue;
    rmdir("/sys/fs/cgroup/firkin/t");
    umount2("/c", MNT_DETACH);
    report(row, "crun", result, total_us);
}

int main(void) {
    struct dirent **rows;
    boot();
    /* A bench measures it as it is. */
    if (access("/rows/plain", F_OK) < 0)
        sealed_crun = seal_crun();
    int count = scandir("/rows", &rows, NULL, alphasort);
    for (int i = 0; i < count; i++) {
        if (rows[i]->d_name[0] == '.' || !strcmp(rows[i]->d_name, "plain"))
            continue;
        with_vmexec(rows[i]->d_name);
        if (!has_word(rows[i]->d_name, "alone"))
            with_crun(rows[i]->d_name);
    }
    dprintf(console, "== end\n");
    tcdrain(console);
    reboot(RB_AUTOBOOT);
    return 0;
}
